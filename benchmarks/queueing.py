"""Queues: Noobly on memory, SQLite and Redis against redis-py with its pool, on a stream and on a list.

The server is private and shares one core with this process, for a wake-up across cores costs more than a command. All
sides run on the same event loop (``--loop``). Queues are emptied, and filled where needed, between the turns.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import msgspec
import redis.asyncio

from benchmarks._rounds import Faster, Outcome, Session, Variant, Work, digits, run
from noobly.queueing import Outbound, Queues, open_queues
from noobly.testing import private

VALUE = {"order": 123_456, "customer": "Ada Lovelace", "lines": [{"sku": "A-1", "count": 2}]}
TASKS = 50
BATCH = 100
QUEUE, GROUP = "bench", "workers"
PINGS = 200
RAW, LIST = "redis-py pool, stream", "redis-py pool, list"
encode, decode = msgspec.json.encode, msgspec.json.decode

Step = Callable[[], Awaitable[object]]


class Side(msgspec.Struct, frozen=True):
    """One kind of queue: one message sent, one received and acknowledged, and what comes before a turn.

    Args:
        name: What it is called.
        send: Sends one message.
        take: Receives one message and acknowledges it.
        fill: Empties the queue and puts so many messages into it.
    """

    name: str
    send: Step
    take: Step
    fill: Callable[[int], Awaitable[None]]


def noobly(name: str, queues: Queues) -> Side:
    async def take() -> None:
        (delivery,) = await queues.receive(QUEUE)
        await queues.ack(QUEUE, delivery.receipt)

    async def fill(count: int) -> None:
        await queues.purge(QUEUE)
        for start in range(0, count, 1000):
            await queues.send_many(QUEUE, [Outbound(message=VALUE)] * min(1000, count - start))

    return Side(name, lambda: queues.send(QUEUE, VALUE), take, fill)


def batches(queues: Queues) -> tuple[Work, Work]:
    """Return the work of sending and of taking messages, 100 at a time."""

    async def send(count: int) -> int:
        for _ in range(-(-count // BATCH)):
            await queues.send_many(QUEUE, [Outbound(message=VALUE)] * BATCH)
        return -(-count // BATCH) * BATCH

    async def take(count: int) -> int:
        for _ in range(-(-count // BATCH)):
            found = await queues.receive(QUEUE, max=BATCH)
            assert all(await queues.ack_many(QUEUE, [one.receipt for one in found]))
            assert len(found) == BATCH
        return -(-count // BATCH) * BATCH

    return send, take


def on_stream(client: redis.asyncio.Redis) -> Side:
    async def send() -> object:
        return await client.xadd("stream", {"m": encode(VALUE)})

    async def take() -> None:
        ((_, ((id, fields),)),) = await client.xreadgroup(GROUP, "me", {"stream": ">"}, count=1)
        decode(fields[b"m"])
        await client.xack("stream", GROUP, id)

    async def fill(count: int) -> None:
        await client.delete("stream")
        await client.xgroup_create("stream", GROUP, "0", mkstream=True)
        for start in range(0, count, 1000):
            many = client.pipeline(transaction=False)
            for _ in range(min(1000, count - start)):
                many.xadd("stream", {"m": encode(VALUE)})
            await many.execute()

    return Side(RAW, send, take, fill)


def on_list(client: redis.asyncio.Redis) -> Side:
    async def take() -> None:
        decode(await client.rpop("list") or b"")

    async def fill(count: int) -> None:
        await client.delete("list")
        for start in range(0, count, 1000):
            await client.lpush("list", *[encode(VALUE)] * min(1000, count - start))

    return Side(LIST, lambda: client.lpush("list", encode(VALUE)), take, fill)


def repeated(step: Step, tasks: int) -> Work:
    """Return work in which so many tasks repeat a step; they do a whole number of steps each."""

    async def some(count: int) -> None:
        for _ in range(count):
            await step()

    async def work(count: int) -> int:
        share = -(-count // tasks)
        await asyncio.gather(*(some(share) for _ in range(tasks)))
        return share * tasks

    return work


def sends(sides: Sequence[Side], tasks: int) -> list[Variant]:
    async def empty(side: Side) -> None:
        await side.fill(0)

    return [Variant(side.name, repeated(side.send, tasks), prepare=lambda _, side=side: empty(side)) for side in sides]


def takes(sides: Sequence[Side], tasks: int) -> list[Variant]:
    return [
        Variant(side.name, repeated(side.take, tasks), prepare=lambda count, side=side: side.fill(count + tasks))
        for side in sides
    ]


async def compared(session: Session, sides: Sequence[Side], own: dict[str, Queues]) -> None:
    note = "A list has no acknowledgement: what its receiver has not worked on when it dies is lost."
    ours = f"{next(name for name in own if 'redis' in name)}"
    many = [Faster(ours, RAW, 8)]
    await session.compare(f"send, {TASKS} tasks", sends(sides, TASKS), base=RAW, goals=many)
    title = f"receive and acknowledge, {TASKS} tasks"
    await session.compare(title, takes(sides, TASKS), base=RAW, goals=many, note=note)
    sent, taken = sends(sides, 1), takes(sides, 1)
    faster = []
    for side in sides:
        if side.name in own:
            send, take = batches(own[side.name])
            name = f"{side.name}, by {BATCH}"
            sent.append(Variant(name, send, prepare=lambda _, side=side: side.fill(0)))
            taken.append(Variant(name, take, prepare=lambda count, side=side: side.fill(count + BATCH)))
            if side.name != "noobly memory":  # There is no round trip to be saved.
                faster.append(Faster(name, side.name, 5))
    await session.compare("send, one at a time", sent, base=RAW, goals=faster)
    await session.compare("receive and acknowledge, one at a time", taken, base=RAW, goals=faster)


async def promptness(session: Session, own: dict[str, Queues]) -> None:
    """Show how long a message takes to a receiver that waits."""
    title = f"from sending to a receiver that waits, {PINGS} messages"
    if session.options.only not in title:
        return
    rows, goals = [], []
    for name, queues in own.items():
        late = [1e3 * one for one in await pinged(queues)]
        cuts = statistics.quantiles(late, n=100)
        rows.append([name, *(digits(one) for one in (cuts[49], cuts[98], max(late)))])
        goals.append(Outcome(f"{name}: p99 ms", digits(cuts[98]), "under 10", cuts[98] < 10))
    session.add(title, ["", "p50 ms", "p99 ms", "most ms"], rows, goals)


async def pinged(queues: Queues) -> list[float]:
    """Return how long messages took, in seconds."""
    await queues.purge(QUEUE)
    found: list[float] = []
    for _ in range(PINGS):
        waiting = asyncio.ensure_future(queues.receive(QUEUE, wait=10))
        await asyncio.sleep(0.005)  # So that it waits.
        began = time.perf_counter()
        await queues.send(QUEUE, VALUE)
        (delivery,) = await waiting
        found.append(time.perf_counter() - began)
        await queues.ack(QUEUE, delivery.receipt)
    return found


async def queueing(session: Session) -> None:
    """Queues on memory, SQLite and Redis against redis-py with its pool."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(private("redis"))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        client = redis.asyncio.Redis.from_url(server.url)
        stack.push_async_callback(client.aclose)
        urls = {
            "noobly redis": f"{server.url}/1?durability=ignore",
            "noobly memory": "memory://",
            "noobly sqlite": f"sqlite://{folder}/queues.db",
        }
        own = {name: await stack.enter_async_context(open_queues(url)) for name, url in urls.items()}
        sides = [*(noobly(name, queues) for name, queues in own.items()), on_stream(client), on_list(client)]
        await compared(session, sides, own)
        await promptness(session, own)


if __name__ == "__main__":
    run(queueing, packages=("redis", "hiredis", "msgspec", "uvloop"), rounds=7)
