"""Breaker: after repeated temporary failures calls fail at once, until one trial call gets through."""

from __future__ import annotations

from enum import Enum

from noobly.core.errors import Closed, InvalidArgument, NooblyError, RateLimited, TooLarge, Unavailable, Unsupported
from noobly.core.scope import Scope

_REFUSED = (Closed, InvalidArgument, RateLimited, TooLarge, Unsupported)
"""Refusals, mostly by the layers below: they say nothing about whether the far side is well."""


class Circuit(Enum):
    """The state of a circuit."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Breaker:
    """The circuit of one instance; health and metrics read its ``state``."""

    def __init__(self, scope: Scope) -> None:
        self._policy = scope.policy
        self._clock = scope.environment.clock
        self.failures = 0
        self._opened = 0.0
        self.state = Circuit.CLOSED
        self._trial_waits = False
        labels = (scope.service, scope.instance, scope.provider)
        text = "1 while the circuit breaker of an instance is open."
        gauge = scope.environment.meter.gauge("noobly_circuit_open", text, ("service", "instance", "provider"))
        self._gauge = gauge.labels(*labels)

    def admit(self, *, waits: bool = False) -> None:
        """Let a call through, or refuse it while the circuit is open or a trial call is under way.

        A trial that waits for something to come is no answer for a while, so a call that does not may try beside it.

        Args:
            waits: The call waits for something to come.
        """
        left = self._opened + self._policy.breaker_pause - self._clock.monotonic()
        tried = self.state is Circuit.HALF_OPEN and (waits or not self._trial_waits)
        if tried or left > 0:
            raise Unavailable("the circuit is open after repeated failures", retry_after=max(left, 0.01))
        self.state, self._trial_waits = Circuit.HALF_OPEN, waits

    def succeeded(self) -> None:
        """Close the circuit."""
        self.failures = 0
        self.state = Circuit.CLOSED
        self._gauge.set(0)

    def abandoned(self) -> None:
        """Give back a trial that was cancelled, so that the next call may try."""
        if self.state is Circuit.HALF_OPEN:
            self.state = Circuit.OPEN

    def failed(self) -> None:
        """Count a temporary failure; open the circuit at the limit, or at once after a trial."""
        self.failures += 1
        if self.state is Circuit.HALF_OPEN or self.failures >= self._policy.breaker_failures:
            self.state = Circuit.OPEN
            self._opened = self._clock.monotonic()
            self._gauge.set(1)

    def judge(self, error: BaseException) -> None:
        """Take note of how a call failed."""
        if isinstance(error, _REFUSED) or not isinstance(error, NooblyError):
            self.abandoned()
        elif error.temporary:
            self.failed()
        elif self.failures:
            self.succeeded()
