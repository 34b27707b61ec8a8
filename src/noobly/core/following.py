"""What ties work to whoever has asked for it: the correlation id, and the trace (W3C Trace Context)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

import msgspec
from opentelemetry import context, trace
from opentelemetry.trace import Link, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from noobly.core.correlation import correlated, correlation_id, current
from noobly.core.failure import error_text, trace_text

_traces = TraceContextTextMapPropagator()
_PARENT = "traceparent"
_context = context.get_current
_NOBODY = ("", "")


class Spanned(msgspec.Struct, frozen=True):
    """The span of some work, where spans are recorded.

    Args:
        name: Its name.
        attributes: What it tells of the work.
    """

    name: str
    attributes: Mapping[str, str | int]


def bound() -> bool:
    """Return whether there may be anything that work could carry on; asked for each piece of it, so it is cheap."""
    return bool(current().correlation_id or _context())


def origin() -> tuple[str, str]:
    """Return the correlation id and the ``traceparent`` of who asks for work now, each empty where there is none."""
    if not bound():
        return _NOBODY
    carrier: dict[str, str] = {}
    _traces.inject(carrier)
    return correlation_id(), carrier.get(_PARENT, "")


def followed(identity: str, traceparent: str, spanned: Spanned | None) -> AbstractContextManager[object] | None:
    """Return the context to work in; None where it is the present one.

    Args:
        identity: The correlation id of who has asked for the work.
        traceparent: The trace that it was asked for in.
        spanned: The work's span, which is linked to that trace; where none is recorded, the trace itself goes on.
    """
    if traceparent or spanned is not None:
        return _following(identity, traceparent, spanned)
    return correlated(identity) if identity else None


@contextmanager
def _following(identity: str, traceparent: str, spanned: Spanned | None) -> Iterator[None]:
    asked = _traces.extract({_PARENT: traceparent}, context.Context())
    with ExitStack() as stack:
        if identity:
            stack.enter_context(correlated(identity))
        if spanned is not None:
            stack.enter_context(_span(spanned, asked))
        elif asked:
            stack.callback(context.detach, context.attach(asked))
        yield


@contextmanager
def _span(spanned: Spanned, asked: context.Context) -> Iterator[None]:
    found = trace.get_current_span(asked).get_span_context()
    with trace.get_tracer("noobly").start_as_current_span(
        spanned.name,
        kind=SpanKind.CONSUMER,
        attributes=spanned.attributes,
        links=[Link(found)] if found.is_valid else [],
        record_exception=False,
        set_status_on_exception=False,
    ):
        try:
            yield
        except Exception as error:
            failed(error)
            raise


def failed(error: BaseException) -> None:
    """Let the span of the work under way show that it has failed; nothing is raised, whatever the exception is."""
    span, text = trace.get_current_span(), error_text(error)
    kind = type(error)
    span.add_event(
        "exception",
        {
            "exception.type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
            "exception.message": text,
            "exception.stacktrace": trace_text(error),
        },
    )
    span.set_status(StatusCode.ERROR, text)
