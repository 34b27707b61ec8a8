"""A queue with a type, a handler that fails once, and what becomes of a message that nobody can use.

Prints:

    packed 1
    packed 2 in delivery 2
    dead: {'order': 'none'}
"""

import asyncio

import msgspec

from noobly import open_queues
from noobly.queueing import Message


class Order(msgspec.Struct):
    id: int


async def main() -> None:
    async with open_queues("memory://", backoff=0.01) as queues:
        orders = queues.typed("orders", Order)
        packed = asyncio.Queue[str]()

        async def pack(message: Message[Order]) -> None:
            order = message.value
            if order.id == 2 and message.delivery.deliveries == 1:
                raise RuntimeError("out of boxes")  # it is given back, and comes again
            again = "" if message.delivery.deliveries == 1 else f" in delivery {message.delivery.deliveries}"
            await packed.put(f"packed {order.id}{again}")

        working = asyncio.create_task(orders.work(pack, concurrency=10))
        await orders.send(Order(1))
        print(await packed.get())
        await queues.send("orders", {"order": "none"})
        await orders.send(Order(2))
        print(await packed.get())
        working.cancel()  # receives nothing more, and lets handlers end
        await asyncio.wait([working])
        for letter in await queues.dead_letters("orders"):
            print("dead:", letter.value)


asyncio.run(main())
