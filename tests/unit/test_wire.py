"""Arguments and answers over the wire: whatever one side sends, the other side reads."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noobly.caching import Cache
from noobly.core.errors import Internal, InvalidArgument
from noobly.core.public import routes
from noobly.core.wire import JSON, MSGPACK, RAW, decode_result, encode_result, incoming, outgoing

ROUTES = {route.name: route for route in routes(Cache)}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def travel(name: str, arguments: dict[str, object]) -> dict[str, object]:
    route = ROUTES[name]
    call = outgoing(route, arguments)
    return incoming(route, parse_qsl(call.query, keep_blank_values=True), call.body or b"", call.content_type)


@given(key=TEXT, value=VALUES, ttl=st.none() | st.floats(0.001, 1e9), tags=st.lists(TEXT, max_size=3))
def test_a_put_arrives_as_it_was_sent(key: str, value: object, ttl: float | None, tags: list[str]) -> None:
    sent = {"key": key, "value": value, "ttl": ttl, "tags": tags}
    expected = {name: given for name, given in sent.items() if given not in (None, []) or name == "value"}
    assert travel("put", sent) == expected


@given(entries=st.dictionaries(TEXT, VALUES, max_size=4))
def test_a_body_of_arguments_arrives_as_it_was_sent(entries: dict[str, object]) -> None:
    assert travel("put_many", {"entries": entries, "ttl": None}) == {"entries": entries, "ttl": None}


@given(VALUES)
def test_answers_arrive_as_they_were_given(value: object) -> None:
    body, kind = encode_result(value, MSGPACK)
    assert decode_result(ROUTES["get"], body, kind, object) == value


def test_lengths_of_time_travel_as_seconds() -> None:
    assert travel("put", {"key": "k", "value": 1, "ttl": timedelta(minutes=2)})["ttl"] == 120.0
    assert travel("touch", {"key": "k", "ttl": timedelta(minutes=2)})["ttl"] == 120.0


@pytest.mark.parametrize("key", [5, None, b"k", ["k"], "\ud800"])
def test_wrong_types_are_refused_before_they_are_sent(key: object) -> None:
    with pytest.raises(InvalidArgument):
        outgoing(ROUTES["get"], {"key": key})


def test_a_value_that_cannot_be_carried_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="cannot be sent"):
        outgoing(ROUTES["put"], {"key": "k", "value": object()})


@given(st.binary(max_size=40), st.sampled_from([JSON, MSGPACK, RAW, "text/plain", "", "application/vnd.x+json"]))
def test_any_body_is_read_or_refused(body: bytes, kind: str) -> None:
    try:
        arguments = incoming(ROUTES["put"], [("key", "k")], body, kind)
    except InvalidArgument:
        return
    assert arguments.keys() == {"key", "value"}


def test_answers_of_the_wrong_type_and_damaged_ones_are_told_apart() -> None:
    with pytest.raises(InvalidArgument, match="not of the type"):
        decode_result(ROUTES["get"], b'"x"', JSON, int)
    with pytest.raises(Internal, match="cannot be read"):
        decode_result(ROUTES["get"], b"{", JSON, object)
    assert decode_result(ROUTES["get"], b"raw", RAW, object) == b"raw"
    assert decode_result(ROUTES["put"], b"", "", object) is None


def test_every_public_method_is_a_route_with_a_docstring() -> None:
    assert {"get", "put", "lookup", "invalidate", "claim", "fulfil", "acquire"} <= ROUTES.keys()
    assert all(route.doc for route in ROUTES.values())
    assert len({(route.verb, route.path) for route in ROUTES.values()}) == len(ROUTES)
    assert ROUTES["get"].absent == "default"
    assert [param.name for param in ROUTES["get"].params] == ["key"]


@pytest.mark.parametrize("accept", ["", MSGPACK])
def test_an_answer_that_cannot_be_written_is_our_fault(accept: str) -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(Internal, match="the answer cannot be written: RecursionError"):
        encode_result(deep, accept)
