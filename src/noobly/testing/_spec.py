"""What the launcher has to know of a kind of server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path

import msgspec

from noobly.testing._installed import find_program

LOOPBACK = "127.0.0.1"
PROBE_TIMEOUT = 0.5
"""Seconds a probe waits for each answer."""


class Reply(Enum):
    """What a readiness probe heard."""

    READY = "ready"
    LOCKED = "locked"
    """It speaks the protocol but wants credentials."""
    SILENT = "silent"


def _nothing(_port: int, _folder: Path) -> Mapping[str, str]:
    return {}


class ServerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How to start and recognise one kind of server.

    Args:
        name: Its name here, and in ``NOOBLY_TEST_<NAME>_URL``.
        default_port: The port on which one that already runs is expected.
        scheme: The scheme of its URL.
        package: The apt package that installs it; empty where pip does.
        requirements: What pip installs for it, in an environment of its own.
        program: The executable to run.
        wrapper: A command that is put before the program and becomes it.
        arguments: Returns the program's arguments for a port and an empty folder, which it may prepare first.
        environment: Returns what to add to the environment, after ``arguments``, for the same port and folder.
        probe: Asks a host and port one harmless question of the protocol.
        patience: Seconds a start may take.
        grace: Seconds from SIGTERM to SIGKILL.
    """

    name: str
    default_port: int
    scheme: str
    package: str = ""
    requirements: tuple[str, ...] = ()
    program: str
    wrapper: tuple[str, ...] = ()
    arguments: Callable[[int, Path], list[str]]
    environment: Callable[[int, Path], Mapping[str, str]] = _nothing
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
        return find_program(self.program)

    @property
    def advice(self) -> str:
        """How to install it."""
        other = f"apt-get install {self.package}" if self.package else f"pip install {' '.join(self.requirements)}"
        return f"run scripts/servers install, or {other}"

    @property
    def listening(self) -> bool:
        """Whether one answers on the standard port of this machine, without asking for credentials."""
        return self.probe(LOOPBACK, self.default_port) is Reply.READY

    def url(self, port: int) -> str:
        """Return the URL of such a server on loopback."""
        return f"{self.scheme}://{LOOPBACK}:{port}"


def ask(host: str, port: int, question: bytes) -> bytes:
    """Return the first bytes a server answers to a question; none if it does not listen or answer in time."""
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT) as link:
            link.sendall(question)
            return link.recv(512)
    except OSError:
        return b""
