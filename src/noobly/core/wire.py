"""How arguments and answers of public methods travel over HTTP; used by the server and by the remote client alike.

JSON is the default. msgpack (``application/msgpack``) keeps bytes inside values; a value that is bytes also travels raw
(``application/octet-stream``). User strings travel in the query or in the body, never in the path.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import NoneType
from typing import NamedTuple, cast, get_args
from urllib.parse import parse_qsl, urlencode

import msgspec

from noobly.core.clock import Seconds, pause
from noobly.core.errors import Internal, InvalidArgument
from noobly.core.public import Param, Route

JSON = "application/json"
MSGPACK = "application/msgpack"
RAW = "application/octet-stream"
STREAM = "text/event-stream"

_SHOWN = 100
"""Characters of a wrong name that are shown."""
_UNKNOWN = re.compile("unknown field `(.+?)`", re.DOTALL)


class Outgoing(NamedTuple):
    """A call on its way: the query as text, and the body with its type where there is one."""

    query: str
    body: bytes | None
    content_type: str


def outgoing(route: Route, arguments: Mapping[str, object]) -> Outgoing:
    """Return a call ready to be sent.

    Raises:
        InvalidArgument: An argument has the wrong type or cannot be carried.
    """
    sent = {
        param.name: _checked(route, param, arguments[param.name]) for param in route.params if param.name in arguments
    }
    try:
        if route.body is not None:
            body, kind = _packed(sent.pop(route.body))
            return Outgoing(_query(sent), body, kind)
        if route.verb == "POST":
            return Outgoing("", *_packed(sent))
        return Outgoing(_query(sent), None, "")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidArgument(f"{route.name}: an argument cannot be sent: {error}") from error


def _packed(value: object) -> tuple[bytes, str]:
    """Return a value as msgpack, or as JSON where a whole number in it is past the 64 bits of msgpack."""
    try:
        return msgspec.msgpack.encode(value), MSGPACK
    except OverflowError:
        return msgspec.json.encode(value), JSON


def _checked(route: Route, param: Param, value: object) -> object:
    if param.duration:  # Whether it may be 0 is for the method to say, where it is called.
        return None if value is None else pause(cast(Seconds, value), param.name)
    if param.anything:
        return value
    try:
        return msgspec.convert(value, param.type)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{route.name}: {param.name}: {_told(str(error), param.type)}") from error


def _told(message: str, wanted: object) -> str:
    """Return what is wrong with an argument, with the nearest field where one is unknown."""
    unknown = _UNKNOWN.search(message)
    if unknown is None:
        return message
    fields = [name for part in (wanted, *get_args(wanted)) for name in getattr(part, "__struct_fields__", ())]
    near = difflib.get_close_matches(unknown[1], fields, 1)
    told = message.replace(unknown[1], unknown[1][:_SHOWN])
    return f"{told}; did you mean {near[0]}?" if near else told


def _query(arguments: Mapping[str, object]) -> str:
    pairs: list[tuple[str, str]] = []
    for name, value in arguments.items():
        members = value if isinstance(value, list) else [value]
        pairs += [(name, _text(member)) for member in members if member is not None]
    return urlencode(pairs)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return _text(value.value)
    return value if isinstance(value, str) else repr(value)


def query_of(sent: bytes) -> list[tuple[str, str]]:
    """Return the names and texts of a query.

    Raises:
        InvalidArgument: It is not UTF-8; nothing of it may become another text.
    """
    try:
        return parse_qsl(sent.decode(), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise InvalidArgument(f"the query is not percent-encoded UTF-8: {error}") from error


def incoming(route: Route, query: Sequence[tuple[str, str]], body: bytes, content_type: str) -> dict[str, object]:
    """Return the arguments that a request carries.

    Raises:
        InvalidArgument: One is missing, unknown, given twice or of the wrong type, or the body cannot be read.
    """
    carried: dict[str, object] = _from_query(route, query)
    if route.body is not None:
        carried[route.body] = decode_body(body, content_type)
    elif route.verb == "POST" and body:
        carried |= _from_body(route, decode_body(body, content_type))
    for param in route.params:
        if param.required and param.name not in carried:
            raise InvalidArgument(f"{route.name} needs {param.name}")
    return carried


def _from_query(route: Route, query: Iterable[tuple[str, str]]) -> dict[str, object]:
    known = {param.name: param for param in route.params if param.name != route.body}
    found: dict[str, list[str]] = {}
    for name, text in query:
        if name not in known:
            raise InvalidArgument(
                f"{route.name} has no argument {name[:_SHOWN]!r}; it takes {', '.join(known) or 'none'}"
            )
        found.setdefault(name, []).append(text)
    return {name: _converted(route, known[name], texts) for name, texts in found.items()}


def _converted(route: Route, param: Param, texts: list[str]) -> object:
    if not param.many and len(texts) > 1:
        raise InvalidArgument(f"{route.name}: {param.name} is given {len(texts)} times")
    try:
        return msgspec.convert(texts if param.many else texts[0], param.type, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{route.name}: {param.name}: {error}") from error


def _from_body(route: Route, body: object) -> dict[str, object]:
    if not isinstance(body, dict):
        raise InvalidArgument(f"{route.name} takes an object with its arguments as the body")
    known = {param.name: param for param in route.params}
    carried: dict[str, object] = {}
    for name, value in body.items():
        if name not in known:
            raise InvalidArgument(f"{route.name} has no argument {name!r:.100}; it takes {', '.join(known)}")
        carried[name] = _checked(route, known[name], value)
    return carried


def decode_body(body: bytes, content_type: str) -> object:
    """Return what a body holds; a type that is neither JSON nor msgpack is raw bytes.

    Raises:
        InvalidArgument: It is not what its type says.
    """
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind in (JSON, "") or kind.endswith("+json"):
            return msgspec.json.decode(body)
        return msgspec.msgpack.decode(body) if kind == MSGPACK else body
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"the body is not {kind or JSON}: {error}") from error


def encode_result(result: object, accept: str) -> tuple[bytes, str]:
    """Return an answer's body and its content type: raw bytes as they are, else what the caller accepts.

    Raises:
        Internal: The answer cannot be written, as where it is nested too deep.
    """
    try:
        if MSGPACK in accept:
            return _packed(result)
        if isinstance(result, bytes):
            return result, RAW
        return msgspec.json.encode(result), JSON
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Internal(f"the answer cannot be written: {type(error).__name__}: {error}") from error


def decode_result(route: Route, body: bytes, content_type: str, type: object) -> object:
    """Return the answer that a body holds, as the route's or the caller's type.

    Raises:
        InvalidArgument: The value is not of the caller's type.
        Internal: The answer cannot be read.
    """
    if route.returns is NoneType:
        return None
    try:
        if content_type.startswith(MSGPACK):
            return msgspec.msgpack.decode(body, type=type)
        if content_type.startswith(JSON):
            return msgspec.json.decode(body, type=type)
        return msgspec.convert(body, type)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{route.name}: the answer is not of the type asked for: {error}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Internal(f"{route.name}: the server's answer cannot be read: {error}") from error
