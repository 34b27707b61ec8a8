"""The legacy cache API on one worker against a bare Starlette route on the same server, granian or uvicorn."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks._load import Load, cpu_of, program, request
from benchmarks._rounds import Faster, Session, Variant, run
from noobly.testing import free_port

BASE = "/services/caching/api"
KEY = "benchmark-key-of-no-value-to-anybody"
NUMBERS = range(1000)
VALUE = b'{"name":"Ada Lovelace","roles":["admin","author"],"age":36,"address":{"city":"London","zip":"W1"}}'
KINDS = {"bare Starlette": "bare", "noobly, no key": "dev", "noobly, API key": "key"}


def gets(headers: list[str]) -> list[bytes]:
    return [request("GET", f"{BASE}/get/user-{number}", headers=headers) for number in NUMBERS]


def puts(headers: list[str]) -> list[bytes]:
    return [request("POST", f"{BASE}/put/user-{number}", VALUE, headers) for number in NUMBERS]


async def http_api(session: Session) -> None:
    for server in ("granian", "uvicorn"):
        if session.options.only in f"{server}: get {server}: put":
            await compare(session, server)


async def compare(session: Session, server: str) -> None:
    app = str(Path(__file__).with_name("_http_app.py"))
    reading: list[Variant] = []
    writing: list[Variant] = []
    with ExitStack() as stack:
        for name, kind in KINDS.items():
            port = free_port()
            argv = [sys.executable, "-P", app, kind, server, str(port), session.options.loop]
            process = stack.enter_context(program(argv, port, {"NOOBLY_API_KEYS": KEY}))
            headers = [f"x-api-key: {KEY}"] if kind == "key" else []
            spent = partial(cpu_of, process)
            await Load(port, puts(headers))(len(NUMBERS))
            reading.append(Variant(name, Load(port, gets(headers)), spent))
            writing.append(Variant(name, Load(port, puts(headers)), spent))
        for title, variants in (("get", reading), ("put", writing)):
            await session.compare(
                f"{server}: {title}",
                variants,
                base="bare Starlette",
                goals=[Faster("noobly, API key", "bare Starlette", 0.6)],
                note="32 connections from another process and core; the CPU is the server's.",
            )


if __name__ == "__main__":
    run(http_api, packages=("starlette", "granian", "uvicorn", "uvloop"), rounds=7, seconds=1.0)
