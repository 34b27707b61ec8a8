"""A tiny service, to see the layers at work."""

from __future__ import annotations

from typing import Annotated, ClassVar, Protocol, cast

import msgspec

from noobly.core.binding import bind
from noobly.core.capability import Capability
from noobly.core.checks import Limits, Payload, Text
from noobly.core.errors import NooblyError, Unavailable
from noobly.core.operation import Driver, operation
from noobly.core.scope import Environment, Policy, Scope
from noobly.layers import Breaker, default_stack
from noobly.testing import FakeClock, FixedChance
from noobly.testing.faults import Faults


class Can(Capability):
    FLY = "fly"


class BirdDriver(Driver, Protocol):
    service: ClassVar[str] = "birds"

    @operation(idempotent=True)
    async def look(self, name: Annotated[str, Text(1, 8)], /) -> str: ...
    @operation(idempotent=False)
    async def feed(self, name: Annotated[str, Text(1, 8)], seeds: Annotated[bytes, Payload()], /) -> int: ...
    @operation(idempotent=True, waits=True)
    async def listen(self, /) -> str: ...
    @operation(idempotent=True, needs=Can.FLY)
    async def fly(self, /) -> str: ...


class Bird:
    scheme = "bird"
    in_process = False
    limits = Limits(value_bytes=10)

    def __init__(self) -> None:
        self.seeds = 0
        self.raises: Exception | None = None

    async def look(self, name: str, /) -> str:
        if self.raises is not None:
            raise self.raises
        return f"{name} sings"

    async def feed(self, name: str, seeds: bytes, /) -> int:
        self.seeds += len(seeds)
        return self.seeds

    async def listen(self) -> str:
        return "silence"

    def classify(self, error: Exception) -> NooblyError | None:
        return Unavailable(f"the nest is gone: {error}") if isinstance(error, OSError) else None


class Eagle(Bird):
    async def fly(self) -> str:
        return "up"


class Nest:
    """A bound bird with all that its layers report to."""

    def __init__(self, bird: Bird | None = None, **policy: float) -> None:
        self.bird = bird or Bird()
        self.clock = FakeClock()
        self.environment = Environment(clock=self.clock, chance=FixedChance(0.0))
        self.scope = Scope(
            service="birds",
            instance="default",
            provider="bird",
            policy=msgspec.convert(policy, Policy),
            environment=self.environment,
        )
        self.circuit = Breaker(self.scope)
        self.faults = Faults()
        layers = default_stack(self.scope, self.circuit, inner=[self.faults.layer])
        self.driver = bind(BirdDriver, cast(BirdDriver, self.bird), layers)

    def count(self, outcome: str, operation: str = "look") -> int:
        """Return how many calls the histogram has with this outcome."""
        cell = self.environment.meter.cell("birds", "default", "bird", operation, outcome)
        return sum(cell.counts)
