"""Peers that run in processes of their own, each with the packages it wants, for they exclude one another.

A peer's packages are installed where they are missing, into ``.servers/bench/NAME``; one that cannot be is named and
left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import msgspec

from noobly.testing import ServerMissing, node

_HERE = Path(__file__).parent
_VENVS = _HERE.parent / ".servers" / "bench"
_PATIENCE = 180.0


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A program of ``benchmarks/peers``.

    Args:
        name: What it is called in tables.
        program: Its file.
        url: Where its jobs are kept.
        venv: The folder of its packages; None for this process's own.
        requirements: Its packages.
        environ: What it finds in its environment.
        together: It adds and works in one process.
    """

    name: str
    program: str
    url: str
    venv: str | None = None
    requirements: tuple[str, ...] = ()
    environ: Mapping[str, str] = {}
    together: bool = False


class Said(msgspec.Struct, frozen=True):
    """What a program says: it is ready, or how long it took, its CPU time, and how late jobs began, in seconds."""

    ready: bool = False
    seconds: float = 0.0
    cpu: float = 0.0
    late: list[float] = []


def install(peer: Peer) -> str:
    """Install what a peer needs where that is missing; return why it cannot run, empty where it can."""
    if peer.program.endswith(".cjs"):
        try:
            node()
        except ServerMissing as missing:
            return str(missing)
        return ""
    if peer.venv is None:
        return ""
    folder, done = _VENVS / peer.venv, _VENVS / peer.venv / ".installed"
    wanted = " ".join(peer.requirements)
    if done.exists() and done.read_text() == wanted:
        return ""
    print(f"installing {wanted}", flush=True)
    make = [sys.executable, "-m", "venv", "--clear", str(folder)]
    fill = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for command in (make, [*fill, *peer.requirements]):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            return (ended.stderr.strip().splitlines() or ["it cannot be installed"])[-1]
    done.write_text(wanted)
    return ""


class Program:
    """One run of a peer's program; as a context manager it is stopped by its own id at the end."""

    def __init__(self, peer: Peer, role: str, arguments: Sequence[object], loop: str) -> None:
        self._argv = [*_interpreter(peer), str(_HERE / "peers" / peer.program), role, *map(str, arguments)]
        modules = {"NODE_PATH": str(node().modules)} if peer.program.endswith(".cjs") else {}
        self._environ = {**os.environ, **modules, **peer.environ, "BENCH_LOOP": loop}
        self._peer = peer

    async def __aenter__(self) -> Self:
        piped = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, stdout=piped, stderr=asyncio.subprocess.DEVNULL, env=self._environ, limit=16 * 1024 * 1024
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def hear(self) -> Said:
        """Return the next thing it says.

        Raises:
            RuntimeError: It ended without a word.
        """
        assert self._process.stdout is not None
        async with asyncio.timeout(_PATIENCE):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._peer.name} ended without a result")
        return msgspec.convert(json.loads(line), Said)

    async def result(self) -> Said:
        """Return its result."""
        while (said := await self.hear()).ready:
            pass
        return said


def _interpreter(peer: Peer) -> list[str]:
    if peer.program.endswith(".cjs"):
        return [node().program]
    return [sys.executable if peer.venv is None else str(_VENVS / peer.venv / "bin" / "python")]


class Run(msgspec.Struct, frozen=True):
    """How adding and working went."""

    added: Said
    worked: Said


async def in_turn(peer: Peer, count: int, loop: str) -> Run:
    """Let a peer add jobs, and then work on them in another process, so that all is there when that begins."""
    if peer.together:
        async with Program(peer, "both", (peer.url, count, 0), loop) as program:
            return Run(await program.result(), await program.result())
    async with Program(peer, "add", (peer.url, count, 0), loop) as program:
        added = await program.result()
    async with Program(peer, "work", (peer.url, count), loop) as program:
        return Run(added, await program.result())


async def spaced(peer: Peer, count: int, spacing: float, loop: str) -> Run:
    """Let a peer add jobs one by one for a worker that is idle, in another process."""
    if peer.together:
        async with Program(peer, "both", (peer.url, count, spacing), loop) as program:
            first = await program.result()
            second = await program.result() if not first.late else first
            return Run(first, second)
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(Program(peer, "work", (peer.url, count), loop))
        while not (await worker.hear()).ready:
            pass
        adder = await stack.enter_async_context(Program(peer, "add", (peer.url, count, spacing), loop))
        return Run(await adder.result(), await worker.result())
