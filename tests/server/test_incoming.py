"""Reading requests: bodies in one piece or many, and headers by name."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from noobly.core.errors import InvalidArgument, TooLarge
from noobly.server.incoming import LIMIT, Incoming, body

Raw = list[tuple[bytes, bytes]]


class Sender:
    """Sends messages in turn, and knows how many were asked for."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._messages = iter(messages)
        self.asked = 0

    async def __call__(self) -> Message:
        self.asked += 1
        return next(self._messages)


def part(content: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


def request(sender: Sender, headers: Raw, limit: int = 100) -> Incoming:
    return Incoming({"type": "http", "headers": headers, LIMIT: limit}, sender)


def length(text: bytes) -> Raw:
    return [(b"content-length", text)]


END = part(b"", more=False)


@pytest.mark.parametrize(
    ("headers", "messages", "asked"),
    [
        (length(b"4"), [part(b"abcd"), END], 1),
        (length(b"4"), [part(b"ab"), part(b"cd"), END], 2),
        (length(b"4"), [part(b"abcd", more=False)], 1),
        ([], [part(b"ab"), part(b"cd"), END], 3),
        ([], [part(b"abcd", more=False)], 1),
    ],
)
async def test_no_more_is_asked_for_than_the_body_has(headers: Raw, messages: list[Message], asked: int) -> None:
    sender = Sender(messages)
    found = request(sender, headers)
    assert [await body(found), await body(found)] == [b"abcd", b"abcd"]
    assert sender.asked == asked


@pytest.mark.parametrize(("headers", "messages"), [(length(b"0"), []), ([], [END])])
async def test_an_empty_body(headers: Raw, messages: list[Message]) -> None:
    assert await body(request(Sender(messages), headers)) == b""


@pytest.mark.parametrize("messages", [[part(b"a" * 60), part(b"a" * 60), END], [part(b"a" * 101, more=False)]])
async def test_what_is_over_the_limit_is_not_read(messages: list[Message]) -> None:
    with pytest.raises(TooLarge, match="over 100 bytes"):
        await body(request(Sender(messages), []))
    sender = Sender(messages)
    with pytest.raises(TooLarge, match="has 101 bytes"):
        await body(request(sender, length(b"101")))
    assert sender.asked == 0


@pytest.mark.parametrize("text", [b"", b"-1", b"1.5", b"x", "²".encode("latin-1")])
async def test_a_length_that_is_none(text: bytes) -> None:
    with pytest.raises(InvalidArgument, match="content-length"):
        await body(request(Sender([]), length(text)))


async def test_a_caller_that_leaves() -> None:
    with pytest.raises(ClientDisconnect):
        await body(request(Sender([part(b"ab"), {"type": "http.disconnect"}]), length(b"4")))


def test_headers_by_name() -> None:
    headers = request(Sender([]), [(b"x-a", b"1"), (b"x-b", b"\xe4"), (b"x-a", b"2")]).headers
    assert [headers.get("x-a"), headers["X-A"], headers.getlist("x-a")] == ["1", "1", ["1", "2"]]
    assert [headers.get("X-B"), headers.get("x-c"), headers.get("x-c", "none")] == ["ä", None, "none"]
    assert "x-b" in headers
