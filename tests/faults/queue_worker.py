"""One of several processes that work on a queue until they are killed; started by fault tests.

It writes the number of each message that it holds, and once more with a plus when its acknowledgement was taken.
"""

from __future__ import annotations

import asyncio
import sys

from noobly.queueing import Queues, open_queues

TASKS = 4
TOGETHER = 5
HOUR = 3600.0


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def work(queues: Queues) -> None:
    while True:
        found = await queues.receive("work", max=TOGETHER, wait=HOUR, lease=HOUR)
        for delivery in found:
            say(delivery.value)
        good = await queues.ack_many("work", [delivery.receipt for delivery in found])
        for delivery, acknowledged in zip(found, good, strict=True):
            if acknowledged:
                say(f"{delivery.value}+")


async def main(url: str) -> None:
    async with open_queues(url) as queues:
        say("ready")
        await asyncio.gather(*(work(queues) for _ in range(TASKS)))


asyncio.run(main(sys.argv[1]))
