"""The file provider of logging: rotation by calendar, what is kept, damage, and other programs at the same file."""

from __future__ import annotations

import fcntl
import gzip
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noobly.core.config import convert
from noobly.core.errors import ConfigError, InvalidArgument, Unavailable
from noobly.core.scope import Environment
from noobly.logging.driver import Query
from noobly.logging.providers import _log_file, _log_reading
from noobly.logging.providers._batches import Batches
from noobly.logging.providers._rotation import Period, began, zone
from noobly.logging.providers.file import FileConfig, FileLogs
from noobly.testing import FakeClock, eventually
from noobly.testing.logging.driver import BEGIN
from noobly.testing.logging.lines import found, line

DAY = 86_400


@asynccontextmanager
async def opened(path: Path, clock: FakeClock | None = None, **options: object) -> AsyncIterator[FileLogs]:
    config = convert(FileConfig, {"path": str(path), **options}, "the test")
    async with AsyncExitStack() as stack:
        logs = FileLogs(config, Environment(clock=clock or FakeClock(BEGIN / 1e6)))
        await logs.start(stack)
        yield logs


def names(path: Path) -> list[str]:
    return [file.name.removeprefix(f"{path.name}.") for file in rotated(path)]


def rotated(path: Path) -> list[Path]:
    return sorted(file for file in path.parent.glob(f"{path.name}.2*") if file.suffix != ".part")


def micros(text: str, where: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(where)).timestamp() * 1e6)


class TestCalendar:
    @pytest.mark.parametrize(
        ("where", "moment", "period", "start"),
        [
            ("UTC", "2026-03-04T05:06:07", Period.HOUR, "2026-03-04T05:00:00"),
            ("UTC", "2026-03-04T05:06:07", Period.DAY, "2026-03-04T00:00:00"),
            ("UTC", "2026-03-04T05:06:07", Period.WEEK, "2026-03-02T00:00:00"),
            ("UTC", "2026-03-04T05:06:07", Period.MONTH, "2026-03-01T00:00:00"),
            ("Europe/Berlin", "2026-03-29T12:00:00", Period.DAY, "2026-03-29T00:00:00"),
            ("Europe/Berlin", "2026-10-25T12:00:00", Period.DAY, "2026-10-25T00:00:00"),
            ("Europe/Berlin", "2026-04-15T12:00:00", Period.MONTH, "2026-04-01T00:00:00"),
            ("Asia/Kolkata", "2026-03-04T05:06:07", Period.HOUR, "2026-03-04T05:00:00"),
        ],
    )
    def test_where_a_period_begins(self, where: str, moment: str, period: Period, start: str) -> None:
        assert began(micros(moment, where), period, ZoneInfo(where)) == micros(start, where)

    def test_the_hour_that_autumn_repeats_is_two(self) -> None:
        berlin = ZoneInfo("Europe/Berlin")
        first = datetime(2026, 10, 25, 2, 30, tzinfo=berlin)
        hours = [began(round(first.replace(fold=fold).timestamp() * 1e6), Period.HOUR, berlin) for fold in (0, 1)]
        assert hours[1] - hours[0] == 3600 * 1_000_000

    def test_a_day_without_midnight_begins_with_its_first_moment(self) -> None:
        beirut = ZoneInfo("Asia/Beirut")  # Summer time begins at midnight there.
        noon = round(datetime(2026, 3, 29, 12, tzinfo=beirut).timestamp() * 1e6)
        start = began(noon, Period.DAY, beirut)
        assert datetime.fromtimestamp(start / 1e6, beirut).isoformat() == "2026-03-29T01:00:00+03:00"
        assert began(start, Period.DAY, beirut) == start
        assert began(start - 1, Period.DAY, beirut) < start

    @given(
        at=st.integers(0, 4_000_000_000).map(lambda second: second * 1_000_000),
        step=st.integers(1, 400 * DAY).map(lambda second: second * 1_000_000),
        where=st.sampled_from(["UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Beirut"]),
        period=st.sampled_from([Period.DAY, Period.WEEK, Period.MONTH]),
    )
    def test_periods_follow_each_other(self, at: int, step: int, where: str, period: Period) -> None:
        place = ZoneInfo(where)
        start = began(at, period, place)
        assert start <= at
        assert began(start, period, place) == start
        assert began(at + step, period, place) >= start

    def test_zones(self) -> None:
        assert (zone("utc"), zone("local")) == (UTC, None)
        assert began(BEGIN, Period.DAY, None) <= BEGIN
        with pytest.raises(ConfigError, match="no time zone 'Mars/Base'"):
            zone("Mars/Base")


