"""The options of every Redis provider, and the client they stand for."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from itertools import cycle
from typing import Annotated, ClassVar

import msgspec

from noobly.clients.redis import RedisAddress, RedisClient, RedisConnection, RedisOptions
from noobly.clients.redis_topology import ClusterClient, sentinel_resolver
from noobly.core.config import Config, Secret
from noobly.core.errors import ConfigError
from noobly.core.scope import Environment

_SCHEMES = re.compile(r"(redis|valkey)(s?)(?:\+(cluster|sentinel))?")


class RedisConfig(Config, frozen=True, kw_only=True):
    """The options of the Redis provider.

    Args:
        scheme: ``redis`` or ``valkey``, with a final ``s`` for TLS, and ``+cluster`` or ``+sentinel``.
        hosts: ``host:port``, several with commas between for a cluster's nodes or sentinels.
        path: The database's number; for Sentinel, the primary's name and the number: ``mymaster/0``.
        namespace: What all keys begin with; ``clear`` touches nothing else.
        username: The user, for servers with access lists.
        password: The password, by reference.
        sentinel_password: The sentinels' own password, by reference.
        ca: The file with the certificates to trust, instead of the system's.
        cert: The file with this client's certificate.
        cert_key: The file with its key.
        connect_timeout: Seconds to connect and log in.
        stall_timeout: Seconds without any answer after which a connection is given up.
        max_in_flight: Commands under way at once on the connection.
    """

    url_parts: ClassVar[Mapping[str, str]] = {
        "scheme": "scheme",
        "netloc": "hosts",
        "path": "path",
        "user": "username",
    }

    scheme: str = "redis"
    hosts: str = "localhost:6379"
    path: str = ""
    namespace: str = "noobly"
    username: str | None = None
    password: Secret | None = None
    sentinel_password: Secret | None = None
    ca: str | None = None
    cert: str | None = None
    cert_key: str | None = None
    connect_timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    stall_timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    max_in_flight: Annotated[int, msgspec.Meta(gt=0)] = 10_000


def redis_client(config: RedisConfig, environment: Environment) -> RedisClient:
    """Return the client for a configuration, not yet started.

    Raises:
        ConfigError: The parts of the URL do not fit together.
    """
    match = _SCHEMES.fullmatch(config.scheme)
    if match is None:
        raise ConfigError(f"{config.scheme} is not a Redis scheme")
    addresses = [_address(host, 26379 if match[3] == "sentinel" else 6379) for host in config.hosts.split(",")]
    tls = _tls(config) if match[2] else None
    if match[3] == "cluster":
        return ClusterClient(addresses, _options(config, config.path, tls))
    primary, _, database = config.path.rpartition("/")
    options = _options(config, database, tls)
    if match[3] == "sentinel":
        return _behind_sentinel(config, addresses, primary, options, environment)
    if len(addresses) > 1 or primary:
        raise ConfigError("a Redis URL is scheme://host:port/database; several hosts need +cluster or +sentinel")

    async def resolve() -> RedisAddress:
        return addresses[0]

    return RedisConnection(resolve, options, chance=environment.chance)


def redis_listener(config: RedisConfig, environment: Environment) -> RedisConnection:
    """Return a connection to one node of a cluster, to the next one at each attempt, not yet started.

    What is published at any node of a cluster is pushed by all.

    Raises:
        ConfigError: The parts of the URL do not fit together.
    """
    nodes = cycle([_address(host, 6379) for host in config.hosts.split(",")])
    match = _SCHEMES.fullmatch(config.scheme)
    tls = _tls(config) if match is not None and match[2] else None

    async def resolve() -> RedisAddress:
        return next(nodes)

    return RedisConnection(resolve, _options(config, "", tls), chance=environment.chance)


def _behind_sentinel(
    config: RedisConfig,
    sentinels: list[RedisAddress],
    primary: str,
    options: RedisOptions,
    environment: Environment,
) -> RedisClient:
    if not primary:
        raise ConfigError("a sentinel URL ends with the primary's name and the database: /mymaster/0")
    secret = config.sentinel_password
    asking = RedisOptions(
        password=secret.reveal if secret else None, tls=options.tls, connect_timeout=1.0, stall_timeout=1.0
    )
    return RedisConnection(sentinel_resolver(sentinels, primary, asking), options, chance=environment.chance)


def _address(host: str, port: int) -> RedisAddress:
    name, _, given = host.rpartition(":") if re.search(r":\d+$", host) else (host, "", "")
    if not name:
        raise ConfigError(f"{host!r} is not host:port")
    return RedisAddress(name.strip("[]"), int(given) if given else port)


def _options(config: RedisConfig, database: str, tls: ssl.SSLContext | None) -> RedisOptions:
    if database and not database.isdigit():
        raise ConfigError(f"the path of a Redis URL is the database's number, not {database!r}")
    return RedisOptions(
        username=config.username,
        password=config.password.reveal if config.password else None,
        database=int(database or 0),
        tls=tls,
        client_name="noobly",
        connect_timeout=config.connect_timeout,
        stall_timeout=config.stall_timeout,
        max_in_flight=config.max_in_flight,
    )


def _tls(config: RedisConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca)
        if config.cert is not None:
            context.load_cert_chain(config.cert, config.cert_key)
    except OSError as error:
        raise ConfigError(f"the TLS files of the Redis provider cannot be read: {error}") from error
    return context
