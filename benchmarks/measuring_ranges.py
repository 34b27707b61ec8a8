"""Questions about ranges of a million samples over a day, against reading them from a list as nooblyjs-core does."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path

from benchmarks._rounds import Costs, Faster, Session, Variant, Work, run
from noobly.measuring import Metrics, SampleIn, open_metrics

SAMPLES = 1_000_000
DAY = 86_400.0
NOW = time.time()


def samples() -> list[tuple[float, float]]:
    chance = random.Random(1)
    return [(NOW - DAY + DAY * number / SAMPLES, chance.lognormvariate(0, 1)) for number in range(SAMPLES)]


def times(call: Callable[[], Awaitable[object]]) -> Work:
    async def work(count: int) -> int:
        for _ in range(count):
            await call()
        return count

    return work


async def fill(metrics: Metrics, kept: Sequence[tuple[float, float]]) -> None:
    rest = iter(kept)
    while part := list(islice(rest, 10_000)):
        await metrics.add_many([SampleIn(name="m", value=value, at=at) for at, value in part])
    await metrics.retain()


async def compare(session: Session, memory: Metrics, sqlite: Metrics, kept: Sequence[tuple[float, float]]) -> None:
    start, end = NOW - DAY + 1234.5, NOW - 7.25

    async def scan() -> float:
        return sum(value for at, value in kept if start <= at <= end)

    total = [
        Variant("a list", times(scan)),
        Variant("memory", times(lambda: memory.total("m", start, end))),
        Variant("sqlite", times(lambda: sqlite.total("m", start, end))),
    ]
    goals = [Faster(name, "a list", 10) for name in ("memory", "sqlite")]
    await session.compare("ranges: total of a million samples", total, base="a list", goals=goals)

    async def ranked() -> float:
        values = sorted(value for at, value in kept if start <= at <= end)
        return values[int(0.99 * (len(values) - 1))]

    p99 = [
        Variant("a list", times(ranked)),
        Variant("memory", times(lambda: memory.percentile("m", 99, start, end))),
        Variant("sqlite", times(lambda: sqlite.percentile("m", 99, start, end))),
    ]
    await session.compare("ranges: 99th percentile of a million samples", p99, base="a list", goals=goals)
    for step in (60, 10):
        chart = [
            Variant("memory", times(lambda step=step: memory.range("m", start, end, step))),
            Variant("sqlite", times(lambda step=step: sqlite.range("m", start, end, step))),
        ]
        under = [Costs("sqlite", "memory", 100_000)]
        await session.compare(f"ranges: a chart in steps of {step} s", chart, base="memory", goals=under)


async def adding(session: Session, memory: Metrics, sqlite: Metrics) -> None:
    labels = {"route": "/home", "method": "GET"}
    variants = [
        Variant("memory", times(lambda: memory.add("added", 1.5))),
        Variant("memory, labelled", times(lambda: memory.add("added", 1.5, labels))),
        Variant("sqlite", times(lambda: sqlite.add("added", 1.5))),
    ]
    await session.compare("ranges: add, with what is recorded behind it", variants, base="memory")


async def main(session: Session) -> None:
    """Compare ranges."""
    kept = samples()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        memory = await stack.enter_async_context(open_metrics())
        sqlite = await stack.enter_async_context(open_metrics(f"sqlite://{folder}/metrics.db"))
        for metrics in (memory, sqlite):
            await fill(metrics, kept)
        await compare(session, memory, sqlite, kept)
        await adding(session, memory, sqlite)


if __name__ == "__main__":
    run(main, rounds=5)
