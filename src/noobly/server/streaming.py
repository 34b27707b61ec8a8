"""Streams as server-sent events: what a public method yields, as it comes, to readers that may be slow or leave.

Items are events without a name, their data is JSON. ``skipped`` tells a slow reader how many items it missed, ``error``
carries a problem document, ``end`` says that there is no more. A server that shuts down ends its streams with a hint
when to come again (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import cast

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from noobly.core.clock import Clock
from noobly.core.errors import Internal, NooblyError
from noobly.core.journal import Journal
from noobly.core.streams import Buffer, Skipped
from noobly.core.wire import STREAM
from noobly.server.attending import ending, left
from noobly.server.problems import problem

_LOG = Journal("noobly.server")
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
_HEARTBEAT = b": \n\n"
_END = b"event: end\ndata: {}\n\n"


class Streams:
    """Makes the streams of one server, and ends them when it is told to end.

    Args:
        clock: Where time is read.
        heartbeat: Seconds of silence after which a reader gets a comment, and after which its key is looked at again.
        buffered: Items that may wait for one reader.
    """

    def __init__(self, clock: Clock, *, heartbeat: float, buffered: int) -> None:
        self.clock = clock
        self.heartbeat = heartbeat
        self.buffered = buffered
        self._open: set[EventStream] = set()
        self._draining = False

    @property
    def readers(self) -> int:
        """How many streams are open."""
        return len(self._open)

    async def begin(self, items: AsyncGenerator[object], admit: Callable[[], None], identity: str) -> EventStream:
        """Return the answer that sends these items.

        Args:
            items: What a public method yields; it is closed when the stream ends.
            admit: Raises once the reader may read no longer.
            identity: The request's id, for problem documents.

        Raises:
            NooblyError: The method refused its arguments.
        """
        stream = EventStream(self, items, admit, identity)
        self._open.add(stream)
        stream.begin()
        try:
            # The generator's first step has run when this goes on, and with it all that it checks before it waits.
            await asyncio.sleep(0)
            stream.refuse()
        except BaseException:
            await stream.close()
            raise
        if self._draining:
            stream.drain()
        return stream

    def forget(self, stream: EventStream) -> None:
        """Count a stream no longer."""
        self._open.discard(stream)

    def drain(self) -> None:
        """End all streams, and those that still begin."""
        self._draining = True
        for stream in self._open:
            stream.drain()


class EventStream(Response):
    """One stream to one reader."""

    def __init__(
        self, streams: Streams, items: AsyncGenerator[object], admit: Callable[[], None], identity: str
    ) -> None:
        super().__init__(headers=_HEADERS, media_type=STREAM)
        del self.headers["content-length"]
        self.buffer = Buffer[object](streams.buffered)
        self._streams = streams
        self._items = items
        self._admit = admit
        self._identity = identity
        self._filling: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin to read the items."""
        self._filling = asyncio.get_running_loop().create_task(self._fill(), name="noobly-stream")

    def refuse(self) -> None:
        """Raise what the method refused its arguments with, if it did."""
        if self.buffer.error is not None and self.buffer.finished:
            raise self.buffer.error

    def drain(self) -> None:
        """Send what waits, then end."""
        self.buffer.end(ending())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until there is no more, the reader leaves, or it may read no longer."""
        loop = asyncio.get_running_loop()
        sending, leaving = loop.create_task(self._send(send)), loop.create_task(left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Stop reading the items, and free what reading them took."""
        self._streams.forget(self)
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)

    async def _fill(self) -> None:
        try:
            async for item in self._items:
                self.buffer.put(item)
            self.buffer.end()
        except NooblyError as error:
            self.buffer.end(error)
        except Exception as error:  # noqa: BLE001 - the last resort: it is logged, and shows nothing of itself
            _LOG.error("stream failed", cause=error, request_id=self._identity)
            failure = Internal("the server failed; its log says more under this request id")
            failure.__cause__ = error
            self.buffer.end(failure)
        finally:
            await self._items.aclose()

    async def _send(self, send: Send) -> None:
        headers = [(name, value) for name, value in self.raw_headers]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": _HEARTBEAT, "more_body": True})
        checked = self._streams.clock.monotonic()
        while not self.buffer.finished:
            taken = await self._take()
            if self._streams.clock.monotonic() - checked >= self._streams.heartbeat:
                checked = self._streams.clock.monotonic()
                self._check()
            body = b"".join(map(_event, taken)) or _HEARTBEAT
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": self._last(), "more_body": False})

    async def _take(self) -> list[object]:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._streams.heartbeat):
                return await self.buffer.take()
        return []

    def _check(self) -> None:
        try:
            self._admit()
        except NooblyError as error:
            self.buffer.end(error)

    def _last(self) -> bytes:
        error = cast("NooblyError | None", self.buffer.error)
        if error is None:
            return _END
        retry = b"" if error.retry_after is None else b"retry: %d\n" % round(error.retry_after * 1000)
        return b"%sevent: error\ndata: %s\n\n" % (retry, bytes(problem(error, self._identity).body))


def _event(item: object) -> bytes:
    name = b"event: skipped\n" if isinstance(item, Skipped) else b""
    return b"%sdata: %s\n\n" % (name, msgspec.json.encode(item))
