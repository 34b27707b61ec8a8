"""Spans: what a tracing program sees of each operation, for the observe layer."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from noobly.core.operation import Call, Operation
from noobly.core.scope import Scope


def tracing() -> bool:
    """Return whether the program has set a tracer provider, so that each operation is to have a span."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def traced(operation: Operation, scope: Scope, inner: Call) -> Call:
    """Return the call in a span of its own."""
    tracer = trace.get_tracer("noobly")
    name = f"{scope.service}.{operation.name}"
    attributes = {"noobly.instance": scope.instance, "noobly.provider": scope.provider}

    async def spanned(*args: object) -> object:
        with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes):
            return await inner(*args)

    return spanned
