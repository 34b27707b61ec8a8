"""Scenarios of queues."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from noobly.core.capability import names
from noobly.core.clock import fresh_id
from noobly.core.errors import Conflict, NooblyError
from noobly.queueing import Can, Message, Outbound, Queues, open_queues
from noobly.queueing.driver import Posted
from noobly.queueing.handling import Handler
from noobly.testing.soak.places import (
    TOGETHER,
    Finding,
    Place,
    Scenario,
    Sizes,
    Traffic,
    fresh_name,
    killed_after,
    until,
    until_so,
)

_BATCH = 500


def _opened(place: Place, **options: object) -> AbstractAsyncContextManager[Queues]:
    chosen: dict[str, Any] = {**place.options, **options}
    return open_queues(place.url, **chosen)


@asynccontextmanager
async def _working(
    queues: Queues, queue: str, handler: Handler[object], *, lease: float, concurrency: int = TOGETHER
) -> AsyncIterator[None]:
    """Handle messages beside the body."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(queues.work(queue, handler, concurrency=concurrency, lease=lease, grace=1))
        try:
            yield
        finally:
            working.cancel()


async def _fill(queues: Queues, queue: str, count: int) -> None:
    for start in range(0, count, _BATCH):
        await queues.send_many(queue, [Outbound(message=n) for n in range(start, min(count, start + _BATCH))])