async def test_a_file_for_each_day_also_over_restarts(tmp_path: Path) -> None:
    path, clock = tmp_path / "app.log", FakeClock(micros("2026-03-28T23:00:00", "Europe/Berlin") / 1e6)
    for day in range(3):
        async with opened(path, clock, zone="Europe/Berlin", compress=False) as logs:
            for n in range(2):
                await logs.append(f"{day}.{n}", [line(round(clock.time() * 1e6), f"{day}.{n}")])
        clock.advance(DAY - 3600 if day == 0 else DAY)  # The 29th has 23 hours.
    assert names(path) == ["20260328T220000.000000Z", "20260329T210000.000000Z"]
    async with opened(path, clock, rotate="never") as logs:
        assert await found(logs) == [f"{day}.{n}" for day in (2, 1, 0) for n in (1, 0)]


async def test_a_clock_that_goes_back_keeps_the_order(tmp_path: Path) -> None:
    path, clock = tmp_path / "app.log", FakeClock(BEGIN / 1e6)
    async with opened(path, clock, max_bytes=1024, compress=False) as logs:
        for number in range(20):
            await logs.append(f"{number}", [line(BEGIN + number, f"{number}", padding="x" * 600)])
            clock.step(-1000)
        assert len(names(path)) == 19
        assert await found(logs) == [f"{number}" for number in range(19, -1, -1)]


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"keep_files": 3}, 3), ({"keep_bytes": 4000, "compress": False}, 3), ({"keep_days": 5}, 5)],
)
async def test_what_is_kept(tmp_path: Path, options: dict[str, object], kept: int) -> None:
    path, clock = tmp_path / "app.log", FakeClock(BEGIN / 1e6)
    async with opened(path, clock, **options) as logs:
        for number in range(20):
            clock.advance(DAY)
            await logs.append(f"{number}", [line(BEGIN + number, f"{number}", padding="x" * 700)])
        await eventually(lambda: len(names(path)) == kept)
        assert await found(logs) == [f"{number}" for number in range(19, 18 - kept, -1)]


async def test_files_are_compressed_and_keep_their_mode(tmp_path: Path) -> None:
    path, clock = tmp_path / "app.log", FakeClock(BEGIN / 1e6)
    async with opened(path, clock) as logs:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o640)
        for number in range(3):
            await logs.append(f"{number}", [line(BEGIN, f"{number}")])
            clock.advance(DAY)
        await eventually(lambda: all(name.endswith(".gz") for name in names(path)))
    (oldest, _) = rotated(path)
    assert gzip.decompress(oldest.read_bytes()).count(b"\n") == 1
    assert [stat.S_IMODE(file.stat().st_mode) for file in (path, oldest)] == [0o640, 0o640]


