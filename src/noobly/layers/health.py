"""Whether an opened instance works: one cheap round trip through its layers, judged together with its circuit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from time import perf_counter
from typing import Generic, TypeVar

import msgspec

from noobly.core.errors import NooblyError, RateLimited
from noobly.core.lifecycle import Portable
from noobly.layers.breaker import Breaker, Circuit

P_co = TypeVar("P_co", bound=Portable, covariant=True)

Check = Callable[[], Awaitable[object]]
"""Makes one cheap round trip; raises what the instance's operations would raise."""


class State(Enum):
    """How an instance is."""

    OK = "ok"
    DEGRADED = "degraded"
    """It answers, but calls failed just before, or more are waiting than it takes."""
    DOWN = "down"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check.

    Args:
        service: The service's name.
        instance: The instance's name.
        provider: The provider's scheme.
        state: How it is.
        circuit: ``closed``, ``half_open`` or ``open``, after the check; None where the instance has no circuit.
        seconds: How long the round trip took.
        error: What went wrong, beginning with the error's code; None where nothing did.
    """

    service: str
    instance: str
    provider: str
    state: State
    circuit: str | None
    seconds: float
    error: str | None


class Live(msgspec.Struct, Generic[P_co], frozen=True, kw_only=True):
    """An opened instance, as the application keeps it.

    Args:
        portable: What users hold.
        check: The round trip that tells whether it works.
        circuit: Its circuit breaker, where it has one of its own.
    """

    portable: P_co
    check: Check
    circuit: Breaker | None = None


async def health(live: Live[Portable], *, within: float) -> Health:
    """Check an instance; a failure is part of the answer, never raised.

    Args:
        live: The instance.
        within: Seconds after which it counts as down.
    """
    shaken = live.circuit is not None and (live.circuit.failures > 0 or live.circuit.state is not Circuit.CLOSED)
    began = perf_counter()
    state, error = await _judge(live.check, within, shaken=shaken)
    scope = live.portable.scope
    return Health(
        service=scope.service,
        instance=scope.instance,
        provider=scope.provider,
        state=state,
        circuit=live.circuit.state.value if live.circuit is not None else None,
        seconds=perf_counter() - began,
        error=error,
    )


async def _judge(check: Check, within: float, *, shaken: bool) -> tuple[State, str | None]:
    try:
        async with asyncio.timeout(within):
            await check()
    except TimeoutError:
        return State.DOWN, f"deadline_exceeded: no answer within {within:g} s"
    except RateLimited as error:
        return State.DEGRADED, f"{error.code}: {error.message}"
    except NooblyError as error:
        return State.DOWN, f"{error.code}: {error.message}"
    return (State.DEGRADED, "calls failed just before") if shaken else (State.OK, None)
