"""Waiting for the replicas of a Redis server."""

from __future__ import annotations

from noobly.clients.redis import RedisClient
from noobly.core.errors import Unavailable
from noobly.queueing.providers._redis_records import whole

_PATIENCE = 1000
"""Milliseconds that replicas are given; the connection's own patience is longer."""


async def replicated(client: RedisClient, count: int, queue: str) -> None:
    """Wait until replicas have all that was written on the connection; meanwhile it does nothing else.

    Args:
        client: Connected to one server.
        count: How many replicas.
        queue: The queue that was sent to.

    Raises:
        Unavailable: Fewer have it within a second. It is stored all the same, but may not outlive a failover.
    """
    reached = whole(await client.execute("WAIT", count, _PATIENCE))
    if reached < count:
        raise Unavailable(
            f"messages for queue {queue!r} are on {reached} replicas after {_PATIENCE} ms, not on {count}; "
            "they are stored, and sending them again may double them"
        )
