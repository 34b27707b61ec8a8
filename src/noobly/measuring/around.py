"""What measures around a body: a context manager that also decorates plain and async functions."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from functools import wraps
from time import perf_counter
from typing import ParamSpec, Self, TypeVar, cast

from noobly.core.errors import InvalidArgument

P = ParamSpec("P")
R = TypeVar("R")


class Around:
    """Base: entered before a body and left after it, however it ends; each use is one of its own."""

    @abstractmethod
    def _fresh(self) -> Self:
        """Return one for a single body."""

    @abstractmethod
    def __enter__(self) -> None: ...

    @abstractmethod
    def __exit__(self, *_exc: object) -> None: ...

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: each call is one body; an async function's lasts until it has returned.

        Raises:
            InvalidArgument: It is a generator, whose body runs only when somebody asks it to.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidArgument(f"{function.__qualname__} is a generator; use a with statement inside it")
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, R]", self._async(cast("Callable[P, Awaitable[object]]", function)))

        @wraps(function)
        def measured(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._fresh():
                return function(*args, **kwargs)

        return measured

    def _async(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @wraps(function)
        async def measured(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._fresh():
                return await function(*args, **kwargs)

        return measured


class Timing(Around):
    """Counts the seconds that a body takes."""

    def __init__(self, count: Callable[[float], None]) -> None:
        self._count = count
        self._began = 0.0

    def _fresh(self) -> Timing:
        return Timing(self._count)

    def __enter__(self) -> None:
        self._began = perf_counter()

    def __exit__(self, *_exc: object) -> None:
        self._count(perf_counter() - self._began)


class InProgress(Around):
    """Counts the bodies that are under way."""

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end

    def _fresh(self) -> InProgress:
        return self

    def __enter__(self) -> None:
        self._begin()

    def __exit__(self, *_exc: object) -> None:
        self._end()
