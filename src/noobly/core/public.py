"""The declaration of a public method: the one source of its HTTP route, OpenAPI, permission and remote client."""

from __future__ import annotations

import inspect
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import (
    Annotated,
    Any,
    Literal,
    Required,
    TypedDict,
    TypeVar,
    Union,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)
from weakref import WeakKeyDictionary

import msgspec

from noobly.core.streams import Skipped

Verb = Literal["GET", "PUT", "POST", "DELETE"]
Method = TypeVar("Method", bound=Callable[..., Awaitable[object]])
Stream = TypeVar("Stream", bound=Callable[..., AsyncIterator[object]])
Marked = TypeVar("Marked", bound=Callable[..., object])

MARK = "__noobly_public__"


_ROUTES: WeakKeyDictionary[type, tuple[Route, ...]] = WeakKeyDictionary()


class Param(msgspec.Struct, frozen=True, kw_only=True):
    """One argument of a public method, as it travels.

    Args:
        name: Its name, the same in Python, query and JSON.
        type: Its type on the wire; lengths of time are float seconds.
        required: It has no default.
        many: It is a list, repeated in a query.
        duration: It is a length of time.
        anything: It is a value of any type, which only the codec checks.
    """

    name: str
    type: object
    required: bool
    many: bool
    duration: bool
    anything: bool


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One public method, as HTTP, OpenAPI and the remote client see it.

    Args:
        name: The method's name.
        verb: The HTTP method. GET, PUT and DELETE are idempotent.
        path: Its path below the instance; user strings never stand in it.
        permission: ``read``, ``write`` or ``admin`` within the service.
        body: The argument that is the request's body; without it a POST carries all arguments as one JSON object.
        absent: The argument whose value means "nothing there": the answer is then 404, and the remote client
            returns its caller's value of that argument.
        idempotent: It may be repeated.
        fails_open: Makes what the remote client returns where the server cannot be reached; None raises.
        params: What travels; arguments that only matter to the caller, such as ``type``, do not.
        returns: The type of the answer; of a stream, the type of its items.
        doc: The method's docstring.
        streams: It is an async iterator, whose items travel one by one as server-sent events.
        waits: It waits for something, and takes it in hand; it is cancelled when its caller leaves.
        lasts: It takes as long as its arguments ask for; it is cancelled when its caller leaves.
        undo: The method that takes back what it returned, where that reaches nobody.
    """

    name: str
    verb: Verb
    path: str
    permission: str
    body: str | None
    absent: str | None
    idempotent: bool
    fails_open: Callable[[], object] | None
    params: tuple[Param, ...]
    returns: object
    doc: str
    streams: bool = False
    waits: bool = False
    lasts: bool = False
    undo: str | None = None


class _Mark(msgspec.Struct, frozen=True, kw_only=True):
    verb: Verb
    path: str
    permission: str
    idempotent: bool
    body: str | None = None
    absent: str | None = None
    fails_open: Callable[[], object] | None = None
    local: tuple[str, ...] = ()
    streams: bool = False
    waits: bool = False
    lasts: bool = False
    undo: str | None = None


class Declared(TypedDict, total=False):
    """What is declared of a public method.

    Args:
        permission: What a caller must be allowed within the service.
        body: The argument that becomes the body.
        absent: The argument that stands for "nothing there".
        idempotent: Overrides what the verb says.
        fails_open: Makes the answer of a remote instance whose server cannot be reached: for reads that a store
            which is down answers too. With ``absent``, the caller's own value is that answer.
        local: Arguments that stay with the caller.
        waits: It waits for something and takes it in hand, so the server cancels it when its caller leaves.
        lasts: It takes as long as its arguments ask for; the server cancels it likewise, and the remote client waits.
        undo: The name of the method that takes back what this one returned: the server calls it with the result that
            reaches nobody, for its caller has left.
    """

    permission: Required[Literal["read", "write", "admin"]]
    body: str
    absent: str
    idempotent: bool
    fails_open: Callable[[], object]
    local: tuple[str, ...]
    waits: bool
    lasts: bool
    undo: str


def public(verb: Verb, path: str, **declared: Unpack[Declared]) -> Callable[[Method], Method]:
    """Declare a method of a portable type as public.

    Args:
        verb: The HTTP method.
        path: The path below ``/v1/{service}/{instance}/``.
        **declared: See ``Declared``.
    """
    declared.setdefault("idempotent", verb != "POST")
    if "absent" in declared:
        declared["local"] = (*declared.get("local", ()), declared["absent"])
    return _marking(_Mark(verb=verb, path=path, **declared))


def public_stream(
    verb: Literal["GET", "POST"], path: str, *, permission: Literal["read", "write", "admin"]
) -> Callable[[Stream], Stream]:
    """Declare an async generator method of a portable type as public; its items travel as they come.

    Wrong arguments must be refused before the first ``await``, so that the caller gets an error and not a stream. The
    method is closed when its reader leaves. Where the annotation allows ``Skipped``, a reader who is too slow gets it
    in place of what it missed.

    Args:
        verb: The HTTP method; POST where the arguments do not fit into a query.
        path: The path below ``/v1/{service}/{instance}/``.
        permission: What a caller must be allowed within the service.
    """
    return _marking(_Mark(verb=verb, path=path, permission=permission, idempotent=True, streams=True))


def _marking(declared: _Mark) -> Callable[[Marked], Marked]:
    def mark(method: Marked) -> Marked:
        setattr(method, MARK, declared)
        return method

    return mark


def routes(portable: type) -> tuple[Route, ...]:
    """Return the public methods of a portable type in the order of their declaration."""
    if portable not in _ROUTES:
        _ROUTES[portable] = _read(portable)
    return _ROUTES[portable]


def _read(portable: type) -> tuple[Route, ...]:
    found: dict[str, Route] = {}
    for base in reversed(portable.__mro__):
        for name, member in vars(base).items():
            mark = getattr(member, MARK, None)
            if isinstance(mark, _Mark):
                found[name] = _route(name, member, mark)
    return tuple(found.values())


def _route(name: str, member: Callable[..., object], mark: _Mark) -> Route:
    hints = get_type_hints(member, include_extras=True)
    signature = inspect.signature(member)
    params = [
        _param(argument, hints[argument.name])
        for argument in list(signature.parameters.values())[1:]
        if argument.name not in mark.local
    ]
    return Route(
        name=name,
        verb=mark.verb,
        path=mark.path,
        permission=mark.permission,
        body=mark.body,
        absent=mark.absent,
        idempotent=mark.idempotent,
        fails_open=mark.fails_open,
        params=tuple(params),
        returns=_items(hints["return"]) if mark.streams else hints.get("return", None),
        doc=inspect.getdoc(member) or "",
        streams=mark.streams,
        waits=mark.waits,
        lasts=mark.lasts,
        undo=mark.undo,
    )


def _items(hint: object) -> object:
    """Return the type of a stream's items, without the notices that travel in another way."""
    (item,) = get_args(hint)
    kept = tuple(part for part in get_args(item) if part is not Skipped)
    return Union[kept] if Skipped in get_args(item) else item  # noqa: UP007 - the members are only known at run time


def _param(argument: inspect.Parameter, hint: object) -> Param:
    wire = wire_type(hint)
    return Param(
        name=argument.name,
        type=wire,
        required=argument.default is inspect.Parameter.empty,
        many=get_origin(wire) is list,
        duration=timedelta in get_args(hint),
        anything=wire is Any or Any in get_args(wire),
    )


def wire_type(hint: object) -> object:
    """Return the type that travels for an argument's type: no timedelta, and lists for sequences."""
    origin = get_origin(hint)
    if origin is Annotated:
        return wire_type(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        kept = tuple(wire_type(part) for part in get_args(hint) if part is not timedelta)
        return Union[kept]  # noqa: UP007 - the members are only known at run time
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return types.GenericAlias(list, get_args(hint))
    return hint
