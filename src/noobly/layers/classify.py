"""Classify: an exception of a provider's client becomes one of the suite's own, with the original as its cause."""

from __future__ import annotations

from collections.abc import Callable

from noobly.core.binding import Layer
from noobly.core.errors import Internal, NooblyError
from noobly.core.operation import Call, Driver, Operation


def classify() -> Layer:
    """Let only the suite's own errors through, where nothing else is to be done about them; see ``classifier``."""

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        if getattr(driver, "classify", None) is None:
            return inner
        classified = classifier(operation, driver)

        async def classifying(*args: object) -> object:
            try:
                return await inner(*args)
            except Exception as error:
                failure = classified(error)
                if failure is error:
                    raise
                raise failure from error

        return classifying

    return layer


def classifier(operation: Operation, driver: Driver) -> Callable[[Exception], Exception]:
    """Return what maps a provider's exceptions to the suite's errors; what the provider does not know is Internal.

    A provider without ``classify`` has no client whose exceptions could be known; ``observe`` tells its defects.
    """
    known: Callable[[Exception], NooblyError | None] | None = getattr(driver, "classify", None)

    def classified(error: Exception) -> Exception:
        if known is None or isinstance(error, NooblyError):
            return error
        return known(error) or unknown(error, operation, driver.scheme)

    return classified


def unknown(error: Exception, operation: Operation, provider: str) -> Internal:
    """Return the error for an exception that nobody knows."""
    return Internal(f"{provider} failed in {operation.name}: {type(error).__name__}: {error}")