async def killed(place: Place, sizes: Sizes) -> Finding:
    """Kill two consumers with SIGKILL amid many messages."""
    if not place.shared:
        return Finding(skipped="its messages live in one process")
    queue, count = fresh_name(), min(sizes.messages, place.most)
    seen: Counter[int] = Counter()
    async with _opened(place) as queues:
        await _fill(queues, queue, count)
        for share in (count // 4, count // 4):
            seen.update(int(line) for line in await killed_after(place, queue, "queue", share))
        began = time.monotonic()

        async def handle(message: Message[object]) -> None:
            seen[int(str(message.value))] += 1

        async with _working(queues, queue, handle, lease=place.lease):
            await until(lambda: len(seen) >= count)
            took = time.monotonic() - began
            await until_so(lambda: _empty(queues, queue))
        await queues.purge(queue)
    twice, bound = sum(seen.values()) - len(seen), 2 * TOGETHER
    lost = count - len(seen)
    return Finding(
        good=not lost and twice <= bound,
        figures=f"{count} messages, 2 kills: {lost} lost, {twice} twice (at most {bound}); the rest took {took:.1f} s",
    )


async def _empty(queues: Queues, queue: str) -> bool:
    stats = await queues.stats(queue)
    return stats.ready + stats.delayed + stats.in_flight == 0


async def slow(place: Place, _: Sizes) -> Finding:
    """Handle a message for three leases, with a second consumer beside."""
    return await _for_three_leases(place, lambda runs: _sleeper(runs, 3 * place.lease))


async def blocking(place: Place, _: Sizes) -> Finding:
    """Handle a message for three leases in a plain function that never yields."""
    return await _for_three_leases(place, lambda runs: _blocker(runs, 3 * place.lease))


def _sleeper(runs: list[float], length: float) -> Handler[object]:
    async def handle(_: Message[object]) -> None:
        runs.append(time.monotonic())
        await asyncio.sleep(length)

    return handle


def _blocker(runs: list[float], length: float) -> Handler[object]:
    def handle(_: Message[object]) -> None:
        runs.append(time.monotonic())
        time.sleep(length)

    return handle


async def _for_three_leases(place: Place, handler: Callable[[list[float]], Handler[object]]) -> Finding:
    queue, runs = fresh_name(), list[float]()
    async with _opened(place) as here, _opened(place) as other:
        there = other if place.shared else here
        await here.send(queue, "long")
        handle = handler(runs)
        async with (
            _working(here, queue, handle, lease=place.lease, concurrency=2),
            _working(there, queue, handle, lease=place.lease, concurrency=2),
        ):
            await asyncio.sleep(4.5 * place.lease)
        left = not await _empty(here, queue)
        await here.purge(queue)
    return Finding(
        good=len(runs) == 1 and not left,
        figures=f"a handler of {3 * place.lease:g} s under leases of {place.lease:g} s ran {len(runs)} times",
    )


async def poison(place: Place, _: Sizes) -> Finding:
    """Put bytes that are no message between good ones."""
    queue, seen = fresh_name(), list[object]()
    async with _opened(place) as queues:
        await queues.send(queue, 1)
        await queues._driver.send(queue, [Posted(id=fresh_id(), body=b"\xff\xfe{ no json")])
        await queues.send(queue, 2)
        async with _working(queues, queue, lambda message: seen.append(message.value), lease=5):
            await until(lambda: len(seen) == 2)
            await until_so(lambda: _has_dead(queues, queue, 1))
            await queues.send(queue, 3)
            await until(lambda: 3 in seen)
        dead = (await queues.stats(queue)).dead
        await queues.purge(queue)
    return Finding(good=dead == 1 and sorted(map(str, seen)) == ["1", "2", "3"], figures=f"{dead} dead, 3 of 3 handled")


async def _has_dead(queues: Queues, queue: str, count: int) -> bool:
    return (await queues.stats(queue)).dead >= count


async def stale(place: Place, _: Sizes) -> Finding:
    """Acknowledge with a receipt whose lease has ended."""
    queue, refused = fresh_name(), 0
    async with _opened(place) as queues:
        await queues.send(queue, "once more")
        (first,) = await queues.receive(queue, wait=10, lease=place.lease)
        (second,) = await queues.receive(queue, wait=10 * place.lease, lease=10 * place.lease)
        for answer in (queues.ack, queues.nack, queues.extend, queues.reject):
            try:
                await answer(queue, first.receipt)
            except Conflict:
                refused += 1
        await queues.ack(queue, second.receipt)
        left = not await _empty(queues, queue)
    return Finding(good=refused == 4 and not left, figures=f"{refused} of 4 answers with the old receipt refused")


def _missing(queues: Queues, *needed: Can) -> Finding | None:
    absent = [name for name in names(needed) if name not in queues.capabilities]
    return Finding(skipped=f"not claimed: {', '.join(absent)}") if absent else None


async def ordered(place: Place, sizes: Sizes) -> Finding:
    """Give a fifth of the messages of groups back once, while 8 consumers work on them."""
    queue, groups = fresh_name(), 10
    each = min(sizes.messages, 2000, place.most) // groups
    done: dict[str, list[int]] = defaultdict(list)
    failed: set[str] = set()
    async with _opened(place, backoff=0.01, backoff_cap=0.05) as queues:
        if missing := _missing(queues, Can.ORDER):
            return missing

        async def handle(message: Message[object]) -> None:
            group, number = message.delivery.group or "", int(str(message.value))
            if number % 5 == 0 and message.id not in failed:
                failed.add(message.id)
                raise ValueError(number)
            done[group].append(number)

        for number in range(each):
            await queues.send_many(queue, [Outbound(message=number, group=f"g{group}") for group in range(groups)])
        began = time.monotonic()
        async with asyncio.TaskGroup() as consumers:
            eight = [consumers.create_task(queues.work(queue, handle, concurrency=2, grace=1)) for _ in range(8)]
            await until(lambda: sum(map(len, done.values())) >= groups * each)
            for task in eight:
                task.cancel()
        took = time.monotonic() - began
        await queues.purge(queue)
    good = all(numbers == list(range(each)) for numbers in done.values()) and len(done) == groups
    return Finding(good=good, figures=f"{groups} groups of {each}, {len(failed)} given back, in {took:.1f} s")


async def timed(place: Place, _: Sizes) -> Finding:
    """Delay an urgent message among others."""
    queue, delay = fresh_name(), max(1.0, place.lease / 2)
    async with _opened(place) as queues:
        if missing := _missing(queues, Can.DELAY, Can.PRIORITY):
            return missing
        await queues.send(queue, "urgent, later", priority=9, delay=delay)
        sent = time.monotonic()  # Afterwards: the store counts from when the message came, which may take a moment.
        for number in range(3):
            await queues.send(queue, number, priority=number)
        early = [one.value for one in await queues.receive(queue, max=10)]
        await queues.send(queue, "low", priority=1)
        await asyncio.sleep(max(0.0, sent + delay + 0.05 - time.monotonic()))
        late = [one.value for one in await queues.receive(queue, max=10, wait=5)]
        await queues.purge(queue)
    return Finding(good=early == [2, 1, 0] and late == ["urgent, later", "low"], figures=f"{early}, then {late}")


async def disturbed(place: Place, sizes: Sizes) -> Finding:
    """Restart the server amid traffic, and freeze it."""
    queue = fresh_name()
    if place.server is None:
        return Finding(skipped="it has no server of its own")
    async with _opened(place, timeout=1.0, breaker_pause=0.1) as queues:
        traffic = Traffic(lambda number: queues.send(queue, number))

        async def handle(message: Message[object]) -> None:
            traffic.seen[int(str(message.value))] += 1

        async with traffic.flowing(), _working(queues, queue, handle, lease=place.lease):
            figures = await traffic.through(place.server, sizes.pause)
        with suppress(NooblyError):
            await queues.purge(queue)
    return Finding(figures=figures)


async def idle(place: Place, sizes: Sizes) -> Finding:
    """Send to a consumer that has been idle for long."""
    queue, began = fresh_name(), dict[int, float]()
    async with _opened(place) as queues:

        async def handle(message: Message[object]) -> None:
            began[int(str(message.value))] = time.monotonic()

        await queues.send(queue, -1)
        async with _working(queues, queue, handle, lease=30):
            await until(lambda: -1 in began)
            await asyncio.sleep(sizes.idle)
            sent = time.monotonic()
            await queues.send(queue, 0)
            await until(lambda: 0 in began)
    late = began[0] - sent
    return Finding(
        good=late < sizes.prompt, figures=f"begun after {1e3 * late:.1f} ms, idle for {sizes.idle:g} s before"
    )


QUEUE_SCENARIOS = (
    Scenario("1 kill -9 of consumers loses nothing", killed, alone=True),
    Scenario("2 a handler longer than its lease runs once", slow),
    Scenario("3 a blocking handler runs once", blocking),
    Scenario("4 poison goes to the dead letters", poison),
    Scenario("5 an old receipt is refused", stale),
    Scenario("6 groups keep their order under retries", ordered, alone=True),
    Scenario("7 delay and priority together", timed, alone=True),
    Scenario("8 restart and pause of the server", disturbed, alone=True),
    Scenario("9 an idle consumer begins at once", idle),
)
"""All scenarios of queues."""
