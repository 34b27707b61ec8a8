"""Streams of items as they happen: bounded buffers between who makes them and who reads them.

Nobody waits for a slow reader: what does not fit into its buffer is skipped, and the reader is told how much.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Skipped(msgspec.Struct, frozen=True):
    """So many items are missing here, for the reader was too slow for them."""

    count: int


class Buffer(Generic[T]):
    """Items on their way to one reader, on one event loop.

    Args:
        most: Items that may wait; what comes while it is full is skipped.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: deque[T | Skipped] = deque()
        self._skipped = 0
        self._ended = False
        self._error: Exception | None = None
        self._ready = asyncio.Event()

    @property
    def finished(self) -> bool:
        """Whether it has ended and everything was taken."""
        return self._ended and not self._items and not self._skipped

    @property
    def error(self) -> Exception | None:
        """What it ended with."""
        return self._error

    def put(self, item: T | Skipped) -> None:
        """Add an item, or count it as skipped; what was skipped before it came here counts with it."""
        if self._ended:
            return
        if isinstance(item, Skipped) or len(self._items) >= self._most:
            self._skipped += item.count if isinstance(item, Skipped) else 1
            self._ready.set()
            return
        if self._skipped:
            self._items.append(Skipped(self._skipped))
            self._skipped = 0
        self._items.append(item)
        self._ready.set()

    def end(self, error: Exception | None = None) -> None:
        """Take nothing more; what waits may still be taken."""
        if not self._ended:
            self._ended, self._error = True, error
            self._ready.set()

    async def take(self) -> list[T | Skipped]:
        """Wait for items and return all there are; none once it has ended."""
        await self._ready.wait()
        taken = list(self._items)
        self._items.clear()
        if self._skipped:
            taken.append(Skipped(self._skipped))
            self._skipped = 0
        if not self._ended:
            self._ready.clear()
        return taken


class Feed(Generic[T]):
    """Hands items to everybody who reads at that moment; belongs to one event loop.

    Args:
        most: Items that may wait for one reader.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._readers: dict[Buffer[T], Callable[[T], bool]] = {}

    @property
    def readers(self) -> int:
        """How many read now; while there are none, ``publish`` need not be called."""
        return len(self._readers)

    def publish(self, item: T) -> None:
        """Give an item to all readers that want it; returns at once."""
        for buffer, wanted in self._readers.items():
            if wanted(item):
                buffer.put(item)

    async def read(self, wanted: Callable[[T], bool]) -> AsyncGenerator[T | Skipped]:
        """Yield items from now on until the feed ends; a reader that stops must close the generator.

        Args:
            wanted: Says whether the reader wants an item; a plain, quick function.
        """
        buffer = Buffer[T](self._most)
        self._readers[buffer] = wanted
        try:
            while not buffer.finished:
                for item in await buffer.take():
                    yield item
        finally:
            self._readers.pop(buffer, None)

    def close(self) -> None:
        """End it for all readers, after what waits for them."""
        for buffer in self._readers:
            buffer.end()
