"""RabbitMQ as a private server: a node of its own name, with its own port mapper, that leaves no process behind."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from noobly.testing._process import free_port
from noobly.testing._spec import LOOPBACK, PROBE_TIMEOUT, Reply, ServerSpec

# A node would start the port mapper epmd as a daemon that outlives it. This one is in the node's process group, and
# ends with the node however that ends.
_WITH_EPMD = 'setpriv --pdeathsig KILL epmd -port "$ERL_EPMD_PORT" -address "$ERL_EPMD_ADDRESS" & exec "$0" "$@"'
_HEADER = b"AMQP\x00\x00\x09\x01"
_START, _TUNE = (10, 10), (10, 30)
_LARGEST_FRAME = 65_536


def _no_arguments(_port: int, _folder: Path) -> list[str]:
    return []


def _ports_beside(port: int) -> list[int]:
    ports = {port}
    while len(ports) < 3:
        ports.add(free_port())
    return list(ports - {port})


def _environment(port: int, folder: Path) -> Mapping[str, str]:
    distribution, mapper = _ports_beside(port)
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = {LOOPBACK}:{port}\n")
    (folder / "plugins").write_text("[].\n")
    return {
        "HOME": str(folder),  # the Erlang cookie is there
        "RABBITMQ_NODENAME": f"noobly{port}@localhost",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node, instead of waiting for it
    }


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def _log_in_as_guest() -> bytes:
    """Return the frame connection.start-ok: no properties, mechanism, response, locale."""
    method = struct.pack(">HH", 10, 11) + _long(b"") + _short(b"PLAIN") + _long(b"\0guest\0guest") + _short(b"en_US")
    return b"\x01\x00\x00" + _long(method) + b"\xce"


def _method(answers: BinaryIO) -> tuple[int, int]:
    """Read one frame and return its class and method; zeros if it is no method of the connection."""
    kind, channel, size = struct.unpack(">BHI", answers.read(7).ljust(7, b"\0"))
    if (kind, channel) != (1, 0) or not 4 <= size <= _LARGEST_FRAME:
        return (0, 0)
    number, method = struct.unpack(">HH", answers.read(size + 1)[:4].ljust(4, b"\0"))
    return (number, method)


def _probe(host: str, port: int) -> Reply:
    reply = Reply.SILENT
    try:
        with (
            socket.create_connection((host, port), timeout=PROBE_TIMEOUT) as link,
            link.makefile("rb") as answers,
        ):
            link.sendall(_HEADER)
            if _method(answers) == _START:
                reply = Reply.LOCKED
                link.sendall(_log_in_as_guest())
                reply = Reply.READY if _method(answers) == _TUNE else Reply.LOCKED
    except OSError:
        pass  # what it said before stands
    return reply


RABBITMQ = ServerSpec(
    name="rabbitmq",
    default_port=5672,
    scheme="amqp",
    package="rabbitmq-server",
    program="/usr/lib/rabbitmq/bin/rabbitmq-server",  # the one on the PATH runs it in another process group
    wrapper=("/bin/sh", "-c", _WITH_EPMD),
    arguments=_no_arguments,
    environment=_environment,
    probe=_probe,
    patience=40.0,
    grace=10.0,
)
"""A private one takes about 5 s to start, three times as long on a busy machine: share it between tests."""
