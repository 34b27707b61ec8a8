"""Reading server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.6)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from noobly.core.errors import Internal

_LONGEST = 64 * 1024 * 1024


class ServerEvent(msgspec.Struct, frozen=True):
    """One event.

    Args:
        name: Its type; ``message`` where the server names none.
        data: What it carries.
        retry: Milliseconds after which the server wants to be asked again, where it has said so.
    """

    name: str
    data: bytes
    retry: int | None = None


class Parser:
    """Takes a stream apart into events, whatever pieces it arrives in."""

    def __init__(self) -> None:
        self.retry: int | None = None
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """Return the events that this piece completes.

        Raises:
            Internal: A line has over 64 MiB.
        """
        text = (self._rest + piece).replace(b"\r\n", b"\n")
        held = text.endswith(b"\r")  # Its line feed may be in the next piece.
        lines = (text[:-1] if held else text).replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + (b"\r" if held else b"")
        if len(self._rest) > _LONGEST:
            raise Internal(f"the server sent an event of over {_LONGEST} bytes")
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode(errors="replace")
        elif field == b"retry" and value.isdigit():
            self.retry = int(value)
        return None

    def _dispatch(self) -> ServerEvent | None:
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return ServerEvent(name, b"\n".join(data), self.retry) if data else None


async def events(pieces: AsyncIterator[bytes], parser: Parser) -> AsyncGenerator[ServerEvent]:
    """Yield the events of a stream that arrives in pieces."""
    async for piece in pieces:
        for event in parser.feed(piece):
            yield event
