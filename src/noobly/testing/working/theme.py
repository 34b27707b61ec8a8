"""What all themes have in common: the harness fixture, jobs opened from it, and the short ways of asking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import pytest

from noobly.core.capability import Capability
from noobly.core.events import Event, OperationFinished
from noobly.testing.working.harness import JobHarness
from noobly.working import Bounds, Jobs, JobSpec, State, Ticket, Verdict
from noobly.working.records import Held, Settled, Value

E = TypeVar("E", bound=Event)
Pair = tuple[Jobs, Jobs]

Q = "q"
"""The queue of most tests."""
LONG = 600.0
"""A lease or delay, in seconds, that no test outlives."""
PATIENCE = 30.0
"""Seconds given to what must happen; a loaded machine needs a fraction of them."""
FREE = Bounds()


class Theme:
    """Base of the themes; a subclass overrides the ``harness`` fixture."""

    @pytest.fixture
    def harness(self) -> JobHarness:
        """Return a harness that no other test uses."""
        raise NotImplementedError("override the harness fixture: it says how to open the provider under test")

    @pytest.fixture
    async def jobs(self, harness: JobHarness) -> AsyncIterator[Jobs]:
        """Open jobs with default options."""
        async with harness.open() as jobs:
            yield jobs

    @pytest.fixture
    async def pair(self, harness: JobHarness) -> AsyncIterator[Pair]:
        """Open two clients of the same store."""
        if not harness.shared:
            pytest.skip("two instances of this provider share nothing")
        async with harness.open() as one, harness.open() as other:
            yield one, other


class LiveTheme(Theme):
    """Base of the themes whose workers live in real time."""

    @pytest.fixture
    async def live(self, harness: JobHarness) -> AsyncIterator[Jobs]:
        """Open jobs that read the machine's clock."""
        harness.flow()
        async with harness.open() as jobs:
            yield jobs

    @pytest.fixture
    async def live_pair(self, harness: JobHarness) -> AsyncIterator[Pair]:
        """Open two clients of the same store that read the machine's clock."""
        if not harness.shared:
            pytest.skip("two instances of this provider share nothing")
        harness.flow()
        async with harness.open() as one, harness.open() as other:
            yield one, other


def needs(harness: JobHarness, *capabilities: Capability) -> None:
    """Skip the test where the provider does not claim all of these."""
    missing = [one.name.lower() for one in capabilities if one not in harness.capabilities]
    if missing:
        pytest.skip(f"the provider does not claim {', '.join(missing)}")


def recorded(jobs: Jobs, kind: type[E]) -> list[E]:
    """Return a list to which each further event of a kind is added."""
    seen: list[E] = []
    jobs.scope.environment.bus.subscribe(kind, seen.append)
    return seen


def worked(events: Sequence[OperationFinished]) -> list[str]:
    """Return the operations that were done, not refused."""
    return [event.operation for event in events if event.outcome == "ok"]


def spec(args: Value = None, *, task: str = "task", queue: str = Q, **fields: Any) -> JobSpec:
    """Return a job to be added."""
    return JobSpec(task=task, args=args, queue=queue, **fields)


async def add(jobs: Jobs, args: Value = None, **fields: Any) -> Ticket:
    """Add one job."""
    (ticket,) = await jobs.add([spec(args, **fields)])
    return ticket


async def look(
    jobs: Jobs, queue: str = Q, *, most: int = 1000, lease: float = LONG, bounds: Bounds = FREE
) -> list[Held]:
    """Claim what there is, at once."""
    return await jobs.claim(queue, "worker", max=most, lease=lease, bounds=bounds)


async def one(jobs: Jobs, queue: str = Q, *, lease: float = LONG, bounds: Bounds = FREE) -> Held:
    """Claim the one job that must come."""
    async with asyncio.timeout(PATIENCE):
        while not (found := await jobs.claim(queue, "worker", max=1, wait=2, lease=lease, bounds=bounds)):
            pass
    return found[0]


def settled(held: Held, verdict: Verdict = Verdict.SUCCEEDED, **fields: Any) -> Settled:
    """Return how an attempt ended."""
    return Settled(id=held.job.id, token=held.token, verdict=verdict, **fields)


async def settle(jobs: Jobs, held: Held, verdict: Verdict = Verdict.SUCCEEDED, **fields: Any) -> bool:
    """Tell how an attempt ended; return whether its claim still stood."""
    (stood,) = await jobs.settle(held.job.queue, [settled(held, verdict, **fields)])
    return stood


async def drained(jobs: Jobs, queue: str = Q) -> list[Value]:
    """Claim one job after another and let it succeed; return their arguments in that order."""
    found: list[Value] = []
    while held := await look(jobs, queue, most=1):
        assert await settle(jobs, held[0])
        found.append(held[0].job.args)
    return found


async def state(jobs: Jobs, id: str, queue: str = Q) -> State:
    """Return where a job stands."""
    return (await jobs.get(id, queue=queue)).state


async def comes(harness: JobHarness, jobs: Jobs, queue: str = Q, *, ticks: float, lease: float = LONG) -> Held:
    """Let so many ticks pass, then more until a job is there, for stores that are late."""
    await harness.advance(ticks * harness.tick)
    for _ in range(8):
        if found := await look(jobs, queue, most=1, lease=lease):
            return found[0]
        await harness.advance(harness.tick / 2)
    return await one(jobs, queue, lease=lease)


async def holds(harness: JobHarness, condition: Callable[[], Awaitable[object]], *, ticks: float = 0) -> bool:
    """Let so many ticks pass, then more until the condition holds, for stores that are late; return whether it does."""
    await harness.advance(ticks * harness.tick)
    for _ in range(20):
        if await condition():
            return True
        await harness.advance(harness.tick / 2)
    return bool(await condition())


@asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[asyncio.Task[None]]:
    """Let a worker run beside the body, and end it gracefully."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
