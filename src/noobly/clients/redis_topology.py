"""Redis behind Sentinel or as a cluster.

Sentinel only changes where the primary is, so it is a resolver of ``RedisConnection``. A cluster spreads the
keys; redis-py follows its slots and redirections, with its own retry switched off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, cast

from noobly.clients.redis import (
    RedisAddress,
    RedisConnection,
    RedisOptions,
    RedisScript,
    Resolver,
)
from noobly.clients.redis_cluster import CONNECTIONS_PER_NODE, in_place, new_cluster, translated
from noobly.clients.redis_reply import Arg, Command, RedisReplyError, Reply, classify
from noobly.clients.redis_script import run_script
from noobly.core.errors import Closed, ConfigError, NooblyError, Unavailable

if TYPE_CHECKING:
    from redis.asyncio import RedisCluster

_SENTINEL = RedisOptions(connect_timeout=1.0, stall_timeout=1.0)


def sentinel_resolver(sentinels: Sequence[RedisAddress], service: str, options: RedisOptions = _SENTINEL) -> Resolver:
    """Return a resolver that asks the sentinels in order, the one that answered last first.

    The rules are those of https://redis.io/docs/latest/develop/reference/sentinel-clients/.

    Args:
        sentinels: Where they listen.
        service: The name they know the primary by.
        options: How to speak to them; keep its times well below those of the primary's connection.
    """
    known = list(sentinels)

    async def resolve() -> RedisAddress:
        failures: list[NooblyError] = []
        for sentinel in tuple(known):
            try:
                found = await _primary(sentinel, service, options)
            except NooblyError as error:
                failures.append(error)
                continue
            if found is not None:
                known.remove(sentinel)
                known.insert(0, sentinel)
                return found
        cause = failures[-1] if failures else None
        raise Unavailable(f"no sentinel knows the primary of {service!r} (asked {len(known)})") from cause

    return resolve


async def _primary(sentinel: RedisAddress, service: str, options: RedisOptions) -> RedisAddress | None:
    async def here() -> RedisAddress:
        return sentinel

    connection = RedisConnection(here, options)
    try:
        await connection.start()
        reply = await connection.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
    except RedisReplyError as error:
        raise Unavailable(f"the sentinel at {sentinel} answered: {error}") from error
    finally:
        await connection.close()
    if not isinstance(reply, list):
        return None
    host, port = (part.decode() for part in reply if isinstance(part, bytes))
    return RedisAddress(host, int(port))


class ClusterClient:
    """A ``RedisClient`` over a cluster; all keys of one command must share a slot, else ``CROSSSLOT``.

    Commands without a key go to one node or to all, and are answered, as redis-py thinks best.

    Args:
        nodes: Some of its nodes; the others are found.
        options: How to speak to them. A cluster has one database; dead nodes are left to the deadline layer.
    """

    def __init__(self, nodes: Sequence[RedisAddress], options: RedisOptions) -> None:
        self._nodes, self._options = nodes, options
        self._cluster: RedisCluster | None = None
        self._turn, self._stale = asyncio.Semaphore(CONNECTIONS_PER_NODE), False

    async def start(self) -> None:
        """Find the nodes and log in.

        Raises:
            Unavailable: No node can be reached, or some slots are served by none.
        """
        self._cluster = new_cluster(self._nodes, self._options)
        try:
            await self._cluster.initialize()
        except Exception as error:
            await self.close()
            raise classify(translated(error)) or ConfigError(f"redis refused the session: {error}") from error

    async def close(self) -> None:
        """Close all connections; later calls raise ``Closed``."""
        cluster, self._cluster = self._cluster, None
        if cluster is None:
            return
        await cluster.aclose()
        # After a failure aclose() holds the client for closed and leaves its connections open.
        await cluster.nodes_manager.aclose()
        await cluster.nodes_manager.aclose("startup_nodes")

    async def execute(self, *args: Arg) -> Reply:
        """Return the reply to one command; raises as ``RedisConnection.execute``."""
        cluster = self._open()
        async with self._turn:
            try:
                return cast("Reply", await cluster.execute_command(*args))
            except Exception as error:
                raise translated(error) from error

    def submit(self, command: Command) -> Awaitable[Reply]:
        """Return the reply to one command; raises as ``execute``."""
        return self.execute(*command)

    @property
    def primaries(self) -> int:
        """How many primaries there are; 0 while it is not open."""
        return len(self._cluster.get_primaries()) if self._cluster is not None else 0

    async def execute_at(self, node: int, *args: Arg) -> Reply:
        """Return the reply of one primary, counted from 0 in the order of their names, to a command without a key."""
        cluster = self._open()
        primaries = sorted(cluster.get_primaries(), key=lambda primary: primary.name)
        if node >= len(primaries):
            raise Unavailable(f"the cluster has {len(primaries)} primaries by now; begin again")
        async with self._turn:
            try:
                found = await cluster.execute_command(*args, target_nodes=primaries[node])
            except Exception as error:
                raise translated(error) from error
        if not isinstance(found, tuple):
            return cast("Reply", found)
        # redis-py gathers the cursors that SCAN gives by node; here there is one node.
        cursors, keys = found
        return [str(next(iter(cursors.values()))).encode(), list(keys)]

    async def execute_many(self, commands: Sequence[Command]) -> list[Reply | RedisReplyError]:
        """Return the replies to commands sent together to each node, an error in its place."""
        cluster = self._open()
        async with self._turn:
            try:
                if self._stale:
                    await cluster.nodes_manager.initialize()
                    self._stale = False
                pipeline = cluster.pipeline()
                for command in commands:
                    pipeline.execute_command(*command)
                return [in_place(found) for found in await pipeline.execute(raise_on_error=False)]
            except Exception as error:
                # Unlike single commands, redis-py's pipelines do not seek the nodes again after a failure.
                self._stale = True
                raise translated(error) from error

    async def script(self, script: RedisScript, keys: Sequence[Arg], args: Sequence[Arg]) -> Reply:
        """Return what a Lua script gives; raises as ``execute``."""
        return await run_script(self.execute, script, keys, args)

    def _open(self) -> RedisCluster:
        if self._cluster is None:
            raise Closed("the redis cluster connection is not open")
        return self._cluster
