"""One of several processes that all miss the same entry at once; started by the stampede test."""

from __future__ import annotations

import asyncio
import sys

from noobly.caching import Cache, open_cache
from noobly.testing import eventually

CALLERS = 250


async def wait_for_start(cache: Cache, workers: int) -> None:
    await cache.increment("ready")
    await eventually(lambda: everybody(cache, workers), timeout=30)


async def everybody(cache: Cache, workers: int) -> bool:
    return await cache.get("ready") == workers


async def main(url: str, namespace: str, workers: int) -> None:
    async with open_cache(url, namespace=namespace) as cache:

        async def factory() -> dict[str, int]:
            run = await cache.increment("runs")
            await asyncio.sleep(0.5)
            return {"run": run}

        await wait_for_start(cache, workers)
        answers = await asyncio.gather(*(cache.get_or_compute("shared", factory, ttl=60) for _ in range(CALLERS)))
        await cache.increment("answers", len(answers))
        if any(answer != {"run": 1} for answer in answers):
            sys.exit("a caller got another value")


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
