"""Real servers for tests, benchmarks and authors of providers.

    with obtain("redis") as server:              # named by the environment, already running, or a private one
        ...  # server.url
    with private("redis", "--maxmemory", "2mb") as server:
        server.pause()                           # faults are only for servers started here

A server that was found running is shared with others: use a namespace of your own, never flush it.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Self
from urllib.parse import urlsplit

from noobly.core.errors import InvalidArgument
from noobly.testing._installed import Node, ServerMissing, node
from noobly.testing._kinds import SERVERS
from noobly.testing._process import Process, free_port
from noobly.testing._spec import LOOPBACK, Reply, ServerSpec

__all__ = [
    "SERVERS",
    "Node",
    "OwnedServer",
    "Reply",
    "RunningServer",
    "ServerFailed",
    "ServerMissing",
    "ServerSpec",
    "free_port",
    "node",
    "node_or_skip",
    "obtain",
    "private",
    "private_or_skip",
    "required",
    "server_or_skip",
]

_POLL = 0.005
_NODE = "node"


class ServerFailed(Exception):
    """A server was started and did not become ready; the message ends with its last output."""


class RunningServer:
    """A server that answers; leaving its context leaves it running, because somebody else started it.

    Args:
        spec: Its kind.
        url: Where it listens.
    """

    def __init__(self, spec: ServerSpec, url: str) -> None:
        parts = urlsplit(url)
        self.spec = spec
        self.url = url
        self.host = parts.hostname or LOOPBACK
        self.port = parts.port or spec.default_port

    @property
    def owned(self) -> bool:
        """Whether it was started here, so that it may be stopped and disturbed."""
        return isinstance(self, OwnedServer)

    def close(self) -> None:
        """Release the server."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.spec.name} {self.host}:{self.port}>"


class OwnedServer(RunningServer):
    """A private server on a free port, with its own folder; it ends with its context or with this process.

    Args:
        spec: Its kind.
        args: Further arguments for its command line.

    Raises:
        ServerMissing: Its program is not installed.
        ServerFailed: It exited or did not answer in time.
    """

    def __init__(self, spec: ServerSpec, *args: str) -> None:
        program = spec.installed
        if program is None:
            raise ServerMissing(f"{spec.program} is not installed: {spec.advice}")
        super().__init__(spec, spec.url(free_port()))
        self._folder = Path(tempfile.mkdtemp(prefix=f"noobly-{spec.name}-"))
        self._process: Process | None = None
        atexit.register(self.close)
        try:
            self._argv = [*spec.wrapper, program, *spec.arguments(self.port, self._folder), *args]
            self._environment = spec.environment(self.port, self._folder)
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """The process id; None while it is stopped."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server on its port and wait until it answers; one that runs is left alone."""
        if self._process and self._process.running:
            return
        self.stop()
        if self.spec.probe(self.host, self.port) is not Reply.SILENT:
            raise ServerFailed(f"port {self.port} for {self.spec.name} was taken by another server meanwhile")
        self._process = Process(self._argv, self._folder, self._environment)
        self._wait(self._process)

    def _wait(self, process: Process) -> None:
        until = time.monotonic() + self.spec.patience
        while process.running and time.monotonic() < until:
            if self.spec.probe(self.host, self.port) is not Reply.SILENT:
                return
            time.sleep(_POLL)
        code = process.exit_code
        self.kill()
        ended = f"did not answer within {self.spec.patience:g} s" if code is None else f"exited with code {code}"
        raise ServerFailed(f"{self.spec.name} on port {self.port} {ended}; its last output:\n{process.output()}")

    def restart(self) -> None:
        """End the server, if it runs, and start it on the same port and folder."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """End the server with SIGTERM, or SIGKILL once its grace is over; its folder stays for ``start``."""
        if self._process:
            self._process.end(patience=self.spec.grace)
            self._process = None

    def kill(self) -> None:
        """End the server with SIGKILL: it gets no chance to write or say anything."""
        if self._process:
            self._process.kill()
            self._process = None

    def pause(self) -> None:
        """Freeze the server with SIGSTOP: connections stay open and nothing answers."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._send(signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.close)

    def _send(self, number: signal.Signals) -> None:
        if not self._process:
            raise ServerFailed(f"{self.spec.name} on port {self.port} is stopped; start() it first")
        self._process.send(number)


def _spec(name: str) -> ServerSpec:
    if name not in SERVERS:
        raise InvalidArgument(f"no server is named {name!r}; there are: {', '.join(sorted(SERVERS))}")
    return SERVERS[name]


def obtain(name: str) -> RunningServer:
    """Return the server ``NOOBLY_TEST_<NAME>_URL`` names, else one on its standard port, else a private one.

    Args:
        name: A key of ``SERVERS``.

    Raises:
        InvalidArgument: The launcher does not know this kind.
        ServerMissing: There is none, and its program is not installed.
        ServerFailed: It is installed but did not start.
    """
    spec = _spec(name)
    if url := os.environ.get(spec.variable):
        return RunningServer(spec, url)
    if spec.listening:
        return RunningServer(spec, spec.url(spec.default_port))
    return OwnedServer(spec)


def private(name: str, *args: str) -> OwnedServer:
    """Start a server of one's own, which a test may stop, pause, kill and fill.

    Args:
        name: A key of ``SERVERS``.
        args: Further arguments for its command line.

    Raises:
        InvalidArgument: The launcher does not know this kind.
        ServerMissing: Its program is not installed.
        ServerFailed: It is installed but did not start.
    """
    return OwnedServer(_spec(name), *args)


def required() -> frozenset[str]:
    """Return the kinds that must not be missing: ``NOOBLY_REQUIRE_SERVERS``, "all" or names between commas.

    Beside the keys of ``SERVERS`` there is "node", which is Node.js with its packages.

    Raises:
        InvalidArgument: It names a kind the launcher does not know.
    """
    names = [part.strip() for part in os.environ.get("NOOBLY_REQUIRE_SERVERS", "").split(",")]
    if names == ["all"]:
        return frozenset({*SERVERS, _NODE})
    return frozenset(name if name == _NODE else _spec(name).name for name in names if name)


def _give_up(name: str, missing: ServerMissing) -> NoReturn:
    import pytest

    if name in required():
        pytest.fail(f"NOOBLY_REQUIRE_SERVERS wants {name}: {missing}", pytrace=False)
    pytest.skip(str(missing))


@contextmanager
def server_or_skip(name: str) -> Iterator[str]:
    """Give a pytest fixture the URL of a server; a missing one skips the test, or fails it where required."""
    try:
        server = obtain(name)
    except ServerMissing as missing:
        _give_up(name, missing)
    with server:
        yield server.url


@contextmanager
def private_or_skip(name: str, *args: str) -> Iterator[OwnedServer]:
    """Give a pytest fixture a server of its own, like ``private``, under the rule of ``server_or_skip``."""
    try:
        server = private(name, *args)
    except ServerMissing as missing:
        _give_up(name, missing)
    with server:
        yield server


def node_or_skip() -> Node:
    """Return Node.js with its packages for a pytest fixture, like ``node``, under the rule of ``server_or_skip``."""
    try:
        return node()
    except ServerMissing as missing:
        _give_up(_NODE, missing)
