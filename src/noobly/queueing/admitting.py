"""From deliveries of any type to those of a wanted one; what is of another goes to the dead letters."""

from __future__ import annotations

import logging
from typing import Protocol, TypeVar, cast

import msgspec

from noobly.core.codec import converted
from noobly.core.errors import NooblyError
from noobly.queueing.messages import Delivery, Value

T = TypeVar("T")

_log = logging.getLogger("noobly.queueing")


class Rejects(Protocol):
    """The method that refusing is made of."""

    async def reject(self, queue: str, receipt: str, *, reason: str = "") -> None: ...


def admitted(delivery: Delivery[Value], type: type[T]) -> Delivery[T]:
    """Return a delivery whose message is of a type.

    Raises:
        InvalidArgument: It is not.
    """
    value = converted(delivery.value, type, f"message {delivery.id} of queue {delivery.queue!r}")
    if value is delivery.value:
        return cast("Delivery[T]", delivery)
    return cast("Delivery[T]", msgspec.structs.replace(delivery, value=value))


async def refused(queues: Rejects, delivery: Delivery[Value], reason: str) -> None:
    """Put a message among the dead letters; where that fails, its lease ends and it comes again."""
    try:
        await queues.reject(delivery.queue, delivery.receipt, reason=reason)
    except NooblyError as error:
        _log.warning("%s; it could not be put among the dead letters, and comes again: %s", reason, error)
