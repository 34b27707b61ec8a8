"""Private redis-server processes on loopback, for tests that kill, stop and restart them."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from noobly.clients.redis import RedisAddress, RedisConnection, RedisOptions, Reply, Resolver
from noobly.core.errors import Unavailable
from noobly.testing import required

PROGRAM = "/usr/bin/redis-server"
_PORTS = range(20_000, 32_000)  # not the range of outgoing connections, which could meet themselves there


class RedisServer:
    """One server that keeps its port over restarts."""

    def __init__(self, folder: Path, *options: str, tls: bool = False, sentinel: str = "") -> None:
        self.port = free_port()
        listen = ["--port", "0", "--tls-port", str(self.port)] if tls else ["--port", str(self.port)]
        folder.mkdir()
        self._argv = [PROGRAM, *self._configuration(folder, sentinel), *listen, "--bind", "127.0.0.1"]
        self._argv += ["--dir", str(folder), *options]
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def _configuration(folder: Path, sentinel: str) -> list[str]:
        if not sentinel:
            return ["--save", "", "--appendonly", "no", "--enable-debug-command", "yes"]
        (folder / "sentinel.conf").write_text(sentinel)
        return [str(folder / "sentinel.conf"), "--sentinel"]

    def start(self) -> RedisServer:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._argv, stdout=log, stderr=log)
        until = time.monotonic() + 5
        while not self._is_ready():
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError(f"redis-server did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.005)
        return self

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(5)
            self._process = None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _is_ready(self) -> bool:
        log = self._log.read_bytes()
        return b"Ready to accept connections" in log or b"+monitor" in log


def free_port() -> int:
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


class Servers:
    """Starts servers in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.started: list[RedisServer] = []

    def __call__(self, *options: str, tls: bool = False, sentinel: str = "") -> RedisServer:
        folder = self._folder / f"redis{len(self.started)}"
        self.started.append(RedisServer(folder, *options, tls=tls, sentinel=sentinel))
        return self.started[-1].start()


@contextmanager
def bounded_servers(folder: Path, seconds: float = 15) -> Iterator[Servers]:
    """Give a starter of servers that all end with the test, which itself ends in time."""

    if not Path(PROGRAM).exists():
        give_up = pytest.fail if "redis" in required() else pytest.skip
        give_up(f"{PROGRAM} is missing: scripts/servers install")

    def late(*_: object) -> None:
        raise TimeoutError(f"the test took more than {seconds} s")

    servers, before = Servers(folder), signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield servers
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        for server in servers.started:
            server.kill()


class Steady:
    """A chance without chance: pauses are half their longest."""

    def random(self) -> float:
        return 0.0


def at(*servers: RedisServer) -> Resolver:
    """Resolve to one server after the other, and stay with the last."""
    ports = [server.port for server in servers]

    async def resolve() -> RedisAddress:
        return RedisAddress("127.0.0.1", ports.pop(0) if len(ports) > 1 else ports[0])

    return resolve


@asynccontextmanager
async def connected(*servers: RedisServer, options: RedisOptions | None = None) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(at(*servers), options or RedisOptions(), chance=Steady())
    await connection.start()
    try:
        yield connection
    finally:
        await connection.close()


async def outcomes(tasks: list[asyncio.Task[Reply]]) -> list[Reply | BaseException]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def issue(connection: RedisConnection, *commands: tuple[str | int, ...]) -> list[asyncio.Task[Reply]]:
    return [asyncio.create_task(connection.execute(*command)) for command in commands]


async def until_up(connection: RedisConnection) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                await connection.execute("PING")
            except Unavailable as error:
                await asyncio.sleep(error.retry_after or 0.01)
            else:
                return


def tls_files(folder: Path) -> tuple[list[str], ssl.SSLContext]:
    """Return a server's options for TLS and a context that trusts it."""
    authority, trusted = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusted)
    own, ca = folder / "server.pem", folder / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(own)
    authority.cert_pem.write_to_path(ca)
    files = ["--tls-cert-file", str(own), "--tls-key-file", str(own), "--tls-ca-cert-file", str(ca)]
    return [*files, "--tls-auth-clients", "no"], trusted
