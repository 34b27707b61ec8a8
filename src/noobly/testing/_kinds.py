"""The kinds of server the launcher knows: how to start one, and how to tell that it answers."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType

import msgspec

LOOPBACK = "127.0.0.1"
_PROBE_TIMEOUT = 0.5


class Reply(Enum):
    """What a readiness probe heard."""

    READY = "ready"
    LOCKED = "locked"
    """It speaks the protocol but wants credentials."""
    SILENT = "silent"


class ServerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How to start and recognise one kind of server.

    Args:
        name: Its name here, and in ``NOOBLY_TEST_<NAME>_URL``.
        default_port: The port on which one that already runs is expected.
        scheme: The scheme of its URL.
        package: The apt package that installs it.
        program: The executable to run.
        arguments: Returns the program's arguments for a port and an empty folder, which it may prepare first.
        probe: Asks a host and port one harmless question of the protocol.
        patience: Seconds a start may take.
        grace: Seconds from SIGTERM to SIGKILL.
    """

    name: str
    default_port: int
    scheme: str
    package: str
    program: str
    arguments: Callable[[int, Path], list[str]]
    probe: Callable[[str, int], Reply]
    patience: float = 10.0
    grace: float = 5.0

    @property
    def variable(self) -> str:
        """The environment variable that names a server of this kind by URL."""
        return f"NOOBLY_TEST_{self.name.upper()}_URL"

    @property
    def installed(self) -> str | None:
        """The path of the program; None if it is not installed."""
        return shutil.which(self.program)

    @property
    def listening(self) -> bool:
        """Whether one answers on the standard port of this machine, without asking for credentials."""
        return self.probe(LOOPBACK, self.default_port) is Reply.READY

    def url(self, port: int) -> str:
        """Return the URL of such a server on loopback."""
        return f"{self.scheme}://{LOOPBACK}:{port}"


def _ask(host: str, port: int, question: bytes) -> bytes:
    try:
        with socket.create_connection((host, port), timeout=_PROBE_TIMEOUT) as link:
            link.sendall(question)
            return link.recv(512)
    except OSError:
        return b""


def _redis_probe(host: str, port: int) -> Reply:
    answer = _ask(host, port, b"PING\r\n")
    if answer.startswith(b"-NOAUTH"):
        return Reply.LOCKED
    return Reply.READY if answer.startswith(b"+PONG") else Reply.SILENT


def _redis_arguments(port: int, folder: Path) -> list[str]:
    storage = ["--dir", str(folder), "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
    return ["--port", str(port), "--bind", LOOPBACK, *storage]


def _memcached_probe(host: str, port: int) -> Reply:
    return Reply.READY if _ask(host, port, b"version\r\n").startswith(b"VERSION ") else Reply.SILENT


def _memcached_arguments(port: int, _folder: Path) -> list[str]:
    user = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
    return [*user, "-l", LOOPBACK, "-p", str(port), "-U", "0", "-m", "64"]


def _prometheus_probe(host: str, port: int) -> Reply:
    answer = _ask(host, port, f"GET /-/ready HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
    return Reply.READY if answer.startswith(b"HTTP/1.0 200") else Reply.SILENT


def _prometheus_arguments(port: int, folder: Path) -> list[str]:
    """Write a configuration that scrapes each second what ``targets.json`` in the folder comes to name."""
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: noobly\n"
        f"    file_sd_configs: [{{files: ['{folder}/targets.json'], refresh_interval: 1s}}]\n"
    )
    listen = ["--web.listen-address", f"{LOOPBACK}:{port}", "--log.level", "warn"]
    storage = ["--storage.tsdb.path", str(folder / "data"), "--enable-feature", "exemplar-storage"]
    return ["--config.file", str(config), *storage, *listen]


_KINDS = (
    ServerSpec(
        name="redis",
        default_port=6379,
        scheme="redis",
        package="redis-server",
        program="redis-server",
        arguments=_redis_arguments,
        probe=_redis_probe,
    ),
    ServerSpec(
        name="memcached",
        default_port=11211,
        scheme="memcached",
        package="memcached",
        program="memcached",
        arguments=_memcached_arguments,
        probe=_memcached_probe,
        grace=0.0,  # it looks for SIGTERM once a second, and has nothing to save
    ),
    ServerSpec(
        name="prometheus",
        default_port=9090,
        scheme="http",
        package="prometheus",
        program="prometheus",
        arguments=_prometheus_arguments,
        probe=_prometheus_probe,
        patience=20.0,
    ),
)
SERVERS: Mapping[str, ServerSpec] = MappingProxyType({spec.name: spec for spec in _KINDS})
"""Every kind of server the launcher knows, by name."""
