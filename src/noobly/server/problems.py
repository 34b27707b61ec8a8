"""Errors as HTTP answers: problem details (RFC 9457) on the native API, the old shapes on the legacy one."""

from __future__ import annotations

import math

import msgspec
from starlette.responses import Response

from noobly.core.errors import NooblyError, Unauthenticated


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document.

    Args:
        type: Names the kind of problem; ``about:blank`` means that the status says it all (RFC 9457, 4.2.1).
        title: The kind in words.
        status: The HTTP status.
        code: The stable code of the error tree.
        detail: What happened and what to do.
        operation: The operation that failed, as ``service.name``.
        temporary: Trying again may help.
        request_id: The id of the request, to be found in logs.
    """

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    operation: str = ""
    temporary: bool = False
    request_id: str = ""


def problem(error: NooblyError, request_id: str, *, status: int | None = None) -> Response:
    """Return an error as a problem document; ``status`` where HTTP knows a better one than the tree."""
    chosen = status or error.status
    document = ProblemDetails(
        title=error.code.replace("_", " ").capitalize(),
        status=chosen,
        code=error.code,
        detail=error.message,
        operation=f"{error.service}.{error.operation}" if error.operation else "",
        temporary=error.temporary,
        request_id=request_id,
    )
    return Response(msgspec.json.encode(document), chosen, headers(error), "application/problem+json")


def headers(error: NooblyError) -> dict[str, str]:
    """Return the headers that belong to an error (RFC 9110, 10.2.3 and 11.6.1)."""
    found: dict[str, str] = {}
    if error.retry_after is not None:
        found["retry-after"] = str(math.ceil(error.retry_after))
    if isinstance(error, Unauthenticated):
        found["www-authenticate"] = 'Bearer realm="noobly"'
    return found
