"""Connections to one memcached server over aiomcache, safe against cancelled calls and broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import aiomcache
from aiomcache.pool import Connection

T = TypeVar("T")
R = TypeVar("R")


class Client(aiomcache.Client):
    """One connection. The library's own pool is not used by more than one call at a time."""

    async def _execute_simple_command(self, conn: Connection, raw_command: bytes) -> bytes:
        # The library's loop never ends, and never lets go of the event loop, once the server has closed the
        # connection (aiomcache issue 502).
        conn.writer.write(raw_command)
        await conn.writer.drain()
        return (await conn.reader.readuntil(b"\r\n"))[:-2]


class Connections:
    """Lends each call a connection of its own, and closes one whose call did not end well.

    The library's pool would keep the connection of a cancelled call, whose answer the next call would read, and would
    leave those who wait for a connection waiting for ever when it breaks.

    Args:
        host: The server.
        port: Its port.
        most: Connections at once.
    """

    def __init__(self, host: str, port: int, most: int) -> None:
        self._host = host
        self._port = port
        self._most = most
        self._places = asyncio.Semaphore(most)
        self._idle: list[Client] = []
        self._closed = False

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Client]:
        """Lend a connection for the body, waiting for one where all are lent."""
        async with self._places:
            client = self._idle.pop() if self._idle else Client(self._host, self._port, pool_size=1)
            try:
                yield client
            except BaseException:
                await client.close()
                raise
            self._idle.append(client)
            if self._closed:
                await self.close()

    async def close(self) -> None:
        """Close all connections; one that is lent is closed when it comes back."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    async def each(self, work: Callable[[Client, T], Awaitable[R]], items: Sequence[T]) -> list[R]:
        """Do some work for each item, on several connections side by side; the first error ends it."""
        width = min(self._most, len(items))
        if width <= 1:
            return await self._in_turn(work, items)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._in_turn(work, items[first::width])) for first in range(width)]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [tasks[position % width].result()[position // width] for position in range(len(items))]

    async def _in_turn(self, work: Callable[[Client, T], Awaitable[R]], items: Sequence[T]) -> list[R]:
        async with self.lend() as client:
            return [await work(client, item) for item in items]
