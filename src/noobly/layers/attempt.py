"""Attempt: what the provider raises is classified, and idempotent operations are tried again after temporary errors.

This is the only owner of repetition. Pauses have full jitter: each is drawn from [0, cap of that attempt), so that
clients do not return in step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from noobly.core.errors import NooblyError
from noobly.core.operation import Call, Driver, Operation
from noobly.core.scope import Scope
from noobly.layers.classify import classifier

Recover = Callable[[Exception, tuple[object, ...]], Awaitable[object]]
"""Takes what the first attempt raised, and its arguments; returns what a later one does, or raises."""


def recovery(scope: Scope, operation: Operation, driver: Driver, call: Call) -> Recover:
    """Return what deals with a failed first attempt, so that one that succeeds pays nothing for it.

    Idempotent operations are tried up to ``policy.attempts`` times; the error's ``retry_after`` is the least pause.
    """
    attempts = scope.policy.attempts if operation.idempotent and not driver.in_process else 1
    classified = classifier(operation, driver)

    async def recover(error: Exception, args: tuple[object, ...]) -> object:
        for number in range(1, attempts + 1):
            failure = classified(error)
            if number == attempts or not isinstance(failure, NooblyError) or not failure.temporary:
                break
            await asyncio.sleep(_pause(scope, number, failure.retry_after))
            try:
                return await call(*args)
            except Exception as again:  # noqa: BLE001 - it is classified and, at the latest after the loop, raised
                error = again
        if failure is error:
            raise error
        raise failure from error

    return recover


def _pause(scope: Scope, attempt: int, retry_after: float | None) -> float:
    most: float = min(scope.policy.backoff_cap, scope.policy.backoff * 2 ** (attempt - 1))
    return (retry_after or 0.0) + most * scope.environment.chance.random()
