"""What the layers of one opened instance share: its names, its policy, its clock and where it reports to."""

from __future__ import annotations

import msgspec

from noobly.core.clock import Chance, Clock, SystemClock, system_chance
from noobly.core.config import Config
from noobly.core.events import Bus
from noobly.core.meter import Meter

__all__ = ["Environment", "Policy", "Scope"]


class Policy(Config, frozen=True, kw_only=True):
    """How calls that leave the process are bounded and repeated.

    Args:
        timeout: Seconds that one call may take in all, its retries included.
        concurrency: Calls under way at once, per instance.
        waiting: Calls that may wait for one of those places; further ones are refused as RateLimited. So many calls may
            also wait for something to come, such as a message; these take no places.
        attempts: How often an idempotent call is tried in all.
        backoff: Seconds of the first pause between attempts; the next is twice as long, each drawn from [0, pause).
        backoff_cap: The longest pause, in seconds.
        breaker_failures: Temporary failures in a row that open the circuit.
        breaker_pause: Seconds the circuit stays open before one call may try again.
    """

    timeout: float = 5.0
    concurrency: int = 1024
    waiting: int = 10_000
    attempts: int = 3
    backoff: float = 0.05
    backoff_cap: float = 1.0
    breaker_failures: int = 5
    breaker_pause: float = 1.0


class Environment:
    """What one application hands to everything it opens.

    Args:
        clock: Where time is read.
        chance: Where jitter is drawn.
        bus: Where events go.
        meter: Where metrics go.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        chance: Chance | None = None,
        bus: Bus | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.chance = chance or system_chance()
        self.bus = bus or Bus()
        self.meter = meter or Meter()


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """One opened instance of a service, as its layers see it."""

    service: str
    instance: str
    provider: str
    policy: Policy
    environment: Environment
