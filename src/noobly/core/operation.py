"""The declaration of a driver operation, from which layers derive all they need to know about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Annotated, Protocol, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from noobly.core.capability import Capability
from noobly.core.checks import Check, Limits
from noobly.core.errors import NooblyError

Call = Callable[..., Awaitable[object]]
Now = Callable[[object, float], object]
"""The immediate form of a call: it takes its argument and when it began."""
Method = TypeVar("Method", bound=Callable[..., Awaitable[object]])

MARK = "__noobly_operation__"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a service's driver protocol.

    Args:
        service: The service's name, ``caching``.
        name: The method's name, which is also the name in metrics, spans and logs.
        idempotent: Doing it twice is the same as once, so it may be retried.
        waits: It may wait for something to come, such as a message, and so takes long where all is well.
        lasts: It takes as long as its arguments ask for, so the policy's deadline is not for it.
        needs: The capability a provider must have, or None for core operations.
        checks: Position, name and check of each argument that has one.
        now: The name of its immediate form, which a provider may have; None where it has none.
        immediate: This is the immediate form: the inner call gives its result at once, not an awaitable.
    """

    service: str
    name: str
    idempotent: bool
    waits: bool = False
    lasts: bool = False
    needs: Capability | None = None
    checks: tuple[tuple[int, str, Check], ...] = ()
    now: str | None = None
    immediate: bool = False


class Driver(Protocol):
    """What all drivers of all services have in common.

    A provider may also define ``classify(error) -> NooblyError | None``, which maps its client's exceptions.
    """

    scheme: str
    """The URL scheme it was opened by; the provider's name in metrics, logs and errors."""
    in_process: bool
    """Nothing leaves this process, so deadline, retry and limit have nothing to do."""
    limits: Limits


class Classifier(Protocol):
    """The part of a driver that knows its client's exceptions."""

    def classify(self, error: Exception) -> NooblyError | None:
        """Return the error to raise instead, or None when it is not known."""
        ...


class _Mark(msgspec.Struct, frozen=True):
    idempotent: bool
    waits: bool
    needs: Capability | None
    now: str | None


def operation(
    *, idempotent: bool, waits: bool = False, needs: Capability | None = None, now: str | None = None
) -> Callable[[Method], Method]:
    """Declare a method of a driver protocol as an operation.

    Args:
        idempotent: It may be sent again after a temporary error.
        waits: It may wait for something to come; calls of such operations take no places from others.
        needs: The capability that having this method means; None for an operation that every provider has.
        now: The name of its immediate form, for the hottest reads: a plain method that providers in this process may
            have besides. It takes one argument, which the portable type has checked, and when the call began on the
            environment's monotonic clock. A bound driver has None there if the provider has none, or a layer must wait.
    """

    def mark(method: Method) -> Method:
        setattr(method, MARK, _Mark(idempotent, waits, needs, now))
        return method

    return mark


@lru_cache(maxsize=64)
def operations(protocol: type) -> tuple[Operation, ...]:
    """Return the operations a driver protocol declares, in the order of their declaration.

    Args:
        protocol: The protocol class; its ``service`` attribute names the service.
    """
    found: dict[str, Operation] = {}
    for base in reversed(protocol.__mro__):
        for name, member in vars(base).items():
            mark = getattr(member, MARK, None)
            if isinstance(mark, _Mark):
                found[name] = Operation(
                    service=str(getattr(protocol, "service", "")),
                    name=name,
                    idempotent=mark.idempotent,
                    waits=mark.waits,
                    needs=mark.needs,
                    checks=tuple(_checks(member)),
                    now=mark.now,
                )
    return tuple(found.values())


def _checks(member: Callable[..., object]) -> Sequence[tuple[int, str, Check]]:
    hints = get_type_hints(member, include_extras=True)
    hints.pop("return", None)
    found: list[tuple[int, str, Check]] = []
    for position, (name, hint) in enumerate(hints.items()):
        if get_origin(hint) is Annotated:
            found += [(position, name, part) for part in get_args(hint)[1:] if hasattr(part, "compile")]
    return found


def capabilities(protocol: type, driver: Driver) -> frozenset[Capability]:
    """Return what a provider can do beyond the core: the methods it has, and the features it names.

    ``features`` are the capabilities that are arguments of core operations, and so show in no method.
    """
    by_method = frozenset(
        operation.needs
        for operation in operations(protocol)
        if operation.needs is not None and hasattr(driver, operation.name)
    )
    features: frozenset[Capability] = getattr(driver, "features", frozenset())
    return by_method | features
