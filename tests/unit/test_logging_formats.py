"""Formats: JSON that is always valid, text that nobody can forge, and the names other systems know."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context as TraceContext

from noobly.core.correlation import Context
from noobly.core.errors import InvalidArgument
from noobly.logging.assembly import Assembler, Source
from noobly.logging.formats import decode, ecs, escaped, micros, moment, otlp, renderer, severity, stamp, text
from noobly.logging.options import Format
from noobly.logging.record import ExceptionInfo, Record
from noobly.logging.redaction import Redactor

RECORD = Record(
    timestamp="2026-11-23T04:45:45.123456Z",
    level="error",
    severity_number=17,
    message="it\nfailed\x1b[31m",
    logger="app.db",
    service="shop",
    instance="a",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    correlation_id="r-1",
    attributes={"user": "ada", "n": 1, "big": 2**63, "f": 1.5, "on": True, "none": None, "l": [1], "o": {"x": "y z"}},
    exception=ExceptionInfo("ValueError", "bad", "Traceback\nValueError: bad\x07"),
)
ANY = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.just(2**4000),
        st.just(object()),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text() | st.integers(), inner, max_size=4)),
    max_leaves=10,
)


class TestJson:
    @given(st.dictionaries(st.text(), ANY, max_size=4), st.text())
    def test_whatever_is_logged_the_line_is_one_line_of_valid_json(
        self, attributes: dict[str, object], message: str
    ) -> None:
        redactor = Redactor()
        kept = json_ready(redactor, attributes)
        item = (1763873145.25, 9, message, kept, Source("a", "b", "c", 0), Context("id"), TraceContext(), None)
        (line,) = Assembler(redactor).lines([item])
        assert b"\n" not in line.data
        assert decode(line.data) == msgspec.convert(json.loads(line.data, parse_constant=pytest.fail), Record)

    def test_members_stand_in_the_order_of_a_record(self) -> None:
        item = (1.0, 9, "m", {"a": 1}, Source("a", "b", "c", 0), Context("id"), TraceContext(), RECORD.exception)
        (line,) = Assembler(Redactor()).lines([item])
        names = list(json.loads(line.data))
        assert names == [name for name in Record.__struct_fields__ if name in names]
        assert (line.at, line.severity) == (1_000_000, 9)

    @pytest.mark.parametrize(
        ("at", "stamp"), [(0.0, "1970-01-01T00:00:00.000000Z"), (-1.5, "1969-12-31T23:59:58.500000Z")]
    )
    def test_a_clock_that_was_never_set(self, at: float, stamp: str) -> None:
        item = (at, 9, "m", {}, Source("a", "b", "c", 0), Context(), TraceContext(), None)
        (line,) = Assembler(Redactor()).lines([item])
        assert decode(line.data).timestamp == stamp


def json_ready(redactor: Redactor, attributes: dict[str, object]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(redactor.clean(attributes)))


class TestText:
    @given(st.text())
    def test_nothing_can_begin_a_line_or_steer_the_terminal(self, value: str) -> None:
        shown = text(
            Record(
                timestamp=value, level="info", severity_number=9, message=value, logger=value, attributes={value: value}
            )
        )
        assert shown.splitlines() in ([shown], [])
        assert not any(unicodedata.category(char) in ("Cc", "Cs") or char in "\u2028\u2029\u202e" for char in shown)

    def test_how_it_looks(self) -> None:
        head, *trace = text(RECORD).split("\n")
        assert head.startswith("2026-11-23T04:45:45.123456Z ERROR [app.db] it\\nfailed\\x1b[31m user=ada n=1")
        assert head.endswith("id=r-1")
        assert trace == ["    | Traceback", "    | ValueError: bad\\x07"]
        assert "\x1b[31mERROR\x1b[0m" in text(RECORD, colour=True)

    def test_escapes_can_be_told_apart(self) -> None:
        assert escaped("a\r\n\x85\u2028\x9b") == "a\\r\\n\\x85\\u2028\\x9b"


class TestOtherNames:
    def test_ecs(self) -> None:
        found = ecs(RECORD)
        assert found["@timestamp"] == RECORD.timestamp
        assert (found["log.level"], found["trace.id"], found["error.type"]) == ("error", RECORD.trace_id, "ValueError")
        assert found["labels"] == RECORD.attributes
        assert "service.name" not in ecs(Record(timestamp="", level="info", severity_number=9, message=""))

    def test_otlp(self) -> None:
        (resource,) = otlp([RECORD, RECORD])["resourceLogs"]  # type: ignore[misc]  # JSON, as it is sent
        assert resource["resource"]["attributes"][0] == {"key": "service.name", "value": {"stringValue": "shop"}}
        (scope,) = resource["scopeLogs"]
        assert scope["scope"] == {"name": "app.db"}
        record, _ = scope["logRecords"]
        assert record["timeUnixNano"] == str(micros(moment(RECORD.timestamp)) * 1000)
        assert (record["severityNumber"], record["severityText"]) == (17, "ERROR")
        values = {pair["key"]: pair["value"] for pair in record["attributes"]}
        assert values["n"] == {"intValue": "1"}
        assert values["big"] == {"stringValue": str(2**63)}
        assert values["on"] == {"boolValue": True}
        assert values["none"] == {}
        assert values["o"] == {"kvlistValue": {"values": [{"key": "x", "value": {"stringValue": "y z"}}]}}
        assert values["exception.type"] == {"stringValue": "ValueError"}

    @pytest.mark.parametrize("format", list(Format))
    def test_each_is_made_of_a_stored_line(self, format: Format) -> None:
        line = msgspec.json.encode(RECORD)
        shown = renderer(format, colour=False)(line)
        assert b"failed" in shown
        if format is not Format.TEXT:
            assert json.loads(shown)


class TestTimes:
    @given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001 - the zone is given next
    def test_there_and_back(self, when: datetime) -> None:
        aware = when.replace(tzinfo=UTC)
        assert moment(stamp(micros(aware))) == aware

    def test_refusals(self) -> None:
        with pytest.raises(InvalidArgument, match="no time zone"):
            micros(datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is refused
        with pytest.raises(InvalidArgument, match="RFC 3339"):
            moment("yesterday")
        with pytest.raises(InvalidArgument, match="no level 'loud'"):
            severity("loud")
        with pytest.raises(InvalidArgument, match="not a record"):
            decode(b"{}")
