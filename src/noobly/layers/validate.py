"""Validate: the checks that an operation's declaration attaches to its arguments, before any I/O."""

from __future__ import annotations

from collections.abc import Awaitable

from noobly.core.binding import Layer
from noobly.core.operation import Call, Driver, Operation


def validate() -> Layer:
    """Refuse bad arguments alike on every provider.

    The wrappers are plain functions that hand on the inner coroutine, so a good call costs only its checks.
    """

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        checks = [(position, check.compile(name, driver.limits)) for position, name, check in operation.checks]
        if not checks:
            return inner
        if len(checks) == 1 and checks[0][0] == 0:
            first = checks[0][1]

            def checked_first(*args: object) -> Awaitable[object]:
                first(args[0])
                return inner(*args)

            return checked_first

        if [position for position, _ in checks] == [0, 1]:
            first, second = checks[0][1], checks[1][1]

            def checked_two(*args: object) -> Awaitable[object]:
                first(args[0])
                second(args[1])
                return inner(*args)

            return checked_two

        def checked(*args: object) -> Awaitable[object]:
            for position, check in checks:
                check(args[position])
            return inner(*args)

        return checked

    return layer
