"""The ``@cache.cached("user:{id}")`` decorator."""

from __future__ import annotations

import asyncio
import functools
import inspect
import string
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, Protocol, TypeVar, cast, get_type_hints, overload
from urllib.parse import quote

from noobly.core.errors import InvalidArgument

P = ParamSpec("P")
R = TypeVar("R")

_PLAIN = frozenset(string.ascii_letters + string.digits + "_.-~%")
"""What percent-encoded text may hold (RFC 3986, 2.3), so that it cannot part two arguments."""

Compute = Callable[[str, Callable[[], Awaitable[object]], type[object]], Awaitable[object]]


class Cached(Protocol):
    """The decorator: an async function stays one, a plain one becomes async and runs in a thread."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Callable[P, Awaitable[R]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, Awaitable[R]]: ...


def decorate(template: str, compute: Compute) -> Cached:
    """Return a decorator that keeps a function's results under keys made from its arguments.

    Args:
        template: The key, with arguments' names in braces. Values are percent-encoded and parted by
            another character, so that argument lists that read differently give different keys.
        compute: Looks the key up, or runs the function; gets the type the function is annotated to return.

    Raises:
        InvalidArgument: On decorating: the template names something that is not an argument, or has two arguments
            that nothing parts.
    """

    def decorator(function: Callable[P, object]) -> Callable[P, Awaitable[object]]:
        signature = inspect.signature(function)
        fields, returns = _fields(template, signature), _returns(function)
        names, ordinary = list(signature.parameters), _ordinary(signature)

        @functools.wraps(function)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> object:
            given = (
                dict(zip(names, args, strict=True))
                if ordinary and not kwargs and len(args) == len(names)
                else _bind(signature, args, kwargs)
            )
            key = template.format_map({name: _text(given[name]) for name in fields})
            return await compute(key, functools.partial(_call, function, *args, **kwargs), returns)

        return wrapper

    return cast(Cached, decorator)


async def _call(function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> object:
    if inspect.iscoroutinefunction(function):
        return await cast(Callable[P, Awaitable[object]], function)(*args, **kwargs)
    return await asyncio.to_thread(_in_thread, functools.partial(function, *args, **kwargs))


def _in_thread(call: Callable[[], object]) -> object:
    try:
        return call()
    except StopIteration as error:
        # A future cannot carry this one, and whoever awaits it would wait for ever.
        raise RuntimeError("a cached function raised StopIteration") from error


def _ordinary(signature: inspect.Signature) -> bool:
    """Return whether all arguments may be given by position alone, so that a plain call needs no binding."""
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return all(parameter.kind in plain for parameter in signature.parameters.values())


def _bind(signature: inspect.Signature, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _text(value: object) -> str:
    text = str(value)
    return text if text.isalnum() and text.isascii() else quote(text, safe="")


def _returns(function: Callable[P, object]) -> type[object]:
    """Return the annotated type of a function's result; object where there is none, or it cannot be told."""
    try:
        hint = get_type_hints(function).get("return", object)
    except NameError:
        return object  # An annotation names what is only imported for type checkers.
    return cast("type[object]", object if hint is Any else hint)


def _fields(template: str, signature: inspect.Signature) -> list[str]:
    names: list[str] = []
    for literal, name, spec, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if name not in signature.parameters or spec or conversion:
            known = ", ".join(signature.parameters) or "none"
            raise InvalidArgument(f"the key template {template!r} names {name!r}; the arguments are {known}")
        if names and _PLAIN.issuperset(literal):
            raise InvalidArgument(
                f"the key template {template!r} needs a colon or the like before {{{name}}}, "
                "so that no two argument lists give the same key"
            )
        names.append(name)
    return names
