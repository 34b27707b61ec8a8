"""Noobly; on memory it is called with the role ``both``, for another process would not see its jobs."""

from __future__ import annotations

import asyncio
import sys

from _tally import CONCURRENCY, Tally, adding, ready, run

from noobly.working import Jobs, open_jobs


async def add(url: str, count: int, spacing: float) -> None:
    async with open_jobs(url) as jobs:
        await adding(lambda sent: jobs.enqueue("noop", sent), count, spacing)


async def worked(jobs: Jobs, count: int) -> None:
    tally = Tally(count)

    @jobs.task()
    async def noop(sent: float) -> None:
        tally.began(sent)

    await jobs.work(concurrency=CONCURRENCY)


async def work(url: str, count: int) -> None:
    async with open_jobs(url) as jobs:
        asyncio.get_running_loop().call_later(1, ready)
        await worked(jobs, count)


async def both(url: str, count: int, spacing: float) -> None:
    async with open_jobs(url) as jobs, asyncio.TaskGroup() as group:
        if spacing:
            group.create_task(worked(jobs, count))
            await asyncio.sleep(0.5)
        await adding(lambda sent: jobs.enqueue("noop", sent), count, spacing)
        if not spacing:
            await worked(jobs, count)


if __name__ == "__main__":
    role, url, count, *spacing = sys.argv[1:]
    if role == "work":
        run(work(url, int(count)))
    else:
        run((add if role == "add" else both)(url, int(count), float(spacing[0])))
