"""redis-py's cluster client, set up and read the suite's way; redis-py is loaded only where it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from noobly.clients.redis import RedisAddress, RedisOptions
from noobly.clients.redis_reply import RedisReplyError, Reply
from noobly.core.errors import ConfigError, Internal, NooblyError, Unavailable

if TYPE_CHECKING:
    from redis.asyncio import RedisCluster

CONNECTIONS_PER_NODE = 64
"""Commands in flight per node: redis-py takes a connection for each, and above its limit refuses to wait."""


def new_cluster(nodes: Sequence[RedisAddress], options: RedisOptions) -> RedisCluster:
    """Return an unconnected redis-py client that never retries and gives replies as the server sent them."""
    from redis.asyncio.cluster import ClusterNode, RedisCluster
    from redis.asyncio.connection import Connection
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.maint_notifications import MaintNotificationsConfig

    class TLSConnection(Connection):
        def _connection_arguments(self) -> Mapping[str, object]:
            return {**super()._connection_arguments(), "ssl": options.tls}

    cluster = RedisCluster(
        startup_nodes=[ClusterNode(node.host, node.port) for node in nodes],
        username=options.username,
        password=options.password() if options.password else None,
        client_name=options.client_name,
        socket_connect_timeout=options.connect_timeout,
        socket_timeout=None,
        max_connections=2 * CONNECTIONS_PER_NODE,
        protocol=3,
        retry=Retry(NoBackoff(), 0),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    if options.tls:
        cluster.connection_kwargs["connection_class"] = TLSConnection
        for node in cluster.startup_nodes:
            node.connection_class = TLSConnection
    # Replies must look as RedisConnection gives them; redis-py itself reads the shape of COMMAND only.
    for name in cluster.response_callbacks.keys() - {"COMMAND"}:
        del cluster.response_callbacks[name]
    return cluster


def translated(error: Exception) -> RedisReplyError | NooblyError:
    """Return what ``RedisConnection`` would have raised in place of redis-py's error."""
    from redis import exceptions

    if isinstance(error, NooblyError | RedisReplyError):
        return error
    if isinstance(error, exceptions.RedisClusterException):
        return _of_topology(error)
    if isinstance(error, exceptions.RedisError) and error.status_code:
        return RedisReplyError(error.status_code, str(error))
    if isinstance(error, exceptions.ResponseError):
        return RedisReplyError.parse(str(error))
    if isinstance(error, exceptions.RedisError | OSError) and not isinstance(error, exceptions.DataError):
        return Unavailable(f"the redis cluster failed ({error}); the command may or may not have been executed")
    return Internal(f"the redis cluster client failed: {error!r}")


def _of_topology(error: Exception) -> RedisReplyError | NooblyError:
    if isinstance(error.__cause__, Exception):
        return translated(error.__cause__)
    if "slots" in str(error) or "not covered" in str(error):
        return Unavailable(f"the redis cluster does not serve all slots: {error}")
    if "key" in str(error):
        return RedisReplyError("CROSSSLOT", str(error))
    return ConfigError(f"the redis cluster cannot be used: {error}")


def in_place(found: object) -> Reply | RedisReplyError:
    """Return one result of a pipeline, or its error reply; raise what is not an answer of the server."""
    if not isinstance(found, Exception):
        return cast("Reply", found)
    error = translated(found)
    if isinstance(error, RedisReplyError):
        return error
    raise error from found
