"""Which lines a query means: the quick way over bytes agrees with the plain one over records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noobly.core.errors import InvalidArgument
from noobly.logging.driver import Query
from noobly.logging.query import condition, micros, pairs, rfc3339
from noobly.logging.record import Level, Record
from noobly.testing.logging.driver import BEGIN

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = TEXT | st.integers(-5, 5) | st.booleans() | st.sampled_from([0.0, 1.0, 1.5])
TIMES = st.integers(BEGIN - 5, BEGIN + 5)
NAMES = st.sampled_from(["a", "b", "a.b", "logger", "a.b.c"])
LEVELS = st.sampled_from(list(Level))
ATTRIBUTES = st.recursive(SCALARS, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6)
QUERIES = st.builds(
    Query,
    since=st.none() | TIMES,
    until=st.none() | TIMES,
    severity=st.integers(0, 22),
    level=st.sampled_from(["", "", "info", "warn"]),
    text=TEXT,
    attributes=st.dictionaries(NAMES, SCALARS, max_size=2),
)


def plain(query: Query, at: int, record: Record) -> bool:
    """Say the same in the plainest way."""
    return (
        (query.since is None or at >= query.since)
        and (query.until is None or at < query.until)
        and record.severity_number >= query.severity
        and query.level in ("", record.level)
        and query.text.casefold() in record.message.casefold()
        and all(has(record, name, value) for name, value in query.attributes.items())
    )


def has(record: Record, name: str, value: object) -> bool:
    own = [record.logger] if name == "logger" else []
    return any(found == value and alike(found, value) for found in [*own, *reach(record, name)])


def alike(one: object, other: object) -> bool:
    return isinstance(one, bool) == isinstance(other, bool)


def reach(record: Record, name: str) -> list[object]:
    """Return whatever any way of cutting the name at its dots leads to."""
    ways = [([], name.split("."))]
    leads: list[object] = []
    for path, rest in ways:
        if not rest:
            here: object = record.attributes
            for key in path:
                here = here.get(key, leads) if isinstance(here, dict) else leads
            if here is not leads:
                leads.append(here)
        ways += [([*path, ".".join(rest[:cut])], rest[cut:]) for cut in range(1, len(rest) + 1)]
    return leads


@given(QUERIES, TIMES, TEXT, LEVELS, TEXT, st.dictionaries(NAMES, ATTRIBUTES, max_size=3))
def test_a_query_means_what_it_says(
    query: Query, at: int, text: str, level: Level, logger: str, attributes: dict[str, object]
) -> None:
    given_names = {"message": text, "logger": logger, "attributes": attributes}
    named = Record(timestamp=rfc3339(at), level=level.name.lower(), severity_number=level, **given_names)
    data = msgspec.json.encode(named)
    record = msgspec.json.decode(data, type=Record)
    seen = condition(query)(data)
    assert (seen is not None) == plain(query, at, record)
    if seen is not None:
        assert (seen.at, seen.severity, seen.level) == (at, level, level.name.lower())


@given(st.binary(max_size=200), QUERIES)
def test_what_is_no_record_is_never_meant(data: bytes, query: Query) -> None:
    assert condition(query)(data) is None
    assert condition(query)(b'{"timestamp":"' + data) is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_moments_go_there_and_back(moment: datetime) -> None:
    at = micros(moment)
    assert datetime.fromisoformat(rfc3339(at)) == moment
    assert len(rfc3339(at)) == 27


def test_moments_at_the_edge() -> None:
    assert rfc3339(10**20) == "9999-12-31T23:59:59.999999Z"
    assert rfc3339(-(10**20)) == "0001-01-01T00:00:00.000000Z"
    assert micros(datetime.fromisoformat("1970-01-01")) == 0
    assert micros(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=7)) == 7


def test_other_spellings_of_time_are_read_too() -> None:
    written = b'{"level":"info","timestamp":"2026-01-01T01:00:00+01:00","severity_number":9,"message":"m"}'
    at = micros(datetime(2026, 1, 1, tzinfo=UTC))
    assert condition(Query(since=at, until=at + 1))(written) is not None
    assert condition(Query(until=at))(written) is None


def test_attributes_given_as_text() -> None:
    assert pairs(["a=7", "b=x", 'c="7"', "d=true", "g=1.5"]) == {"a": 7, "b": "x", "c": "7", "d": True, "g": 1.5}
    assert pairs(["e=", "f=x=y", "h=null", "i={}"]) == {"e": "", "f": "x=y", "h": "null", "i": "{}"}
    for wrong in ("a", "=a", ""):
        with pytest.raises(InvalidArgument, match="name=value"):
            pairs([wrong])
