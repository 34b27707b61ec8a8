"""HTTP load: a bounded number of keep-alive connections, each with one request under way.

The requests are written beforehand and answers are only looked at for their status and length, so that the load costs
far less than what it loads. A server runs in a process of its own, on the first usable core; the load on the last.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import cast

from noobly.testing._process import Process

CONNECTIONS = 32
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_TICK = os.sysconf("SC_CLK_TCK")


def request(method: str, path: str, body: bytes = b"", headers: Sequence[str] = ()) -> bytes:
    """Return one HTTP/1.1 request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Load:
    """Requests to one port, taken in turn from a list."""

    def __init__(self, port: int, requests: Sequence[bytes], connections: int = CONNECTIONS) -> None:
        self._port = port
        self._requests = cycle(requests)
        self._connections = connections

    async def __call__(self, count: int) -> int:
        """Send so many requests and wait for their answers.

        Raises:
            AssertionError: An answer is not a 200, or a connection was closed.
        """
        loop = asyncio.get_running_loop()
        turn = _Turn(self._requests, count)
        made = [
            await loop.create_connection(lambda: _Connection(turn), "127.0.0.1", self._port)
            for _ in range(min(self._connections, count))
        ]
        for _, connection in made:
            connection.send()
        try:
            await turn.done
        finally:
            for transport, _ in made:
                transport.close()
        return count


class _Turn:
    def __init__(self, requests: Iterator[bytes], count: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.unsent = self.missing = count
        self.requests = requests

    def answered(self) -> None:
        self.missing -= 1
        if not self.missing:
            self.done.set_result(None)

    def failed(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(AssertionError(why))


class _Connection(asyncio.Protocol):
    def __init__(self, turn: _Turn) -> None:
        self._turn = turn
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        if self._turn.unsent:
            self._turn.unsent -= 1
            self._transport.write(next(self._turn.requests))

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        head = received.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(received, 0, head)
        if length is None or received[9:12] != b"200":
            self._turn.failed(f"unexpected answer: {received[:300]!r}")
        elif len(received) >= head + 4 + int(length[1]):
            self._received = b""
            self._turn.answered()
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._turn.failed(f"the server closed a connection: {exc}")


@contextmanager
def program(argv: Sequence[str], port: int, environ: dict[str, str] | None = None) -> Iterator[Process]:
    """Run a server on the first core until the end of the block; it is stopped by its own id."""
    pin = ["taskset", "-c", str(min(_CORES))] if shutil.which("taskset") else []
    variables = ["env", *(f"{name}={value}" for name, value in (environ or {}).items())]
    with tempfile.TemporaryDirectory() as folder:
        process = Process([*pin, *variables, *argv], Path(folder))
        try:
            _until_listening(process, port)
            yield process
        finally:
            process.end()


_CORES = os.sched_getaffinity(0)


def _until_listening(process: Process, port: int) -> None:
    for _ in range(1000):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        if not process.running:
            break
        time.sleep(0.02)
    sys.exit(f"the server on port {port} did not start:\n{process.output()}")


def cpu_of(process: Process) -> float:
    """Return the CPU seconds of a process and its threads, in the kernel's ticks (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK
