"""Times and tokens in the rows of an SQLite file."""

from __future__ import annotations

import pytest

from noobly.clients.sqlite_rows import microseconds, parsed, seconds, token


def test_times_come_back() -> None:
    assert (microseconds(1.5), seconds(1_500_000)) == (1_500_000, 1.5)
    assert seconds(microseconds(1_700_000_000.123456)) == 1_700_000_000.123456


def test_a_token_stands_for_its_claim() -> None:
    assert parsed(token(12, 3)) == (12, 3)


@pytest.mark.parametrize(
    "text", ["", ".", "1", "1.", ".1", "1.2.3", "1_0.1", "+1.1", "-1.1", " 1.1", "1.1\n", "٣.٣", f"1.{10**18}"]
)
def test_what_is_no_token(text: str) -> None:
    assert parsed(text) == (0, 0)
