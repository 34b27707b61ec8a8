"""What ties the work on a message to its sending: the correlation id, and the trace (W3C Trace Context)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

from opentelemetry import context, trace
from opentelemetry.trace import Link, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from noobly.core.correlation import correlated, correlation_id, current
from noobly.queueing.messages import Delivery

T = TypeVar("T")

_traces = TraceContextTextMapPropagator()
_PARENT = "traceparent"
_context = context.get_current


def bound() -> bool:
    """Return whether there may be anything that a message could carry on; asked for each message, so it is cheap."""
    return bool(current().correlation_id or _context())


def origin() -> tuple[str, str]:
    """Return the correlation id and the ``traceparent`` of who sends now, each empty where there is none."""
    carrier: dict[str, str] = {}
    _traces.inject(carrier)
    return correlation_id(), carrier.get(_PARENT, "")


def followed(delivery: Delivery[T], *, traced: bool) -> AbstractContextManager[None] | None:
    """Return the context to work on a message in; None where it is the present one.

    Args:
        delivery: The message.
        traced: Spans are recorded, so the work gets one, linked to the span it was sent in.
    """
    if delivery.correlation_id or delivery.traceparent or traced:
        return _following(delivery, traced=traced)
    return None


@contextmanager
def _following(delivery: Delivery[T], *, traced: bool) -> Iterator[None]:
    sender = _traces.extract({_PARENT: delivery.traceparent}, context.Context())
    with ExitStack() as stack:
        if delivery.correlation_id:
            stack.enter_context(correlated(delivery.correlation_id))
        if traced:
            stack.enter_context(_span(delivery, sender))
        elif sender:
            stack.callback(context.detach, context.attach(sender))
        yield


def _span(delivery: Delivery[T], sender: context.Context) -> AbstractContextManager[object]:
    found = trace.get_current_span(sender).get_span_context()
    return trace.get_tracer("noobly").start_as_current_span(
        "queueing.process",
        kind=SpanKind.CONSUMER,
        attributes={"messaging.destination.name": delivery.queue, "messaging.message.id": delivery.id},
        links=[Link(found)] if found.is_valid else [],
    )
