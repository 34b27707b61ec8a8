"""The legacy cache API of Noobly on granian against nooblyjs-core itself, one process on one core each, with API keys.

Installs nooblyjs-core with npm into a folder that is removed afterwards; needs Node.js.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks._load import Load, cpu_of, program
from benchmarks._rounds import Faster, Session, Variant, run
from benchmarks.http import KEY, NUMBERS, gets, puts
from noobly.testing import free_port

VERSION = "1.0.10"
HEADERS = [f"x-api-key: {KEY}"]


def install(npm: str, folder: str) -> None:
    command = [npm, "install", "--prefix", folder, "--no-audit", "--no-fund", f"nooblyjs-core@{VERSION}"]
    subprocess.run(command, check=True, capture_output=True)


async def nooblyjs(session: Session) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        sys.exit("this benchmark needs node and npm")
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        install(npm, folder)
        ports = {"noobly": free_port(), "nooblyjs-core": free_port()}
        app = [
            sys.executable,
            "-P",
            str(here / "_http_app.py"),
            "key",
            "granian",
            str(ports["noobly"]),
            session.options.loop,
        ]
        script = [node, str(here / "nooblyjs.cjs"), str(ports["nooblyjs-core"])]
        environ = {"NOOBLY_API_KEYS": KEY, "NODE_PATH": f"{folder}/node_modules", "NODE_ENV": "production"}
        processes = {
            name: stack.enter_context(program(argv, ports[name], environ))
            for name, argv in (("noobly", app), ("nooblyjs-core", script))
        }
        for title, requests in (("put", puts(HEADERS)), ("get", gets(HEADERS))):
            variants = [
                Variant(name, Load(ports[name], requests), partial(cpu_of, process))
                for name, process in processes.items()
            ]
            for variant in variants:
                await variant.work(len(NUMBERS))
            await session.compare(
                f"HTTP cache: {title}",
                variants,
                base="nooblyjs-core",
                goals=[Faster("noobly", "nooblyjs-core", 3)],
                note=f"nooblyjs-core {VERSION}, 32 connections from another core; the CPU is the server's.",
            )


if __name__ == "__main__":
    run(nooblyjs, packages=("granian", "starlette", "uvloop"), rounds=7, seconds=1.0)
