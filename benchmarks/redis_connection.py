"""GET of 100 bytes: our connection against redis-py with its pool and with one connection.

A private redis-server shares one core with the client, because a wake-up across cores costs more than a command.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import redis.asyncio

from benchmarks._rounds import Faster, Session, Variant, Work, run, sequential, together
from noobly.clients.redis import RedisAddress, RedisConnection, RedisOptions, Reply
from noobly.testing import private

KEYS = ["noobly-bench:connection"]
TASKS = 100


async def redis_connection(session: Session) -> None:
    async with private("redis") as server, AsyncExitStack() as stack:

        async def resolve() -> RedisAddress:
            return RedisAddress(server.host, server.port)

        async def get(key: str) -> Reply:
            return await ours.execute("GET", key)

        ours = RedisConnection(resolve, RedisOptions())
        stack.push_async_callback(ours.close)
        await ours.start()
        pool = redis.asyncio.Redis.from_url(server.url)
        single = redis.asyncio.Redis.from_url(server.url, single_connection_client=True)
        stack.push_async_callback(pool.aclose)
        stack.push_async_callback(single.aclose)
        await ours.execute("SET", *KEYS, "x" * 100)
        calls = {"noobly": get, "redis-py pool": pool.get, "redis-py single": single.get}
        alone: dict[str, Work] = {name: sequential(call, KEYS) for name, call in calls.items()}
        many: dict[str, Work] = {name: together(call, KEYS, TASKS) for name, call in calls.items()}
        for title, works, least in (("one at a time", alone, 1.8), (f"{TASKS} tasks", many, 12.0)):
            await session.compare(
                f"GET, {title}",
                [Variant(name, work) for name, work in works.items()],
                base="redis-py pool",
                goals=[Faster("noobly", "redis-py pool", least)],
            )


if __name__ == "__main__":
    run(redis_connection, packages=("redis", "hiredis", "uvloop"))
