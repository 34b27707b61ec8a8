"""Receives one message of a queue, says so, and never answers; its test kills it."""

from __future__ import annotations

import asyncio
import sys

from noobly.queueing import open_queues


async def main(url: str) -> None:
    async with open_queues(url) as queues:
        (found,) = await queues.receive("q", wait=20, lease=600)
        sys.stdout.write(f"{found.value}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
