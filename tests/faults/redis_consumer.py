"""A process that works on the messages of a queue until it is killed: it prints each one's value, then acknowledges."""

from __future__ import annotations

import asyncio
import sys

from noobly.queueing import open_queues


async def main(url: str, namespace: str, together: int, lease: float) -> None:
    async with open_queues(url, namespace=namespace, durability="ignore") as queues:
        while True:
            for one in await queues.receive("q", max=together, wait=2, lease=lease):
                sys.stdout.write(f"{one.value}\n")
                sys.stdout.flush()
                await queues.ack("q", one.receipt)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
