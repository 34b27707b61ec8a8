"""Measuring queue providers side by side, in rounds that take turns so that all see the same machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from statistics import median, quantiles
from time import perf_counter

import msgspec

from noobly.core.clock import fresh_id
from noobly.core.errors import InvalidArgument
from noobly.queueing.messages import Outbound
from noobly.queueing.opening import open_queues
from noobly.queueing.queues import Queues

STEPS = 5
"""Steps of one round of one provider."""

_BATCH = 100
_PINGS = 200
_BODY = {"order": 123_456, "customer": "Ada Lovelace", "lines": [{"sku": "A-1", "count": 2}]}


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one provider, the median of all rounds.

    Args:
        provider: Its URL's scheme.
        send: Messages sent per second, one at a time by many tasks.
        receive: Messages received and acknowledged per second, one at a time by many tasks.
        send_batch: Messages sent per second, 100 at a time.
        receive_batch: Messages received and acknowledged per second, 100 at a time.
        p50_ms: Milliseconds from sending to a receiver that waits, half of the messages.
        p99_ms: The same, 99 % of the messages.
    """

    provider: str
    send: float
    receive: float
    send_batch: float
    receive_batch: float
    p50_ms: float
    p99_ms: float


async def measure(
    urls: Sequence[str], *, messages: int, rounds: int, concurrency: int, advance: Callable[[], None]
) -> list[Figures]:
    """Measure providers in turns; each gets queues of its own, which are emptied at the end.

    Args:
        urls: What to measure.
        messages: Messages in each round, 100 to 1,000,000.
        rounds: How many.
        concurrency: Tasks that send and receive at once.
        advance: Called after each step.
    """
    if not 100 <= messages <= 1_000_000 or not 1 <= rounds <= 100 or not 1 <= concurrency <= 1000:
        raise InvalidArgument("bench takes 100 to 1,000,000 messages, 1 to 100 rounds and 1 to 1000 tasks")
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_queues(url)) for url in urls]
        found: list[list[Figures]] = [[] for _ in opened]
        for _ in range(rounds):
            for queues, figures in zip(opened, found, strict=True):
                figures.append(await _round(queues, messages, concurrency, advance))
    return [_middle(figures) for figures in found]


async def _round(queues: Queues, messages: int, concurrency: int, advance: Callable[[], None]) -> Figures:
    queue = f"noobly-bench-{fresh_id()[:12]}"
    rates: list[float] = []
    try:
        for step in (_send, _receive, _send_batch, _receive_batch):
            began = perf_counter()
            await step(queues, queue, messages, concurrency)
            rates.append(messages / (perf_counter() - began))
            advance()
        cuts = await _latencies(queues, queue)
        advance()
    finally:
        await queues.purge(queue)
    return Figures(
        provider=queues.scope.provider,
        send=rates[0],
        receive=rates[1],
        send_batch=rates[2],
        receive_batch=rates[3],
        p50_ms=1000 * cuts[49],
        p99_ms=1000 * cuts[98],
    )


async def _send(queues: Queues, queue: str, messages: int, concurrency: int) -> None:
    async def work(count: int) -> None:
        for _ in range(count):
            await queues.send(queue, _BODY)

    await _shared(work, messages, concurrency)


async def _receive(queues: Queues, queue: str, messages: int, concurrency: int) -> None:
    async def work(count: int) -> None:
        for _ in range(count):
            (delivery,) = await queues.receive(queue, wait=10)
            await queues.ack(queue, delivery.receipt)

    await _shared(work, messages, concurrency)


async def _send_batch(queues: Queues, queue: str, messages: int, _: int) -> None:
    for start in range(0, messages, _BATCH):
        await queues.send_many(queue, [Outbound(message=_BODY)] * min(_BATCH, messages - start))


async def _receive_batch(queues: Queues, queue: str, messages: int, _: int) -> None:
    while messages > 0:
        found = await queues.receive(queue, max=min(_BATCH, messages), wait=10)
        await queues.ack_many(queue, [one.receipt for one in found])
        messages -= len(found)


async def _shared(work: Callable[[int], Awaitable[None]], messages: int, concurrency: int) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            count = messages // concurrency + (number < messages % concurrency)
            group.create_task(_awaited(work(count)))


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _latencies(queues: Queues, queue: str) -> list[float]:
    """Return the percentiles of the time from sending to a receiver that waits, in seconds."""
    found: list[float] = []
    for _ in range(_PINGS):
        waiting = asyncio.ensure_future(queues.receive(queue, wait=10))
        await asyncio.sleep(0.002)  # So that the receiver is idle.
        began = perf_counter()
        await queues.send(queue, _BODY)
        (delivery,) = await waiting
        found.append(perf_counter() - began)
        await queues.ack(queue, delivery.receipt)
    return quantiles(found, n=100)


def _middle(figures: Sequence[Figures]) -> Figures:
    def middle(name: str) -> float:
        return float(median(getattr(one, name) for one in figures))

    return Figures(
        provider=figures[0].provider,
        send=round(middle("send")),
        receive=round(middle("receive")),
        send_batch=round(middle("send_batch")),
        receive_batch=round(middle("receive_batch")),
        p50_ms=round(middle("p50_ms"), 3),
        p99_ms=round(middle("p99_ms"), 3),
    )
