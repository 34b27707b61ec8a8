"""The spool: in order, bounded, over restarts, for several processes, and with a torn end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from noobly.logging.spool import Spool


@contextmanager
def opened(folder: Path, most: int = 160_000) -> Iterator[Spool]:
    spool = Spool(folder, most)
    spool.open()
    try:
        yield spool
    finally:
        spool.close()


def drained(spool: Spool) -> list[bytes]:
    found: list[bytes] = []
    while (message := spool.first()) is not None:
        found.append(message)
        spool.sent()
    return found


def test_messages_leave_in_the_order_they_came(tmp_path: Path) -> None:
    messages = [f"{number}".encode() * 500 for number in range(100)]
    with opened(tmp_path / "spool") as spool:
        assert spool.empty
        assert not (tmp_path / "spool").exists()
        for number, message in enumerate(messages[:60]):
            spool.add(message)
            if number % 10 == 5:
                assert spool.first() == messages[number // 10]
                spool.sent()
        for message in messages[60:]:
            spool.add(message)
        assert drained(spool) == messages[6:]
        assert spool.empty
        assert spool.first() is None
    assert list(tmp_path.rglob("*.spool")) == []


def test_what_waits_is_there_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        for number in range(50):
            spool.add(b"%d" % number)
    with opened(tmp_path) as spool:
        assert not spool.empty
        spool.add(b"50")
        assert drained(spool) == [b"%d" % number for number in range(51)]


def test_the_oldest_leave_when_it_is_full(tmp_path: Path) -> None:
    with opened(tmp_path, 64_000) as spool:
        for number in range(200):
            spool.add(b"%03d" % number + b"x" * 1000)
            assert sum(file.stat().st_size for file in tmp_path.rglob("*.spool")) <= 64_000
        kept = [int(message[:3]) for message in drained(spool)]
        assert kept == list(range(kept[0], 200))
        assert 40 < len(kept) < 64
        assert spool.lost > 100_000


def test_two_processes_have_a_place_each(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as other:
        one.add(b"one")
        other.add(b"other")
        assert (drained(one), drained(other)) == ([b"one"], [b"other"])


@pytest.mark.parametrize("damage", [1, 8, 9, 20])
def test_a_torn_end_is_passed_over(tmp_path: Path, damage: int) -> None:
    with opened(tmp_path) as spool:
        spool.add(b"whole")
        spool.add(b"x" * 20)
    (segment,) = tmp_path.rglob("*.spool")
    segment.write_bytes(segment.read_bytes()[:-damage])
    with opened(tmp_path) as spool:
        assert drained(spool) == [b"whole"]
    segment.write_bytes(b"")
    with opened(tmp_path) as spool:
        assert spool.first() is None
