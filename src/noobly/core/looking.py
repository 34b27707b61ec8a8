"""Gauges of what a store has under some names, such as queues: asked of it when somebody scrapes, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from noobly.core.errors import NooblyError

T = TypeVar("T")

__all__ = ["Looking"]

_TOGETHER = 16


class Looking(Generic[T]):
    """Asks for the first names of a store, in bounded number, and shows the answers.

    Args:
        names: Returns the names.
        ask: Returns what there is under one.
        show: Shows it.
        nothing: Makes what is shown of a name that is gone.
        most: Names that are asked for.
    """

    def __init__(
        self,
        names: Callable[[], Awaitable[list[str]]],
        ask: Callable[[str], Awaitable[T]],
        show: Callable[[T], None],
        *,
        nothing: Callable[[str], T],
        most: int,
    ) -> None:
        self._names, self._ask, self._show, self._nothing, self._most = names, ask, show, nothing, most
        self._shown: set[str] = set()
        self._places = asyncio.Semaphore(_TOGETHER)

    async def __call__(self) -> None:
        """Ask once.

        Raises:
            NooblyError: The store does not name what it has.
        """
        found = set(sorted(await self._names())[: self._most])
        for gone in self._shown - found:
            self._show(self._nothing(gone))
        self._shown = found
        async with asyncio.TaskGroup() as group:
            for name in found:
                group.create_task(self._one(name))

    async def _one(self, name: str) -> None:
        async with self._places:
            with suppress(NooblyError):  # What was shown of it stays.
                self._show(await self._ask(name))
