"""Retry: the only owner of repetition. Idempotent operations are tried again after temporary errors.

Pauses have full jitter: each is drawn from [0, cap of that attempt), so that clients do not return in step.
"""

from __future__ import annotations

import asyncio

from noobly.core.binding import Layer
from noobly.core.errors import NooblyError
from noobly.core.operation import Call, Driver, Operation
from noobly.core.scope import Scope


def retry(scope: Scope) -> Layer:
    """Try idempotent operations up to ``policy.attempts`` times; the error's ``retry_after`` is the least pause."""
    attempts = scope.policy.attempts

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        if driver.in_process or not operation.idempotent or attempts < 2:
            return inner

        async def retried(*args: object) -> object:
            attempt = 1
            while True:
                try:
                    return await inner(*args)
                except NooblyError as error:
                    if not error.temporary or attempt >= attempts:
                        raise
                    pause = _pause(scope, attempt, error.retry_after)
                attempt += 1
                await asyncio.sleep(pause)

        return retried

    return layer


def _pause(scope: Scope, attempt: int, retry_after: float | None) -> float:
    most: float = min(scope.policy.backoff_cap, scope.policy.backoff * 2 ** (attempt - 1))
    return (retry_after or 0.0) + most * scope.environment.chance.random()
