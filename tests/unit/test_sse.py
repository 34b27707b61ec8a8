"""Server-sent events are read the same, whatever pieces they arrive in and however their lines end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noobly.clients.sse import Parser, ServerEvent

STREAM = (
    b": a comment\nretry: 1500\ndata: one\n\nevent: other\nid: 7\ndata:two\ndata:  three\n\n"
    b"event: nothing\n\nretry: soon\nunknown\ndata\n\ndata: cut off"
)
EVENTS = [
    ServerEvent("message", b"one", 1500),
    ServerEvent("other", b"two\n three", 1500),
    ServerEvent("message", b"", 1500),
]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@given(cuts=st.lists(st.integers(0, len(STREAM) + 20), max_size=8))
def test_pieces_and_line_ends_do_not_matter(ending: bytes, cuts: list[int]) -> None:
    stream, parser = STREAM.replace(b"\n", ending), Parser()
    places = [0, *sorted(cuts), len(stream)]
    found = [event for start, end in pairwise(places) for event in parser.feed(stream[start:end])]
    assert found == EVENTS
