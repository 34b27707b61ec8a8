"""taskiq with the acknowledged broker of taskiq-redis, on a stream, and its results in Redis."""

from __future__ import annotations

import asyncio
import sys

from _tally import CONCURRENCY, Tally, adding, ready, run
from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker


def broker_at(url: str) -> RedisStreamBroker:
    return RedisStreamBroker(url).with_result_backend(RedisAsyncResultBackend(url))


async def add(url: str, count: int, spacing: float) -> None:
    broker = broker_at(url)
    noop = broker.register_task(lambda sent: None, task_name="noop")
    await broker.startup()
    await adding(noop.kiq, count, spacing)


async def work(url: str, count: int) -> None:
    tally, broker = Tally(count), broker_at(url)

    async def noop(sent: float) -> None:
        tally.began(sent)

    broker.register_task(noop, task_name="noop")
    broker.is_worker_process = True
    asyncio.get_running_loop().call_later(1, ready)
    await run_receiver_task(broker, run_startup=True, max_async_tasks=CONCURRENCY)


if __name__ == "__main__":
    role, url, count, *spacing = sys.argv[1:]
    run(add(url, int(count), float(spacing[0])) if role == "add" else work(url, int(count)))
