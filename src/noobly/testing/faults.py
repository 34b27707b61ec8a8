"""The fault layer: what goes wrong between a service and its store, on demand, right beside the provider.

Give it to an opening as an inner layer; it then stands where the network would be, so that retry, deadline, breaker and
the portable type meet the fault as they would meet a real one.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from enum import Enum

import msgspec

from noobly.core.errors import Internal, Unavailable
from noobly.core.operation import Call, Driver, Operation


class Fault(Enum):
    """What happens to a call."""

    DROP = "drop"
    """It never reaches the store and is never answered."""
    LOSE = "lose"
    """It takes effect, and its answer is lost: the caller sees a temporary error."""
    DELAY = "delay"
    """It waits until it is let go."""
    DUPLICATE = "duplicate"
    """It reaches the store twice; the second answer counts."""
    TEMPORARY = "temporary"
    """It is refused with a temporary error."""
    PERMANENT = "permanent"
    """It is refused with an error that repetition does not cure."""


class _Planned(msgspec.Struct):
    fault: Fault
    times: int
    operation: str | None


class Faults:
    """Plans faults and counts calls.

    Attributes:
        calls: How often each operation came to the provider's door, faulty or not.
    """

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self._planned: list[_Planned] = []
        self._go = asyncio.Event()

    def plan(self, fault: Fault, *, times: int = 1, operation: str | None = None) -> None:
        """Let the next calls meet a fault.

        Args:
            fault: Which one.
            times: For how many calls.
            operation: Only calls of this operation.
        """
        self._planned.append(_Planned(fault, times, operation))

    def heal(self) -> None:
        """Plan nothing any more, and let delayed calls go."""
        self._planned.clear()
        self.release()

    def release(self) -> None:
        """Let go of the calls that are delayed now."""
        self._go.set()
        self._go = asyncio.Event()

    def layer(self, operation: Operation, driver: Driver, inner: Call) -> Call:
        """Stand between the layers and the provider; itself a layer."""

        async def faulty(*args: object) -> object:
            self.calls[operation.name] = self.calls.get(operation.name, 0) + 1
            fault = self._next(operation.name)
            if fault is None:
                return await inner(*args)
            return await _HAPPEN[fault](functools.partial(inner, *args), self._go)

        return faulty

    def _next(self, operation: str) -> Fault | None:
        for planned in self._planned:
            if planned.operation in (None, operation) and planned.times > 0:
                planned.times -= 1
                return planned.fault
        return None


async def _drop(inner: Call, go: asyncio.Event) -> object:
    return await asyncio.get_running_loop().create_future()


async def _lose(inner: Call, go: asyncio.Event) -> object:
    await inner()
    raise Unavailable("the answer was lost (a planned fault)")


async def _delay(inner: Call, go: asyncio.Event) -> object:
    await go.wait()
    return await inner()


async def _duplicate(inner: Call, go: asyncio.Event) -> object:
    await inner()
    return await inner()


async def _temporary(inner: Call, go: asyncio.Event) -> object:
    raise Unavailable("refused for now (a planned fault)")


async def _permanent(inner: Call, go: asyncio.Event) -> object:
    raise Internal("refused for good (a planned fault)")


_HAPPEN: dict[Fault, Callable[[Call, asyncio.Event], Awaitable[object]]] = {
    Fault.DROP: _drop,
    Fault.LOSE: _lose,
    Fault.DELAY: _delay,
    Fault.DUPLICATE: _duplicate,
    Fault.TEMPORARY: _temporary,
    Fault.PERMANENT: _permanent,
}
