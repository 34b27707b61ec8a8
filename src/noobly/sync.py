"""The blocking facade, generated from the async API: the same names, arguments, docs and errors, without ``await``.

::

    with SyncNoobly.open() as noobly:
        noobly.caching.put("user:1", {"name": "Ada"}, ttl=60)

Where a program has no block to put it in, such as a Flask application, ``contextlib.ExitStack`` holds it open::

    stack = ExitStack()
    noobly = stack.enter_context(SyncNoobly.open())
    atexit.register(stack.close)

All calls run on one event loop in a thread that the facade owns; any number of threads may call. Coroutines become
functions, async iterators iterators, async context managers context managers, also in what is handed out, such as typed
queues and handles of jobs. Functions that are handed in may be plain ones: they run in worker threads with the caller's
context variables, and may use the facade themselves.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, get_args, get_origin, get_type_hints

from noobly.app import Noobly
from noobly.core.clock import Seconds
from noobly.core.lifecycle import Handle, Portable
from noobly.core.scope import Environment
from noobly.layers.health import Health
from noobly.logging.parting import parting
from noobly.loop_thread import LoopThread, protected, threaded
from noobly.settings import Settings

__all__ = ["Blocking", "SyncNoobly"]

A = ParamSpec("A")
R = TypeVar("R")


class SyncNoobly:
    """An application's services for code without an event loop: ``noobly.caching`` is the default cache.

    Attributes:
        aio: The async application, for ``call``.
        services: The default instance of each service, by the service's name.
    """

    def __init__(self, aio: Noobly, thread: LoopThread) -> None:
        self.aio = aio
        self._thread = thread
        self.services: Mapping[str, Blocking] = {
            name: _blocking(portable, thread) for name, portable in aio.services.items()
        }

    @classmethod
    @contextmanager
    def open(
        cls,
        config: str | Path | None = None,
        *,
        settings: Settings | None = None,
        environment: Environment | None = None,
    ) -> Iterator[Self]:
        """Open all services for the body of a ``with``; see ``Noobly.open``.

        After a fork the child process must open its own.

        Raises:
            InvalidArgument: It is called inside a running event loop.
        """
        with parting(), LoopThread() as thread:
            opening = Noobly.open(config, settings=settings, environment=environment)
            with thread.hold(opening) as aio:
                yield cls(aio, thread)

    def call(self, function: Callable[A, Awaitable[R]], *args: A.args, **kwargs: A.kwargs) -> R:
        """Run an async function on the facade's loop: ``noobly.call(noobly.aio.caching.put, "k", 1)`` keeps its types.

        Raises:
            InvalidArgument: It is called inside a running event loop.
            Closed: The facade is closed, or was opened by another process.
        """
        return self._thread.run(function, *args, **kwargs)

    def health(self, *, within: Seconds = 2.0) -> tuple[Health, ...]:
        """Check all instances at once; see ``Noobly.health``."""
        return self.call(self.aio.health, within=within)

    @property
    def settings(self) -> Settings:
        """What it was opened with."""
        return self.aio.settings

    @property
    def environment(self) -> Environment:
        """The clock, events and metrics that all services share."""
        return self.aio.environment

    def __getattr__(self, name: str) -> Blocking:
        services: Mapping[str, Blocking] = self.__dict__.get("services", {})
        if name not in services:
            raise AttributeError(f"{type(self).__name__} has no service or attribute {name!r}")
        return services[name]


class _Plain:
    """Stands for an object of the async API; its methods are generated."""

    def __init__(self, aio: Portable | Handle, thread: LoopThread) -> None:
        self._aio = aio
        self._thread = thread

    # The methods are generated; ``SyncNoobly.call`` is there for those who want their types.
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or (isinstance(self._aio, Portable) and name not in vars(self._aio)):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self._aio, name)


class Blocking(_Plain):
    """One instance of a service, blocking; the methods are those of the async type."""

    _aio: Portable

    def __getitem__(self, instance: str) -> Self:
        """Return the sibling with this name: ``noobly.caching["sessions"]``.

        Raises:
            NotFound: No instance of this service has the name.
        """
        return type(self)(self._aio[instance], self._thread)

    @property
    def siblings(self) -> dict[str, Self]:
        """All instances of this service by name, this one included."""
        return {name: self[name] for name in self._aio.siblings}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._aio.scope.instance!r}>"


class _BlockingHandle(_Plain):
    """What an instance handed out, blocking; its attributes are those of the async object."""

    def __repr__(self) -> str:
        return f"<blocking {self._aio!r}>"


def _blocking(aio: Portable, thread: LoopThread) -> Blocking:
    kind: type = type(aio)
    made: Blocking = _plain_type(kind, Blocking)(aio, thread)
    return made


def _handed(value: object, thread: LoopThread) -> object:
    """Return a result; what has async methods itself gets plain ones."""
    if not isinstance(value, Handle):
        return value
    kind: type = type(value)
    return _plain_type(kind, _BlockingHandle)(value, thread)


@functools.cache
def _plain_type(kind: type, base: type[_Plain]) -> Any:
    members: dict[str, object] = {"__doc__": kind.__doc__}
    for name, member in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_"):
            members[name] = _method(name, member)
    if issubclass(kind, Handle) and issubclass(kind, AsyncIterator):
        members |= {"__iter__": lambda self: self, "__next__": _next}
    if issubclass(kind, Handle) and issubclass(kind, AbstractAsyncContextManager):
        members |= {"__enter__": _enter, "__exit__": _exit}
    return type(f"Sync{kind.__name__}", (base,), members)


def _next(self: Any) -> object:
    for item in self._thread.run(_following, self._aio):
        return _handed(item, self._thread)
    raise StopIteration


def _enter(self: Any) -> object:
    self._held = self._thread.hold(self._aio)
    value = self._held.__enter__()
    return self if value is self._aio else _handed(value, self._thread)


def _exit(
    self: Any, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
) -> object:
    return self._held.__exit__(kind, error, traceback)


def _method(name: str, original: Callable[..., object]) -> Callable[..., object]:
    plain = not inspect.iscoroutinefunction(original)
    factories = _factories(original)
    order = list(inspect.signature(original).parameters)[1:]

    @functools.wraps(original)
    def method(self: _Plain, *args: object, **kwargs: object) -> object:
        if factories:
            args = tuple(
                threaded(value) if name in factories else value for name, value in zip(order, args, strict=False)
            )
            kwargs = {name: threaded(value) if name in factories else value for name, value in kwargs.items()}
        call = getattr(self._aio, name)
        if plain:
            return _adapted(self._thread.run(_made, functools.partial(call, *args, **kwargs)), self._thread)
        return _handed(self._thread.run(call, *args, **kwargs), self._thread)

    return method


async def _made(function: Callable[[], R]) -> R:
    return function()


def _factories(function: Callable[..., object]) -> frozenset[str]:
    """Return the parameters that take functions whose result is awaited."""
    return frozenset(name for name, hint in get_type_hints(function).items() if name != "return" and _awaited(hint))


def _awaited(hint: object) -> bool:
    parts = get_args(hint)
    if get_origin(hint) is Callable:
        return any(get_origin(part) is Awaitable for part in (parts[-1], *get_args(parts[-1])))
    return any(_awaited(part) for part in parts)


def _adapted(made: object, thread: LoopThread) -> object:
    if isinstance(made, Handle):
        return _handed(made, thread)
    if isinstance(made, AbstractAsyncContextManager):
        return thread.hold(made)
    if isinstance(made, AsyncIterator):
        return _Items(made, thread)
    return _decorator(made, thread) if inspect.isfunction(made) else made


class _Items(Iterator[R]):
    """What an async iterator yields; one that is given up is closed by the event loop's own hooks."""

    def __init__(self, source: AsyncIterator[R], thread: LoopThread) -> None:
        self._source = source
        self._thread = thread

    def __next__(self) -> R:
        for item in self._thread.run(_following, self._source):
            return item
        raise StopIteration


async def _following(source: AsyncIterator[R]) -> tuple[R, ...]:
    try:
        return (await anext(source),)
    except StopAsyncIteration:
        return ()


def _decorator(decorate: Callable[..., Callable[..., Awaitable[object]]], thread: LoopThread) -> Callable[..., object]:
    def decorator(function: Callable[..., object]) -> Callable[..., object]:
        decorated = decorate(protected(function))

        @functools.wraps(function)
        def call(*args: object, **kwargs: object) -> object:
            return thread.run(decorated, *args, **kwargs)

        return call

    return decorator
