"""SAQ."""

from __future__ import annotations

import asyncio
import sys

from _tally import CONCURRENCY, Tally, adding, ready, run
from saq import Queue, Worker


async def add(url: str, count: int, spacing: float) -> None:
    queue = Queue.from_url(url)
    await queue.connect()
    await adding(lambda sent: queue.enqueue("noop", sent=sent), count, spacing)


async def work(url: str, count: int) -> None:
    tally = Tally(count)

    async def noop(_: object, *, sent: float) -> None:
        tally.began(sent)

    queue = Queue.from_url(url)
    await queue.connect()
    asyncio.get_running_loop().call_later(1, ready)
    await Worker(queue, functions=[("noop", noop)], concurrency=CONCURRENCY).start()


if __name__ == "__main__":
    role, url, count, *spacing = sys.argv[1:]
    run(add(url, int(count), float(spacing[0])) if role == "add" else work(url, int(count)))
