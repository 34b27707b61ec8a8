"""What ties the work on a message to its sending; see ``noobly.core.following``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TypeVar

from noobly.core import following
from noobly.core.following import Spanned
from noobly.queueing.messages import Delivery

T = TypeVar("T")


def followed(delivery: Delivery[T], *, traced: bool) -> AbstractContextManager[object] | None:
    """Return the context to work on a message in; None where it is the present one.

    Args:
        delivery: The message.
        traced: Spans are recorded, so the work gets one, linked to the span it was sent in.
    """
    return following.followed(delivery.correlation_id, delivery.traceparent, _span(delivery) if traced else None)


def _span(delivery: Delivery[T]) -> Spanned:
    about = {"messaging.destination.name": delivery.queue, "messaging.message.id": delivery.id}
    return Spanned("queueing.process", about)
