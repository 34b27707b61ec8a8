"""What commands print."""

from __future__ import annotations

import io
import json
import sys

import msgspec
import pytest

from noobly.cli_show import bar, complain, show
from noobly.core.errors import ConfigError, Unavailable


class Row(msgspec.Struct):
    name: str
    size: float | None
    good: bool
    parts: list[str]


ROWS = [Row("orders", 5.0, True, ["a", "b"]), Row("mail", 0.12345678, False, []), Row("", None, True, ["c"])]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_has_a_column_for_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, json=False)
    assert capsys.readouterr().out.splitlines() == [
        "NAME    SIZE      GOOD  PARTS",
        "orders  5.0       yes   a, b",
        "mail    0.123457  no    -",
        "-       -         yes   c",
    ]


def test_json_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS[1:2], json=True)
    assert json.loads(capsys.readouterr().out) == [{"name": "mail", "size": 0.12345678, "good": False, "parts": []}]


def test_no_rows_are_nothing_or_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    show([], json=False)
    assert capsys.readouterr().out == ""
    show([], json=True)
    assert json.loads(capsys.readouterr().out) == []


def test_an_error_is_one_line_with_its_notes(capsys: pytest.CaptureFixture[str]) -> None:
    complain(Unavailable("redis is down"))
    error = ConfigError("no such thing")
    error.add_note("in noobly.toml")
    complain(error, "[caching] ")
    assert capsys.readouterr().err == (
        "noobly: unavailable: redis is down\nnoobly: [caching] settings: no such thing (in noobly.toml)\n"
    )


def test_a_bar_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        with bar("moving orders", 3) as advance:
            advance()
            advance(2)
        assert ("moving orders" in stream.getvalue()) is stream.isatty()
