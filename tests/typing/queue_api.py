"""What mypy must know of queues; checked by ``scripts/check``, never run."""

from __future__ import annotations

from typing import assert_type

import msgspec

from noobly.core.remote import Remote, remote
from noobly.core.scope import Scope
from noobly.queueing import (
    Consumption,
    DeadLetter,
    Delivery,
    Message,
    Queues,
    QueueStats,
    Receipt,
    TypedQueue,
    open_queues,
)
from noobly.queueing.messages import Value


class Order(msgspec.Struct):
    id: int


async def sends(queues: Queues) -> None:
    assert_type(await queues.send("q", {"any": "thing"}, priority=1), Receipt)
    assert_type(await queues.enqueue("q", Order(1), delay=5), str)
    assert_type(await queues.stats("q"), QueueStats)
    assert_type(await queues.dead_letters("q"), list[DeadLetter])
    await queues.enqueue("q", 1, priorty=5)  # type: ignore[call-arg]


async def receives(queues: Queues) -> None:
    assert_type(await queues.receive("q", wait=5), list[Delivery[Value]])
    assert_type(await queues.dequeue("q", type=Order), Order | None)
    assert_type(await queues.dequeue("q", 0, type=Order), Order | int)


async def consumes(queues: Queues) -> None:
    async with queues.consume("q", type=Order) as consumption:
        assert_type(consumption, Consumption[Order])
        async for message in consumption:
            assert_type(message, Message[Order])
            assert_type(message.delivery, Delivery[Order])
            async with message as order:
                assert_type(order, Order)
    assert_type(queues.consume("q"), Consumption[Value])


async def types(queues: Queues) -> None:
    orders = queues.typed("orders", Order)
    assert_type(orders, TypedQueue[Order])
    assert_type(await orders.receive(), list[Delivery[Order]])
    assert_type(orders.consume(concurrency=2), Consumption[Order])
    await orders.send(Order(1), priority=3)
    await orders.send({"id": 1})  # type: ignore[arg-type]


async def handles(queues: Queues) -> None:
    async def ship(message: Message[Order]) -> None:
        assert_type(message.value, Order)

    def pack(message: Message[Order]) -> None: ...

    async def cook(message: Message[str]) -> None: ...

    await queues.work("orders", ship, type=Order)
    await queues.work("orders", pack, type=Order)
    await queues.typed("orders", Order).work(ship)
    await queues.work("orders", cook, type=Order)  # type: ignore[arg-type]


async def opens() -> None:
    async with open_queues("http://localhost:11000") as queues:
        assert_type(queues, Queues)


def remotes(calls: Remote, scope: Scope, queues: Queues) -> None:
    assert_type(remote(Queues)(calls, scope, queues.options), Queues)
