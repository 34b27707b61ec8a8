"""The code blocks of the documentation, taken out of their pages and run.

A block's info string says how: ``python`` runs here, in a fresh namespace and an empty folder, with top-level await as
in ``python -m asyncio``; ``sh`` runs only with a tag. Further words name the server a block needs: ``server`` is a
``noobly serve --dev``, ``redis`` and ``memcached`` are real ones. ``cli`` is for commands alone, ``errors`` for
requests that are refused, ``no-run`` for Python that needs packages which are not installed here, ``plugin`` for a part
of tests/plugin; ``toml settings`` is a settings file.
``print(x)  # text`` says what is printed; in ``sh`` blocks, comment lines are the expected output.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DEV_SERVER = "http://127.0.0.1:11000"
"""What the pages call the development server; the tests put their own one there."""
ADDRESSES = {"server": DEV_SERVER, "redis": "redis://localhost", "memcached": "memcached://localhost"}

_FENCE = re.compile(r"^( *)```([a-z]+)([^\n]*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)
_CURL = """
curl() { command curl --silent --show-error %s --max-time 10 --write-out '\\n' "$@"; }
"""


class Block(NamedTuple):
    """One block: its page and line, language, tags and text."""

    page: Path
    line: int
    language: str
    tags: frozenset[str]
    text: str

    @property
    def name(self) -> str:
        """What the test is called."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def needs(self) -> list[str]:
        """The servers it needs."""
        return sorted(self.tags & ADDRESSES.keys())

    def at(self, servers: Mapping[str, str]) -> str:
        """Return the text with these servers' addresses in place of the printed ones."""
        text = self.text
        for name, url in servers.items():
            text = text.replace(ADDRESSES[name], url)
        return text


def pages() -> list[Path]:
    """Return all pages with code in them."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page."""
    content = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(content):
        line = content.count("\n", 0, match.start()) + 1
        tags = frozenset(match[3].split())
        yield Block(page, line, match[2], tags, textwrap.dedent(match[4]))


def run_python(text: str, name: str, printed: Callable[[], str]) -> None:
    """Run a block and compare what it prints with what it says it prints."""
    code = compile(text, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(_awaited(code))
    else:
        exec(code, {"__name__": "__main__"})
    expected = _PRINTED.findall(text)
    if expected:
        assert printed().splitlines() == expected


async def _awaited(code: CodeType) -> None:
    await eval(code, {"__name__": "__main__"})


def run_shell(text: str, folder: Path, *, errors: bool) -> None:
    """Run a block with bash and compare its output with its comments; with ``errors`` curl may be refused."""
    curl = _CURL % ("" if errors else "--fail-with-body")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", curl + text],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    expected = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    if expected:
        assert [line for line in done.stdout.splitlines() if line] == expected
