"""Jobs in a file: a worker beside the program, progress, a retry, a job that fails.

Prints:

    ada-400.jpg
    {'percent': 100}
    attempt 1 / ConnectionError: the disk is far away / attempt 2
    failed: ValueError: no such photo
"""

import asyncio

import msgspec

from noobly import Tasks, open_jobs
from noobly.working import JobContext, JobFailed

tasks = Tasks()


class Photo(msgspec.Struct):
    name: str
    width: int = 800


@tasks.task(retries=3, backoff=0.01, timeout=60, no_retry_on=[ValueError])
async def resize(photo: Photo, job: JobContext) -> str:
    await job.log(f"attempt {job.attempt}")
    if not photo.name:
        raise ValueError("no such photo")
    if job.attempt == 1:
        raise ConnectionError("the disk is far away")  # tried again after a pause
    await job.progress({"percent": 100})
    return f"{photo.name}-{photo.width}.jpg"


async def main() -> None:
    async with open_jobs("sqlite:jobs.db") as jobs:
        jobs.tasks.include(tasks)  # in a process of its own: noobly worker jobs_basics:tasks --url sqlite:jobs.db
        async with jobs.working(concurrency=4):
            handle = await jobs.enqueue(resize, Photo("ada", width=400))
            print(await handle.result(10))
            print(await handle.progress())
            first, trace, second = await handle.logs()  # what the handler says, and the traceback of its failure
            print(first, "/", trace.splitlines()[-1], "/", second)
            try:
                await (await jobs.enqueue(resize, Photo(""))).result(10)
            except JobFailed as failed:
                print("failed:", failed.job.error)


if __name__ == "__main__":  # `noobly worker` imports this file, and is to find the tasks only
    asyncio.run(main())
