"""A process that works on a queue of messages or jobs until it is killed, and writes a line for each one it handles."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from noobly.queueing import open_queues
from noobly.working import open_jobs


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def _messages(url: str, options: dict[str, Any], queue: str, lease: float, together: int) -> None:
    async with open_queues(url, **options) as queues:
        await queues.work(queue, lambda message: _say(message.value), concurrency=together, lease=lease)


async def _jobs(url: str, options: dict[str, Any], queue: str, lease: float, together: int) -> None:
    async with open_jobs(url, lease=lease, **options) as jobs:

        @jobs.task("say", queue=queue)
        async def say(number: int) -> None:
            _say(number)

        await jobs.work(concurrency=together)


if __name__ == "__main__":
    kind, url, options, queue, lease, together = sys.argv[1:]
    work = _messages if kind == "queue" else _jobs
    asyncio.run(work(url, json.loads(options), queue, float(lease), int(together)))