async def test_a_writer_that_died_over_a_batch_left_nothing(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    async with opened(path) as logs:
        await logs.append("1", [line(BEGIN, "whole")])
    whole = path.read_bytes()
    batches = Batches(tmp_path / "app.log.batches")
    batches.refresh()
    batch = b"".join(line(BEGIN, f"{n}").data + b"\n" for n in range(3))
    batches.announce("2", path.stat().st_ino, len(whole), len(whole) + len(batch))
    batches.close()
    for length in (0, 10, len(batch) - 1):
        path.write_bytes(whole + batch[:length])
        async with opened(path) as logs:
            assert set(await found(logs)) <= {"whole", "0", "1"}
            await logs.append("2", [line(BEGIN, f"{n}") for n in range(3)])
            assert await found(logs) == ["2", "1", "0", "whole"]
        path.write_bytes(whole)
        batches = Batches(tmp_path / "app.log.batches")
        batches.refresh()
        batches.retract()
        batches.announce("2", path.stat().st_ino, len(whole), len(whole) + len(batch))
        batches.close()


async def test_the_journal_stays_short_and_knows_the_latest(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    one, other = Batches(path), Batches(path)
    one.refresh()
    for number in range(10_000):
        one.announce(f"{number}", 1, number, number + 1)
    assert path.stat().st_size <= 4096 * 40
    other.refresh()
    for batches in (one, other):
        assert all(batches.has(f"{number}") for number in range(8_000, 10_000))
        assert not batches.has("0")
        batches.close()


async def test_a_torn_end_goes_and_foreign_lines_stay_unread(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"not JSON\n" + line(BEGIN, "old").data + b'\n{"timestamp":"2026-0')
    async with opened(path) as logs:
        assert await found(logs) == ["old"]
        await logs.append("1", [line(BEGIN, "new")])
        assert await found(logs) == ["new", "old"]
    assert path.read_bytes().count(b"\n") == 3


async def test_other_programs_may_rotate_and_remove(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "app.log"
    async with opened(path) as logs:
        await logs.append("1", [line(BEGIN, "1")])
        path.rename(tmp_path / "moved")
        await logs.append("2", [line(BEGIN, "2")])
        assert await found(logs) == ["2"]
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()
        await logs.append("3", [line(BEGIN, "3")])
        assert await found(logs) == ["3"]
        await logs.flush()


async def test_a_file_that_cannot_be_rotated_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "app.log", FakeClock(BEGIN / 1e6)

    def refuse(*_: object) -> Path:
        raise PermissionError(13, "Permission denied")

    async with opened(path, clock) as logs:
        await logs.append("1", [line(BEGIN, "1")])
        clock.advance(DAY)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", refuse)
            await logs.append("2", [line(BEGIN, "2")])
            assert await found(logs) == ["2", "1"]
            with pytest.raises(Unavailable, match="Permission denied"):
                await logs.health()
        await logs.append("3", [line(BEGIN, "3")])
        await logs.health()
        await eventually(lambda: len(names(path)) == 1)  # a moment ago both the plain and the packed file
        assert await found(logs) == ["3", "2", "1"]


async def test_a_damaged_compressed_file_gives_what_can_be_read(tmp_path: Path) -> None:
    path, clock = tmp_path / "app.log", FakeClock(BEGIN / 1e6)
    async with opened(path, clock) as logs:
        await logs.append("1", [line(BEGIN + n, f"{n}", padding=os.urandom(50).hex()) for n in range(1000)])
        clock.advance(DAY)
        await logs.append("2", [line(BEGIN, "last")])
        await eventually(lambda: [name[-3:] for name in names(path)] == [".gz"])
        (packed,) = rotated(path)
        packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
        read = await found(logs)
        assert read[0] == "last"
        assert 100 < len(read) < 1000
        assert read[-1] == "0"


async def test_a_call_that_looked_at_much_returns_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_log_reading, "_LOOKED", 2000)
    async with opened(tmp_path / "app.log", max_bytes=10_000) as logs:
        for batch in range(50):
            await logs.append(f"{batch}", [line(BEGIN + batch * 10 + n, f"{batch * 10 + n}") for n in range(10)])
        page = await logs.search(Query(text="7"), None, 1000)
        assert len(page.lines) < 100
        assert page.after is not None
        assert await found(logs, Query(text="7")) == [f"{n}" for n in range(499, -1, -1) if "7" in f"{n}"]
        assert await found(logs, Query(text="nowhere")) == []


async def test_a_cursor_survives_rotation_and_compression(tmp_path: Path) -> None:
    path, clock = tmp_path / "app.log", FakeClock(BEGIN / 1e6)
    async with opened(path, clock) as logs:
        await logs.append("1", [line(BEGIN + n, f"{n}") for n in range(10)])
        page = await logs.search(Query(), None, 4)
        clock.advance(DAY)
        await logs.append("2", [line(BEGIN, "later")])
        await eventually(lambda: [name[-3:] for name in names(path)] == [".gz"])
        rest = await logs.search(Query(), page.after, 100)
        assert len(rest.lines) == 6
        (packed,) = rotated(path)
        packed.unlink()
        assert (await logs.search(Query(), page.after, 100)).lines == []


async def test_a_cursor_into_a_file_that_was_shortened(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    async with opened(path) as logs:
        await logs.append("1", [line(BEGIN + n, f"{n}") for n in range(10)])
        page = await logs.search(Query(), None, 4)
        os.truncate(path, 50)
        with pytest.raises(InvalidArgument, match="search anew"):
            await logs.search(Query(), page.after, 100)


async def test_a_lock_that_another_process_keeps_is_an_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_log_file, "_PATIENCE", 0.05)
    async with opened(tmp_path / "app.log") as logs:
        with hold(tmp_path / "app.log.lock"), pytest.raises(TimeoutError, match="held the lock"):
            await logs.append("1", [line(BEGIN, "1")])
        await logs.append("1", [line(BEGIN, "1")])
        assert await found(logs) == ["1"]


@contextmanager
def hold(lock: Path) -> Iterator[None]:
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def test_searching_by_time_leaves_old_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, clock = tmp_path / "app.log", FakeClock(BEGIN / 1e6)
    async with opened(path, clock, compress=False) as logs:
        for day in range(5):
            await logs.append(f"{day}", [line(round(clock.time() * 1e6), f"{day}")])
            clock.advance(DAY)
        read: list[str] = []
        original = _log_reading._open

        def counted(file: Path) -> object:
            read.append(file.name)
            return original(file)

        monkeypatch.setattr(_log_reading, "_open", counted)
        since = BEGIN + 3 * DAY * 1_000_000
        assert await found(logs, Query(since=since)) == ["4", "3"]
        assert len(read) == 2
