"""The answers and errors of the legacy API."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from noobly.core.codec import UNREADABLE
from noobly.core.errors import InvalidArgument, NooblyError, Unauthenticated
from noobly.server.answers import Answer
from noobly.server.auth import MissingKey
from noobly.server.incoming import body
from noobly.server.problems import headers
from noobly.server.routes import Access, Endpoint, Handler, Open

PREFIX = "/services/"
"""What the paths of the legacy API begin with."""

BODY_LIMIT = 100 * 1024
"""Bytes of a JSON body that the original takes."""


_BOM = b"\xef\xbb\xbf"


class _Refusal(msgspec.Struct, frozen=True):
    error: str
    message: str
    code: str


def endpoint(
    service: str, method: str, name: str, access: Access | Open, handler: Handler, *, segments: int = 0
) -> Endpoint:
    """Return an endpoint of the legacy API: ``/services/<service>/api/<name>`` and so many segments of user text."""
    return Endpoint(
        method=method,
        path=f"{PREFIX}{service}/api/{name}",
        access=access,
        handler=handler,
        name=f"legacy.{service}.{name}",
        segments=segments,
        folded=True,
        render=refused,
        body_limit=BODY_LIMIT,
    )


def iso(at: float) -> str:
    """Return seconds since the epoch as the original writes times: ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ok() -> Response:
    """Return the plain success of the original: ``OK`` as HTML text."""
    return Answer(b"OK", "text/html")


def json(value: object) -> Response:
    """Return a value as JSON; a missing one is ``null``."""
    return Answer(msgspec.json.encode(value), "application/json")


def refused(error: NooblyError, request_id: str) -> Response:
    """Return an error in the original's shape: JSON for missing keys, plain text for all else."""
    if isinstance(error, Unauthenticated):
        code = "MISSING_API_KEY" if isinstance(error, MissingKey) else "INVALID_API_KEY"
        content = msgspec.json.encode(_Refusal("Unauthorized", error.message, code))
        return Response(content, error.status, headers(error), "application/json")
    text = f"Bad Request: {error.message}" if error.status == 400 else error.message
    return Response(text, error.status, headers(error), "text/plain")


async def json_body(request: Request) -> dict[str, object] | list[object]:
    """Return the JSON object or array a request carries; any other type, or no body, counts as an empty object.

    Raises:
        InvalidArgument: It is not JSON, or neither an object nor an array.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return {}
    content = (await body(request)).removeprefix(_BOM)
    if not content:
        return {}
    try:
        value = msgspec.json.decode(content)
    except UNREADABLE as error:
        raise InvalidArgument(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict | list):
        raise InvalidArgument("the body must be a JSON object or array")
    return value
