"""The options of the RabbitMQ provider, and how they become a connection's arguments."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec

from noobly.core.config import Config, Secret
from noobly.core.errors import ConfigError

_DELIVERIES = 50
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:,\s]+))(?::(\d{1,5}))?")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RabbitmqConfig(Config, frozen=True, kw_only=True):
    """The options of the RabbitMQ provider.

    Args:
        scheme: ``rabbitmq`` or ``amqp``, with a final ``s`` for TLS.
        hosts: ``host:port``, several with commas between for the nodes of a cluster, which are tried in turn. The port
            is 5672 by default, 5671 with TLS.
        vhost: The virtual host, in the URL as its path.
        namespace: What the names of all queues begin with: letters, digits, ``_`` and ``-``.
        username: The user; ``guest`` by default, on this machine only.
        password: The password, by reference.
        ca: The file with the certificates to trust, instead of the system's.
        cert: The file with this client's certificate.
        cert_key: The file with its key.
        connect_timeout: Seconds to connect and log in.
        stall_timeout: Seconds without an answer after which a call fails, and a connection that answers nothing else
            either is given up.
        heartbeat: Seconds between signs of life; a connection silent for about three of them is given up.
        longest_lease: Seconds a message can be held, all extensions included; no lease is longer. The server closes the
            channel of one that is held longer than its ``consumer_timeout``, 30 minutes by default, so this must be
            less.
        delivery_limit: How often the server itself delivers a message again, whose receivers vanished, before it puts
            it among the dead letters: 50 by default, or ``max_deliveries`` where that is more, and never less. A queue
            keeps the limit it was made with.
        max_deliveries: That of the service's options.
    """

    url_parts: ClassVar[Mapping[str, str]] = {
        "scheme": "scheme",
        "netloc": "hosts",
        "path": "vhost",
        "user": "username",
    }

    scheme: str = "rabbitmq"
    hosts: str = "localhost"
    vhost: str = "/"
    namespace: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "noobly"
    username: str | None = None
    password: Secret | None = None
    ca: str | None = None
    cert: str | None = None
    cert_key: str | None = None
    connect_timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    stall_timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    heartbeat: Annotated[int, msgspec.Meta(ge=1, le=600)] = 10
    longest_lease: Annotated[float, msgspec.Meta(gt=0, le=43_200)] = 1500.0
    delivery_limit: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    max_deliveries: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme.endswith("s")


class Address(msgspec.Struct, frozen=True):
    """Where a server listens."""

    host: str
    port: int


def addresses(config: RabbitmqConfig) -> list[Address]:
    """Return where the servers listen.

    Raises:
        ConfigError: Something is no address.
    """
    return [_address(host.strip(), 5671 if config.secure else 5672) for host in config.hosts.split(",")]


def _address(text: str, port: int) -> Address:
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[3] or port) < 65_536:
        raise ConfigError(f"{text!r} is not host:port")
    return Address(match[1] or match[2], int(match[3] or port))


def limit(config: RabbitmqConfig) -> int:
    """Return how often the server delivers a message again.

    Raises:
        ConfigError: That is less often than receivers want it.
    """
    if config.delivery_limit is None:
        return max(_DELIVERIES, config.max_deliveries)
    if config.delivery_limit < config.max_deliveries:
        raise ConfigError(
            f"delivery_limit is {config.delivery_limit}, so RabbitMQ would give a message up before its"
            f" {config.max_deliveries} deliveries (max_deliveries); set delivery_limit to as many at least"
        )
    return config.delivery_limit


def credentials(config: RabbitmqConfig) -> tuple[str, str]:
    """Return user and password.

    Raises:
        ConfigError: One of them is missing.
    """
    near = all(address.host in _LOOPBACK for address in addresses(config))
    if config.username is None and config.password is None and near:
        return "guest", "guest"
    if config.username is None or config.password is None:
        raise ConfigError(f"RabbitMQ at {config.hosts} needs username and password; guest is for this machine only")
    return config.username, config.password.reveal()


def tls(config: RabbitmqConfig) -> ssl.SSLContext | None:
    """Return what encrypts the connection; None where nothing does.

    Raises:
        ConfigError: A file cannot be read, or there are files for a connection that is not encrypted.
    """
    if not config.secure and (config.ca or config.cert or config.cert_key):
        raise ConfigError(
            f"ca, cert and cert_key are for TLS, but {config.scheme}:// is not encrypted; write {config.scheme}s://"
        )
    if config.cert_key and not config.cert:
        raise ConfigError("cert_key is the key of a certificate, so it needs cert")
    if not config.secure:
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca)
        if config.cert is not None:
            context.load_cert_chain(config.cert, config.cert_key)
    except OSError as error:
        raise ConfigError(f"the TLS files of the RabbitMQ provider cannot be read: {error}") from error
    return context
