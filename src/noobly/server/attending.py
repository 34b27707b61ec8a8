"""Calls that wait for something: they end when their client leaves, so that nothing is handed to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from noobly.core.errors import NooblyError, RateLimited, Unavailable
from noobly.core.journal import Journal
from noobly.core.waiting import ENDING, SLICE, Ending

T = TypeVar("T")

RETRY_SECONDS = 2.0
"""When a client should come again after the server was shut down."""
LAST_SECONDS = SLICE + 1.0
"""How long calls go on once the server ends: those that wait in slices have returned what there is by then."""

_LOG = Journal("noobly.server")


def ending() -> NooblyError:
    """Return the error for what a server's end cuts off."""
    return Unavailable("the server is shutting down", retry_after=RETRY_SECONDS)


class Attendance:
    """The calls of one server that wait for something to come, or take long.

    Args:
        most: How many there may be at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._ending = Ending()
        self._leaving: set[asyncio.Future[None]] = set()

    @property
    def waiting(self) -> int:
        """How many calls there are."""
        return len(self._leaving)

    async def attend(
        self, call: Callable[[], Awaitable[T]], receive: Receive, undo: Callable[[T], Awaitable[None]]
    ) -> T:
        """Return what a call returns; cancel it when its client leaves, and undo what it has then done all the same.

        Args:
            call: Begins the call.
            receive: Where the request comes from; its body has been read.
            undo: Takes back what the call returned, which reaches nobody.

        Raises:
            ClientDisconnect: The client has left.
            RateLimited: Too many calls wait.
            Unavailable: The server ends, and the call did not end by itself.
        """
        if self.waiting >= self.most:
            raise RateLimited(
                f"{self.most} calls wait at this server, which is the most; come again later", retry_after=1
            )
        working, leaving = self._begun(call), asyncio.ensure_future(left(receive))
        self._leaving.add(leaving)
        handed = False
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            handed = working.done() and (leaving.cancelled() or not leaving.done())
        finally:
            self._leaving.discard(leaving)
            late = leaving.cancelled()
            for future in (working, leaving):
                future.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)
            if not handed:
                await _undone(working, undo)
        if handed:
            return working.result()
        raise ending() if late else ClientDisconnect

    def drain(self) -> None:
        """Let calls that wait return what there is, and end the others soon."""
        if not self._ending.begun:
            self._ending.begun = True
            asyncio.get_running_loop().call_later(LAST_SECONDS, self._cut)

    def _cut(self) -> None:
        for leaving in self._leaving:
            leaving.cancel()

    def _begun(self, call: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        token = ENDING.set(self._ending)
        try:
            return asyncio.ensure_future(call())
        finally:
            ENDING.reset(token)


async def _undone(working: asyncio.Future[T], undo: Callable[[T], Awaitable[None]]) -> None:
    """Take back what a call returned, if it did; where that fails, leases end by themselves."""
    if working.cancelled() or working.exception() is not None:
        return
    try:
        await undo(working.result())
    except NooblyError as error:
        _LOG.warning("what a client left behind could not be taken back", cause=error)


async def left(receive: Receive) -> None:
    """Return when the client of a request has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
