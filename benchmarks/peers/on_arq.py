"""arq; ``ARQ_POLL`` is its pause between two looks at the queue, 0.5 s by default."""

from __future__ import annotations

import asyncio
import os
import sys

from _tally import CONCURRENCY, Tally, adding, ready, run
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func


async def add(url: str, count: int, spacing: float) -> None:
    pool = await create_pool(RedisSettings.from_dsn(url))
    await adding(lambda sent: pool.enqueue_job("noop", sent), count, spacing)


async def work(url: str, count: int) -> None:
    tally = Tally(count)

    async def noop(_: object, sent: float) -> None:
        tally.began(sent)

    worker = Worker(
        functions=[func(noop, name="noop")],
        redis_settings=RedisSettings.from_dsn(url),
        max_jobs=CONCURRENCY,
        poll_delay=float(os.environ.get("ARQ_POLL", "0.5")),
        handle_signals=False,
    )
    asyncio.get_running_loop().call_later(1, ready)
    await worker.async_run()


if __name__ == "__main__":
    role, url, count, *spacing = sys.argv[1:]
    run(add(url, int(count), float(spacing[0])) if role == "add" else work(url, int(count)))
