"""Binding: a bare provider and a list of layers become the driver that the portable type calls.

All work is done here, once per operation, so that a call costs no more than the layers that have something to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import iscoroutinefunction
from typing import TypeVar, cast

from msgspec.structs import replace

from noobly.core.capability import Capability
from noobly.core.errors import Closed, Unsupported
from noobly.core.operation import Call, Driver, Operation, operations

P = TypeVar("P", bound=Driver)
Layer = Callable[[Operation, Driver, Call], Call]
"""Wraps the inner call of one operation; may return it unchanged where it has nothing to do.

For an immediate form it returns a plain function, or a coroutine function where it has to wait.
"""


class Bound:
    """A driver whose operations run through layers; it has the attributes of the provider it wraps."""

    def __init__(self, driver: Driver) -> None:
        self.scheme = driver.scheme
        self.in_process = driver.in_process
        self.limits = driver.limits
        self.joins: bool = getattr(driver, "joins", False)
        self.features: frozenset[Capability] = getattr(driver, "features", frozenset())
        self.provider = driver


def bind(protocol: type[P], driver: P, layers: Sequence[Layer]) -> P:
    """Return the driver with every operation wrapped in the layers, the first one outermost.

    Args:
        protocol: The driver protocol whose operations are bound.
        driver: The bare provider.
        layers: Outermost first; each is asked once per operation.

    Raises:
        TypeError: The provider lacks a core operation of the protocol.
    """
    bound = Bound(driver)
    for declared in operations(protocol):
        setattr(bound, declared.name, wrap(declared, driver, _bare(declared, driver), layers))
        if declared.now is not None:
            setattr(bound, declared.now, _immediate(declared, driver, getattr(driver, declared.now, None), layers))
    return cast(P, bound)


def wrap(declared: Operation, driver: Driver, call: Call, layers: Sequence[Layer]) -> Call:
    """Return one call wrapped in the layers, the first one outermost."""
    for layer in reversed(layers):
        call = layer(declared, driver, call)
    return call


def _immediate(declared: Operation, driver: Driver, call: Call | None, layers: Sequence[Layer]) -> Call | None:
    """Return an immediate form wrapped in the layers, or None where there is none or one of them has to wait."""
    declared = replace(declared, checks=(), immediate=True)
    for layer in reversed(layers):
        if call is None or iscoroutinefunction(call):
            return None
        call = layer(declared, driver, call)
    return None if iscoroutinefunction(call) else call


def _bare(declared: Operation, driver: Driver) -> Call:
    method = getattr(driver, declared.name, None)
    if method is not None:
        return cast(Call, method)
    if declared.needs is None:
        raise TypeError(f"{type(driver).__name__} lacks the core operation {declared.service}.{declared.name}")

    async def missing(*_: object) -> object:
        raise Unsupported(f"{driver.scheme} cannot do {declared.name}")

    return missing


def seal(bound: object, protocol: type, message: str) -> None:
    """Make every operation of a bound driver raise Closed from now on, at no cost to calls before."""

    def closed(*_: object) -> Awaitable[object]:
        raise Closed(message)

    for declared in operations(protocol):
        setattr(bound, declared.name, closed)
        if declared.now is not None:
            setattr(bound, declared.now, closed)
