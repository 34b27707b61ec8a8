"""Lifespans: what workers open before their first job and close after their last one, each worker for itself."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, Self, TypeVar

from noobly.core.errors import Closed, ConfigError
from noobly.core.failure import cause, error_text
from noobly.core.lifecycle import Tasks

_log = logging.getLogger("noobly.working")

_LAST = 10.0
"""Seconds that each lifespan has to end; then it is cancelled."""

_STUBBORN = 1.0
"""Seconds that it has once it was cancelled; then it is left behind."""

Declared = Callable[[], AsyncIterator[None]] | Callable[[], AbstractAsyncContextManager[None]]
D = TypeVar("D", bound=Declared)


class Lifespan(NamedTuple):
    """A lifespan as it is declared.

    Attributes:
        name: Where its function stands.
        function: The function.
    """

    name: str
    function: Declared

    def opened(self) -> AbstractAsyncContextManager[object]:
        """Return what is entered, for one worker."""
        made = self.function()
        return made if isinstance(made, AbstractAsyncContextManager) else asynccontextmanager(lambda: made)()

    def check(self, value: object) -> None:
        """Refuse what is yielded, for nobody would get it.

        Raises:
            ConfigError: It is something.
        """
        if value is not None:
            raise ConfigError(
                f"the lifespan {self.name} yields a {type(value).__name__}, which nobody gets; "
                "keep it where the tasks find it, as in a variable of their module"
            )


def declared(function: Declared) -> Lifespan:
    """Return a function as a lifespan.

    Raises:
        ConfigError: It is no async generator function, or wants arguments.
    """
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"
    if not inspect.isasyncgenfunction(inspect.unwrap(function)):
        raise ConfigError(
            f"the lifespan {name} is no async generator function: write `async def`, open, `yield` once, and close"
        )
    parameters = inspect.signature(function).parameters.values()
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if wanted := [one.name for one in parameters if one.default is one.empty and one.kind not in free]:
        raise ConfigError(f"the lifespan {name} wants {wanted[0]!r}; a lifespan is called without arguments")
    return Lifespan(name, function)


class Living:
    """The lifespans of one worker: entered in order, and left in reverse.

    Args:
        spans: What was declared.
    """

    def __init__(self, spans: Sequence[Lifespan]) -> None:
        self._spans = spans
        self._lives: list[_Life] = []

    async def __aenter__(self) -> Self:
        try:
            for span in self._spans:
                life = _Life(span)
                self._lives.append(life)
                await life.enter()
        except BaseException:  # Nobody calls ``__aexit__`` then.
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave all, also where the worker is cancelled meanwhile."""
        if self._lives:
            await Tasks().complete(self._leave(), "lifespans")

    async def sound(self) -> None:
        """Wait for ever; raises what a lifespan ended of, for a worker must not go on without what it had opened."""
        if self._lives:
            await asyncio.wait([life.task for life in self._lives], return_when=asyncio.FIRST_COMPLETED)
            raise next(life for life in self._lives if life.task.done()).failure()

    async def _leave(self) -> None:
        for life in reversed(self._lives):
            await life.leave()


class _Life:
    """One lifespan in one worker.

    It has a task of its own, so that it is left in the task that has entered it, as task groups want it, and that one
    which hangs can be left behind. It is always left without an error, so that what stands behind ``yield`` runs.
    """

    def __init__(self, span: Lifespan) -> None:
        loop = asyncio.get_running_loop()
        self._span = span
        self._entered: asyncio.Future[None] = loop.create_future()
        self._leaving = asyncio.Event()
        self._error: BaseException | None = None
        self._told = False
        self.task = loop.create_task(self._live(), name=f"lifespan {span.name}")

    async def _live(self) -> None:
        try:
            async with self._span.opened() as value:
                self._span.check(value)
                self._entered.set_result(None)
                await self._leaving.wait()
        except BaseException as error:  # noqa: BLE001 - a lifespan is anybody's code, and its error is for the worker
            self._error = error

    async def enter(self) -> None:
        """Wait until it is entered.

        Raises:
            Exception: What it raises.
        """
        await asyncio.wait([self.task, self._entered], return_when=asyncio.FIRST_COMPLETED)
        if not self._entered.done():
            raise self.failure()

    def failure(self) -> Exception:
        """Return the error of one that has ended too early; it counts as told then."""
        self._told = True
        if isinstance(self._error, Exception):
            return self._error
        how = f": {error_text(self._error)}" if self._error is not None else ""
        failure = Closed(f"the lifespan {self._span.name} has ended before its worker{how}")
        failure.__cause__ = self._error
        return failure

    async def leave(self) -> None:
        """End it: wait for that, cancel it where that takes too long or it has not begun, and say what went wrong."""
        self._leaving.set()
        if not self._entered.done():
            self.task.cancel()
        if await self._over(_LAST):
            if isinstance(self._error, Exception) and not self._told:
                text = error_text(self._error)
                _log.error("the lifespan %s failed at its end: %s", self._span.name, text, exc_info=cause(self._error))
            return
        _log.error("the lifespan %s does not end within %g s, and is cancelled", self._span.name, _LAST)
        self.task.cancel()
        if not await self._over(_STUBBORN):
            _log.error("the lifespan %s does not end when cancelled either, and is left behind", self._span.name)

    async def _over(self, within: float) -> bool:
        await asyncio.wait([self.task], timeout=within)
        return self.task.done()
