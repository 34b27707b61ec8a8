"""What the BullMQ provider makes of names, options and patterns, without a server."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import pytest

from noobly.working.driver import Hold, State

pytest.importorskip("bullmq")

from hypothesis import example, given
from hypothesis import strategies as st

from noobly.working.providers._bullmq_jobs import record
from noobly.working.providers._bullmq_names import escaped, held, hold, known, stored, unescaped
from noobly.working.providers._bullmq_options import ending, metadata
from noobly.working.providers._bullmq_scheduling import _after, _next, _Repeat, follow
from noobly.working.providers._bullmq_scripts import BullQueue

NAMES = st.text(st.sampled_from("%:0235Aab"), min_size=1, max_size=12) | st.text(min_size=1, max_size=40)
RAW = NAMES | st.integers(0).map(str) | st.from_regex(r"repeat:[^\n]{1,9}:[0-9]{13}", fullmatch=True)


class TestNames:
    @given(NAMES)
    @example("sale-50%")
    @example("50%3A")
    def test_each_name_has_an_escaped_form_of_its_own(self, name):
        assert ":" not in escaped(name)
        assert unescaped(escaped(name)) == name

    @given(NAMES.filter(lambda name: ":" not in name))
    @example("sale-50%")
    @example("%25253A")
    def test_each_name_without_colons_is_the_form_of_one(self, name):
        assert escaped(unescaped(name)) == name

    @given(NAMES)
    @example("2")
    @example("wait")
    @example("%00")
    @example("%2500")
    @example("%3A")
    def test_an_id_is_known_by_what_it_was_added_with(self, id):
        raw = stored(id)
        assert ":" not in raw
        assert not (raw.isascii() and raw.isdecimal())
        assert known(raw) == id
        assert held(Hold(id, "token")) == (raw, "token")

    @given(RAW)
    @example("2")
    @example("a:b:c")
    @example("sale-50%")
    @example("repeat:every %3A:1700000000000")
    @example("%002")
    def test_a_claim_of_a_job_of_node_finds_it_again(self, raw):
        assert held(hold(raw, "token")) == (raw, "token")

    @pytest.mark.parametrize("raw", ["2", "sale-50%", "repeat:s:1700000000000", "a:b:c", "plain"])
    def test_ids_of_node_stay_as_they_are(self, raw):
        assert known(raw) == raw


def fields(**options):
    return {b"name": b"task", b"timestamp": b"1000", b"opts": json.dumps(options).encode()}


class TestOptions:
    @pytest.mark.parametrize(
        ("backoff", "expected"),
        [
            ({"type": "exponential", "delay": 60_000}, (60, 1e9, 0, False)),
            ({"type": "exponential", "delay": 1000, "jitter": 0.5}, (1, 1e9, 0.5, False)),
            ({"type": "fixed", "delay": 1000, "jitter": 1}, (1, 1e9, 1, True)),
            (1500, (1.5, 1.5, 0, True)),
            (None, (0, 0, 0, True)),
        ],
    )
    def test_pauses_are_those_of_node(self, backoff, expected):
        retrying = record("q", "1", fields(attempts=5, backoff=backoff), b"waiting").retrying
        assert (retrying.base, retrying.cap, retrying.jitter, retrying.fixed) == expected

    def test_an_own_pause_has_its_longest(self):
        options = fields(attempts=2, backoff={"type": "exponential", "delay": 1000}, noobly={"cap": 5})
        assert record("q", "1", options, b"waiting").retrying.cap == 5

    def test_a_way_of_pausing_that_only_node_knows(self, caplog):
        with caplog.at_level(logging.WARNING, "noobly.working"):
            for _ in range(3):
                retrying = record("q", "1", fields(backoff={"type": "of my own", "delay": 9}), b"waiting").retrying
                assert (retrying.base, retrying.fixed) == (1, False)
        assert ["of my own" in entry.getMessage() for entry in caplog.records] == [True]

    @pytest.mark.parametrize(
        ("removing", "expected"),
        [
            (None, {"count": -1}),
            (False, {"count": -1}),
            (True, {"count": 0}),
            (5, {"count": 5}),
            ({"age": 60, "limit": 9}, {"age": 60, "limit": 9}),
        ],
    )
    def test_what_is_kept(self, removing, expected):
        found = ending(fields(removeOnComplete=removing, removeOnFail=removing))
        for keep in (found.completed, found.failed):
            assert {
                name: value for name in ("count", "age", "limit") if (value := getattr(keep, name)) is not None
            } == (expected)

    @pytest.mark.parametrize(("most", "kept"), [(0, []), (1, ["new"]), (2, ["b", "new"]), (9, ["a", "b", "new"])])
    def test_errors_are_kept_as_many_as_the_job_says(self, most, kept):
        found = ending({**fields(stackTraceLimit=most), b"stacktrace": b'["a","b"]'})
        assert json.loads(found.traced("new")) == kept

    def test_errors_that_are_none(self):
        assert json.loads(ending({**fields(), b"stacktrace": b"nonsense"}).traced("new")) == ["new"]

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            (metadata("00-a-b-01"), "00-a-b-01"),
            ('{"tracestate": "a=b", "traceparent": "00-a-b-01", "baggage": "c=d"}', "00-a-b-01"),
            ('{"baggage": "c=d"}', ""),
            ('{"traceparent": 5}', ""),
            ("of my own", ""),
            ({"traceparent": "00-a-b-01"}, ""),
            (7, ""),
            (None, ""),
        ],
    )
    def test_what_telemetry_writes(self, written, expected):
        job = record("q", "1", fields(tm=written, attempts=3), b"waiting")
        assert (job.traceparent, job.retrying.attempts) == (expected, 3)

    def test_an_ending_counts_for_the_run_that_had_it(self):
        ended = {**fields(), b"noobly": b"cancelled:5", b"finishedOn": b"5"}
        assert record("q", "1", ended, b"failed").state is State.CANCELLED
        assert record("q", "1", {**ended, b"finishedOn": b"6"}, b"failed").state is State.FAILED


def milliseconds(*date):
    return round(datetime(*date, tzinfo=UTC).timestamp() * 1000)


NOON = milliseconds(2026, 3, 28, 12)


class TestSchedules:
    @pytest.mark.parametrize(
        ("pattern", "tz", "expected"),
        [
            ("*/5 * * * *", "UTC", milliseconds(2026, 3, 28, 12, 5)),
            ("*/10 * * * * *", "UTC", milliseconds(2026, 3, 28, 12, 0, 10)),
            ("30 0 12 * * *", "UTC", milliseconds(2026, 3, 28, 12, 0, 30)),
            ("@hourly", "UTC", milliseconds(2026, 3, 28, 13)),
            ("0 12 ? * 1", "UTC", milliseconds(2026, 3, 30, 12)),
            ("0 9 * * *", "Europe/Berlin", milliseconds(2026, 3, 29, 7)),  # Its summer time has begun that night.
        ],
    )
    def test_patterns(self, pattern, tz, expected):
        assert _after(pattern, tz, NOON / 1000) == expected

    def test_without_a_zone_it_is_that_of_the_machine(self):
        found = _after("0 9 * * *", None, NOON / 1000)
        assert datetime.fromtimestamp(found / 1000, UTC).astimezone().hour == 9

    @pytest.mark.parametrize(
        "options",
        [
            "nonsense",
            "{}",
            '{"repeat": 5}',
            '{"repeat": {"pattern": "H * * * *"}}',
            '{"repeat": {"every": "x"}}',
            '{"repeat": {"pattern": "* * * * *", "tz": "No/Where"}}',
            '{"repeat": {"pattern": "* * * * *", "startDate": 1e300}}',
        ],
    )
    async def test_what_cannot_be_read_is_told_and_nothing_else_happens(self, options, caplog):
        claimed = {b"rjk": b"every day", b"opts": options.encode()}
        await follow(None, BullQueue("bull", "q"), "repeat:every day:1", claimed, NOON)
        assert "'every day'" in caplog.text

    def test_a_scheduler_without_times(self):
        with pytest.raises(ValueError, match="interval nor a pattern"):
            _next(_Repeat(), NOON, NOON)

    @pytest.mark.parametrize(
        ("about", "expected"),
        [
            ({"every": 1000}, NOON),
            ({"every": 1000, "limit": 3, "count": 2}, NOON),
            ({"every": 1000, "limit": 3, "count": 3}, None),
            ({"every": 1000, "end_date": NOON - 1}, None),
            ({"pattern": "@hourly", "tz": "UTC", "end_date": NOON + 1}, None),
            ({"pattern": "@hourly", "tz": "UTC", "start_date": NOON + 86_400_000}, NOON + 25 * 3_600_000),
        ],
    )
    def test_ends_and_beginnings(self, about, expected):
        assert _next(_Repeat(**about), NOON, NOON) == expected
