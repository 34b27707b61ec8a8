"""The package bullmq as it is."""

from __future__ import annotations

import asyncio
import sys

from _tally import CONCURRENCY, Tally, adding, ready, run
from bullmq import Queue, Worker


async def add(url: str, count: int, spacing: float) -> None:
    queue = Queue("bench", {"connection": url})
    await adding(lambda sent: queue.add("noop", sent), count, spacing)


async def work(url: str, count: int) -> None:
    tally = Tally(count)

    async def noop(job: object, _: str) -> None:
        tally.began(job.data)

    worker = Worker("bench", noop, {"connection": url, "concurrency": CONCURRENCY})
    asyncio.get_running_loop().call_later(1, ready)
    await asyncio.Event().wait()
    await worker.close()


if __name__ == "__main__":
    role, url, count, *spacing = sys.argv[1:]
    run(add(url, int(count), float(spacing[0])) if role == "add" else work(url, int(count)))
