"""What ties together all that one request does: its correlation id, bound attributes, and a ring of DEBUG records.

It lives in a context variable, so it follows ``await``, tasks and ``asyncio.to_thread``; a thread or an executor of
one's own gets it by ``carried``. Traces are OpenTelemetry's own business (``opentelemetry.context``).
"""

from __future__ import annotations

import contextvars
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import ParamSpec, TypeVar

import msgspec

from noobly.core.clock import fresh_id

HEADER = "x-request-id"
"""The header that carries a correlation id into and out of a process."""

P = ParamSpec("P")
R = TypeVar("R")
I = TypeVar("I")  # noqa: E741 - what a ring keeps

_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NOTHING: Mapping[str, object] = MappingProxyType({})


class Ring:
    """The latest records of one request that were too detailed to keep; they come out only if the request fails.

    Args:
        most: How many it holds; the oldest leave first.
    """

    __slots__ = ("_kept",)

    def __init__(self, most: int) -> None:
        self._kept: deque[Callable[[], None]] = deque(maxlen=most)

    def keep(self, emit: Callable[[I], None], item: I) -> None:
        """Hold an item that ``emit`` would take."""
        self._kept.append(lambda: emit(item))

    def release(self) -> None:
        """Emit what is held, oldest first."""
        while self._kept:
            self._kept.popleft()()


class Context(msgspec.Struct, frozen=True):
    """What is known of the request under way.

    Args:
        correlation_id: Its id; empty outside of requests.
        attributes: What belongs on each of its records.
        ring: Where its DEBUG records wait, if they do.
    """

    correlation_id: str = ""
    attributes: Mapping[str, object] = _NOTHING
    ring: Ring | None = None


_OUTSIDE = Context()
_CURRENT: ContextVar[Context] = ContextVar("noobly_context", default=_OUTSIDE)

current = _CURRENT.get
"""Return the context of the request under way."""


def correlation_id() -> str:
    """Return the correlation id of the request under way; empty outside of requests."""
    return current().correlation_id


def accepted(given: str) -> str:
    """Return an id that a caller gave, if it is plain and short enough for headers and logs, or a new one."""
    return given if given and _PLAIN_ID.fullmatch(given) else fresh_id()


class correlated:  # noqa: N801 - read as a verb in ``with correlated(…)``; a generator costs each request a microsecond
    """Begin a context of its own for one request; the former one comes back at the end.

    Args:
        identity: The correlation id; one that is not plain is replaced by a new one.
        ring: Where DEBUG records wait.
    """

    __slots__ = ("_context", "_token")

    def __init__(self, identity: str, *, ring: Ring | None = None) -> None:
        self._context = Context(accepted(identity), current().attributes, ring)

    def __enter__(self) -> Context:
        self._token = _CURRENT.set(self._context)
        return self._context

    def __exit__(self, *_: object) -> None:
        _CURRENT.reset(self._token)


@contextmanager
def bind(**attributes: object) -> Iterator[None]:
    """Put attributes on every record made in the body of a ``with``; inner ones win over outer ones."""
    before = current()
    merged = MappingProxyType({**before.attributes, **attributes})
    token = _CURRENT.set(Context(before.correlation_id, merged, before.ring))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with the present context bound to it, for threads and executors of one's own."""
    context = contextvars.copy_context()

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # A copy per call, for a context cannot be entered twice at once.
        return context.copy().run(function, *args, **kwargs)

    return call
