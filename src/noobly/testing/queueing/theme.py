"""What all themes have in common: the harness fixture, queues opened from it, and the short ways of asking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import pytest

from noobly.core.capability import Capability
from noobly.core.events import Event, OperationFinished
from noobly.queueing import Can, Delivery, Queues, names
from noobly.queueing.messages import Value
from noobly.testing.queueing.harness import QueueHarness

E = TypeVar("E", bound=Event)
Pair = tuple[Queues, Queues]

LONG = 600.0
"""A lease or delay, in seconds, that no test outlives."""
PATIENCE = 20.0
"""Seconds a waiting receiver is given where a message must come; a loaded machine needs a fraction of them."""


class Theme:
    """Base of the themes; a subclass overrides the ``harness`` fixture."""

    @pytest.fixture
    def harness(self) -> QueueHarness:
        """Return a harness that no other test uses."""
        raise NotImplementedError("override the harness fixture: it says how to open the provider under test")

    @pytest.fixture
    async def queues(self, harness: QueueHarness) -> AsyncIterator[Queues]:
        """Open queues with default options."""
        async with harness.open() as queues:
            yield queues

    @pytest.fixture
    async def pair(self, harness: QueueHarness) -> AsyncIterator[Pair]:
        """Open two clients of the same store."""
        if not harness.shared:
            pytest.skip("two queues of this provider share nothing")
        async with harness.open() as one, harness.open() as other:
            yield one, other


def needs(harness: QueueHarness, *capabilities: Capability) -> None:
    """Skip the test where the provider does not claim all of these."""
    missing = [one.name.lower() for one in capabilities if one not in harness.capabilities]
    if missing:
        pytest.skip(f"the provider does not claim {', '.join(missing)}")


def recorded(queues: Queues, kind: type[E]) -> list[E]:
    """Return a list to which each further event of a kind is added."""
    seen: list[E] = []
    queues.scope.environment.bus.subscribe(kind, seen.append)
    return seen


def worked(events: Sequence[OperationFinished]) -> list[str]:
    """Return the operations that were done, not refused."""
    return [event.operation for event in events if event.outcome == "ok"]


def values(found: Sequence[Delivery[Value]]) -> list[Value]:
    """Return what was sent."""
    return [one.value for one in found]


async def one(queues: Queues, queue: str, *, wait: float = PATIENCE, lease: float = LONG) -> Delivery[Value]:
    """Receive the one message that must come."""
    found = await queues.receive(queue, wait=wait, lease=lease)
    assert len(found) == 1, f"queue {queue!r} had nothing"
    return found[0]


async def drained(queues: Queues, queue: str) -> list[Value]:
    """Receive and acknowledge all that is ready; return it in the order of its delivery."""
    found: list[Value] = []
    while batch := await queues.receive(queue, max=100, lease=LONG):
        found += values(batch)
        await queues.ack_many(queue, [each.receipt for each in batch])
    return found


async def buried(queues: Queues, queue: str) -> list[Value]:
    """Receive the values of a queue's dead letters, on any provider."""
    return values(await queues.receive(names.dead(queue), max=100, lease=LONG))


def can_peek(harness: QueueHarness) -> bool:
    """Return whether messages can be looked at."""
    return Can.PEEK in harness.capabilities


async def comes(harness: QueueHarness, queues: Queues, queue: str, *, ticks: float) -> Delivery[Value]:
    """Let so many ticks pass, then up to four more until a message is there, for stores that are late."""
    await harness.advance(ticks * harness.tick)
    for _ in range(8):
        if found := await queues.receive(queue, lease=LONG):
            return found[0]
        await harness.advance(harness.tick / 2)
    return await one(queues, queue)


async def holds(harness: QueueHarness, condition: Callable[[], Awaitable[bool]], *, ticks: float = 0) -> bool:
    """Let so many ticks pass, then more until the condition holds, for stores that are late; return whether it does."""
    await harness.advance(ticks * harness.tick)
    for _ in range(20):
        if await condition():
            return True
        await harness.advance(harness.tick / 2)
    return await condition()


@asynccontextmanager
async def flowing(harness: QueueHarness) -> AsyncIterator[None]:
    """Let time pass all the while, and give what happens in it ``PATIENCE`` seconds."""

    async def flow() -> None:
        while True:
            await harness.elapse(harness.tick)

    flowing = asyncio.create_task(flow())
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    finally:
        flowing.cancel()
        with suppress(asyncio.CancelledError):
            await flowing
