"""A batch: many jobs, and one that runs when all of them have ended.

Prints:

    fetched 4 of 5 pages: 120 rows
"""

import asyncio

from noobly import open_jobs
from noobly.working import JobContext, State


async def main() -> None:
    async with open_jobs("memory://") as jobs:

        @jobs.task(rate_limit="1000/s")  # over all workers together, in a queue of its own
        async def fetch(page: int) -> int:
            if page == 3:
                raise LookupError("there is no page 3")
            return page * 10

        @jobs.task()
        async def report(_: None, job: JobContext) -> str:
            pages = await jobs.handle(job.id).children()
            good = [page.result for page in pages if page.state is State.SUCCEEDED]
            return f"fetched {len(good)} of {len(pages)} pages: {sum(good)} rows"

        async with jobs.working():
            handle = await jobs.batch([jobs.spec(fetch, page) for page in range(1, 6)], then=report)
            print(await handle.result(10))


asyncio.run(main())
