"""Classify: an exception of a provider's client becomes one of the suite's own, with the original as its cause."""

from __future__ import annotations

from noobly.core.binding import Layer
from noobly.core.errors import Internal, NooblyError
from noobly.core.operation import Call, Driver, Operation


def classify() -> Layer:
    """Let only the suite's own errors through; what a provider does not know is Internal.

    A provider without ``classify`` has no client whose exceptions could be known; ``observe`` tells its defects.
    """

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        known = getattr(driver, "classify", None)
        if known is None:
            return inner

        async def classified(*args: object) -> object:
            try:
                return await inner(*args)
            except NooblyError:
                raise
            except Exception as error:
                raise known(error) or unknown(error, operation, driver.scheme) from error

        return classified

    return layer


def unknown(error: Exception, operation: Operation, provider: str) -> Internal:
    """Return the error for an exception that nobody knows."""
    return Internal(f"{provider} failed in {operation.name}: {type(error).__name__}: {error}")
