"""The pipeline: what a slow, failing or missing store does to callers and records."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from noobly.core.checks import Limits
from noobly.core.correlation import Ring, correlated
from noobly.core.errors import Internal, TooLarge, Unavailable
from noobly.core.events import Event
from noobly.core.scope import Environment, Policy, Scope
from noobly.logging import Logs, LogsOptions, Overflow, open_logs, returning
from noobly.logging.driver import Line
from noobly.logging.events import Dropped, Returned, Spilled
from noobly.logging.formats import decode
from noobly.logging.providers.memory import MemoryConfig, MemoryLogs
from noobly.logging.spill import Spill
from noobly.testing import FakeClock, eventually
from noobly.testing.logging.lines import line


class Store(MemoryLogs):
    """A store that can be held, and that fails as it is told."""

    limits = Limits()

    def __init__(self, environment: Environment) -> None:
        super().__init__(MemoryConfig(), environment)
        self.open = asyncio.Event()
        self.open.set()
        self.failures: list[Exception] = []
        self.always: Exception | None = None
        self.batches: list[str] = []
        self.lines: list[Line] = []
        self.sizes: list[int] = []
        self.allowed: int | None = None
        self.refused = b""

    async def append(self, batch: str, lines: Sequence[Line], /) -> None:
        self.batches.append(batch)
        await self.open.wait()
        if self.failures or self.always:
            raise self.failures.pop(0) if self.failures else self.always or AssertionError
        if self.allowed is not None:
            if self.allowed == 0:
                raise Unavailable("down again")
            self.allowed -= 1
        if self.refused and any(self.refused in line.data for line in lines):
            raise TooLarge("no")
        self.sizes.append(len(lines))
        self.lines += lines

    def messages(self) -> list[str]:
        return [decode(line.data).message for line in self.lines]


@asynccontextmanager
async def logging_to(store: Store | None = None, **options: object) -> AsyncIterator[tuple[Logs, Store]]:
    environment = Environment()
    kept = store or Store(environment)
    settings = {"linger": 0.005, "spill": "", "close_timeout": 2.0, "retries": 2, **options}
    scope = Scope(service="logging", instance="default", provider="test", policy=Policy(), environment=environment)
    logs = Logs(kept, scope, LogsOptions(**settings))  # type: ignore[arg-type]  # checked where settings are read
    try:
        yield logs, kept
    finally:
        kept.open.set()
        await logs.close()


def leftovers(path: Path) -> list[Path]:
    """Return the spill file and what was taken of it."""
    return sorted(file for file in path.parent.glob(f"{path.name}*") if file.suffix != ".lock")


def spilled(path: Path) -> list[str]:
    return [json.loads(line)["message"] for line in path.read_text().splitlines()]


class TestBatches:
    async def test_records_come_in_order_and_together(self) -> None:
        async with logging_to(linger=0.05) as (logs, store):
            for number in range(100):
                logs.info(str(number))
            assert await logs.flush()
            assert store.messages() == [str(number) for number in range(100)]
            assert store.sizes == [100]

    async def test_a_batch_has_about_so_many_bytes(self) -> None:
        async with logging_to(batch_bytes=1024) as (logs, store):
            for _ in range(100):
                logs.info("x" * 100)
            await logs.flush()
            assert sum(store.sizes) == 100
            assert max(store.sizes) <= 8

    async def test_nothing_runs_while_nothing_is_logged_and_the_next_record_is_stored(self) -> None:
        async with logging_to() as (logs, store):
            for count in (1, 2, 3):
                logs.info("one")
                await eventually(lambda count=count: len(store.lines) == count)
            assert store.messages() == ["one"] * 3

    async def test_an_error_does_not_wait(self) -> None:
        async with logging_to(linger=3600.0) as (logs, store):
            logs.info("before")
            logs.error("now")
            await eventually(lambda: len(store.lines) == 2)
            assert store.messages() == ["before", "now"]

    async def test_threads_may_log(self) -> None:
        async with logging_to(queue=100_000) as (logs, store):
            threads = [threading.Thread(target=lambda: [logs.info("x") for _ in range(500)]) for _ in range(4)]
            for thread in threads:
                thread.start()
            await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
            await logs.flush()
            assert len(store.lines) == 2000

    async def test_a_record_is_what_it_was_at_the_call(self) -> None:
        async with logging_to() as (logs, store):
            basket = ["apple"]
            logs.info("sold", basket=basket)
            basket.append("pear")
            await logs.flush()
            assert decode(store.lines[0].data).attributes == {"basket": ["apple"]}

    async def test_too_large_a_batch_is_split(self) -> None:
        async with logging_to() as (logs, store):
            store.failures = [TooLarge("no")]
            for number in range(5):
                logs.info(str(number))
            await logs.flush()
            assert store.messages() == ["0", "1", "2", "3", "4"]
            assert store.sizes == [2, 3]


class TestSlowStore:
    async def test_callers_do_not_feel_a_store_that_stands_still(self) -> None:
        async with logging_to(linger=0.001) as (logs, store):
            store.open.clear()
            logs.error("first")
            await eventually(lambda: store.batches)
            took = []
            for _ in range(2000):
                began = time.perf_counter()
                logs.info("request finished", user="ada", status=200)
                took.append(time.perf_counter() - began)
                await asyncio.sleep(0)
            assert sorted(took)[int(len(took) * 0.99)] < 0.001
            assert await logs.drain(0.01) is False
            store.open.set()
            assert await logs.flush()
            assert len(store.lines) == 2001


class TestOverflow:
    async def lost(self, policy: Overflow, **options: object) -> tuple[list[str], list[Event]]:
        async with logging_to(queue=8, overflow=policy, **options) as (logs, store):
            seen: list[Event] = []
            logs.scope.environment.bus.subscribe(Dropped, seen.append)
            store.open.clear()
            logs.error("held")
            await eventually(lambda: store.batches)
            await logs.set_level("trace")
            for number in range(6):
                for level in ("debug", "info", "warn", "error"):
                    getattr(logs, level)(f"{level} {number}")
            store.open.set()
            await logs.drain()
            await logs.drain()
            await eventually(lambda: not logs._pipeline.delivery._returns.busy)
            return store.messages(), seen

    async def test_by_level(self) -> None:
        messages, seen = await self.lost(Overflow.DROP_BY_LEVEL)
        assert [text for text in messages if text.startswith("error")] == [f"error {n}" for n in range(6)]
        assert [text for text in messages if text.startswith("debug")] == ["debug 0", "debug 1"]
        assert [text for text in messages if text.startswith("warn")] == ["warn 0", "warn 1", "warn 2", "warn 3"]
        assert "10 log records were dropped" in messages
        assert seen == [Dropped("logging", "default", 10, "overflow")]

    async def test_the_oldest(self) -> None:
        messages, _ = await self.lost(Overflow.DROP_OLDEST)
        assert [text for text in messages if text.startswith("error")] == [f"error {n}" for n in range(6)]
        assert "debug 0" not in messages
        assert "warn 5" in messages
        assert "10 log records were dropped" in messages

    async def test_block_on_the_loop_spills_instead(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "spill.jsonl"
        messages, seen = await self.lost(Overflow.BLOCK, spill=str(path))
        assert seen == []
        kept = [text for text in messages if "log records" not in text and text != "held"]
        assert sorted(kept) == sorted(f"{level} {n}" for n in range(6) for level in ("debug", "info", "warn", "error"))
        assert leftovers(path) == []

    async def test_block_in_a_thread_waits(self) -> None:
        async with logging_to(queue=4, overflow=Overflow.BLOCK, block_timeout=60.0) as (logs, store):
            await asyncio.to_thread(lambda: [logs.info(str(n)) for n in range(50)])
            await logs.flush()
            assert store.messages() == [str(n) for n in range(50)]

    async def test_block_ends_in_its_time(self) -> None:
        async with logging_to(queue=1, overflow=Overflow.BLOCK, block_timeout=0.01) as (logs, store):
            store.open.clear()
            logs.error("held")
            await eventually(lambda: store.batches)
            await asyncio.to_thread(lambda: [logs.info(str(n)) for n in range(3)])
            store.open.set()
            await logs.drain()
            assert "2 log records were dropped" in store.messages()

    async def test_errors_past_their_bound_are_spilled_not_dropped(self, tmp_path: Path) -> None:
        path = tmp_path / "spill.jsonl"
        async with logging_to(queue=4, spill=str(path)) as (logs, store):
            for number in range(20):
                logs.error(str(number))
            assert len(spilled(path)) > 0
            assert path.stat().st_mode & 0o777 == 0o600
            logs.error("20")
            await eventually(lambda: sorted(map(int, store.messages())) == list(range(21)))


class TestFailingStore:
    async def test_it_is_tried_again_with_the_same_batch(self) -> None:
        async with logging_to() as (logs, store):
            store.failures = [Unavailable("down"), Unavailable("down")]
            logs.info("kept")
            assert await logs.flush()
            assert store.messages() == ["kept"]
            assert len(store.batches) == 3
            assert len(set(store.batches)) == 1

    async def test_then_it_is_spilled_and_that_is_told_once(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "spill.jsonl"
        async with logging_to(spill=str(path), retries=0) as (logs, store):
            seen: list[Event] = []
            logs.scope.environment.bus.subscribe(Spilled, seen.append)
            store.always = Unavailable("down")
            for number in range(3):
                logs.info(str(number))
                await logs.drain()
            assert spilled(path) == ["0", "1", "2"]
            assert seen == [Spilled("logging", "default", 1, str(path))] * 3
        assert capsys.readouterr().err.count("fails (unavailable)") == 1

    async def test_what_was_spilled_is_stored_once_the_store_works(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(returning, "_CHUNK", 1024)
        path = tmp_path / "spill.jsonl"
        async with logging_to(spill=str(path), retries=0) as (logs, store):
            returned: list[Returned] = []
            logs.scope.environment.bus.subscribe(Returned, returned.append)
            store.always = Unavailable("down")
            for number in range(30):
                logs.info(str(number), padding="x" * 100)
                await logs.drain()
            store.always = None
            logs.info("works")
            await eventually(lambda: len(store.lines) == 31)
            assert store.messages() == ["works", *(str(number) for number in range(30))]
            assert sum(event.count for event in returned) == 30
            assert len(returned) > 3
            await eventually(lambda: leftovers(path) == [])

    async def test_where_the_store_fails_again_the_rest_waits_and_no_line_is_stored_twice(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(returning, "_CHUNK", 1024)
        path = tmp_path / "spill.jsonl"
        async with logging_to(spill=str(path), retries=0) as (logs, store):
            store.always = Unavailable("down")
            for number in range(30):
                logs.info(str(number), padding="x" * 100)
                await logs.drain()
            store.always, store.allowed = None, 3
            logs.info("works for a while")
            await eventually(lambda: store.allowed == 0 and not logs._pipeline.delivery._returns.busy)
            some = len(store.lines)
            assert 1 < some < 31
            assert len(leftovers(path)) == 1
            store.allowed = None
            logs.info("works")
            await eventually(lambda: len(store.lines) == 32)
            assert sorted(store.messages()) == sorted(["works for a while", "works", *map(str, range(30))])

    async def test_the_next_process_stores_it_and_a_torn_line_harms_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "spill.jsonl"
        async with logging_to(spill=str(path), retries=0) as (logs, store):
            store.always = Unavailable("down")
            logs.info("before")
            await logs.drain()
        with path.open("ab") as file:
            file.write(b'no record\n{"timestamp":"2026-01')
        async with logging_to(spill=str(path), retries=0) as (logs, store):
            await logs.drain()
            assert leftovers(path) == [path]  # One that only reads leaves it alone.
            logs.info("after")
            await eventually(lambda: store.messages() == ["after", "before"])
            await eventually(lambda: leftovers(path) == [])
        assert "no record\n" in capsys.readouterr().err

    def test_what_was_stored_and_not_noted_has_the_same_id_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(returning, "_CHUNK", 1024)
        path = tmp_path / "spill.jsonl"
        Spill(path, 10**6).write([line(n, f"{n}", padding="x" * 2000 * (n == 5)).data for n in range(20)])
        seen: list[str] = []
        stored: dict[str, list[Line]] = {}
        for _ in range(100):
            taken = returning.Taken(path)
            if not taken.open():
                break
            chunk = taken.chunk()
            if chunk is None:
                taken.remove()
            else:
                assert stored.setdefault(chunk.batch, chunk.lines) == chunk.lines
                seen.append(chunk.batch)
                if seen.count(chunk.batch) == 2:  # The first time the process died here.
                    taken.stored(chunk)
            taken.close()
        assert leftovers(path) == []
        assert [found.at for lines in stored.values() for found in lines] == list(range(20))
        assert all(seen.count(batch) == 2 for batch in stored)

    def test_two_processes_do_not_take_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "spill.jsonl"
        Spill(path, 10**6).write([line(1, "one").data])
        one, other = returning.Taken(path), returning.Taken(path)
        assert one.open()
        Spill(path, 10**6).write([line(2, "meanwhile").data])
        assert not other.open()
        one.close()
        assert other.open()
        chunk = other.chunk()
        assert chunk is not None
        assert [found.at for found in chunk.lines] == [1]
        other.close()

    async def test_a_line_that_the_store_refuses_keeps_no_other_from_being_stored(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "spill.jsonl"
        async with logging_to(spill=str(path), retries=0) as (logs, store):
            store.refused = b"long"
            for number in range(4):
                logs.info("long" if number == 2 else str(number))
            await logs.drain()
            await eventually(lambda: '"message":"long"' in (capsys.readouterr().err))
            await eventually(lambda: leftovers(path) == [])
            assert store.messages() == ["0", "1", "3"]

    async def test_instances_do_not_share_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "spill.jsonl"
        async with open_logs(instance="audit/1", spill=str(path), retries=0) as logs:
            logs._pipeline.delivery.spill([line(0, "kept apart")])
        assert leftovers(path) == []
        assert spilled(tmp_path / "spill.audit%2F1.jsonl") == ["kept apart"]

    @pytest.mark.parametrize("failure", [ValueError("a defect"), Internal("no")])
    async def test_standard_error_is_the_last_resort(
        self, failure: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with logging_to(spill=str(tmp_path)) as (logs, store):  # A folder cannot be written to.
            store.always = failure
            logs.info("seen anyway")
            await logs.drain()
        assert '"message":"seen anyway"' in capsys.readouterr().err

    async def test_a_full_spill_file_grows_no_more(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "spill.jsonl"
        async with logging_to(spill=str(path), spill_bytes=150, retries=0) as (logs, store):
            store.always = Unavailable("down")
            for number in range(4):
                logs.info("line", number=number)
                await logs.drain()
        assert path.stat().st_size <= 150
        assert '"number":3' in capsys.readouterr().err


class TestEnd:
    async def test_closing_stores_what_waits(self) -> None:
        async with logging_to(linger=3600.0) as (logs, store):
            logs.info("last words")
        assert store.messages() == ["last words"]
        logs.info("too late")
        logs.error("too late")

    async def test_closing_does_not_wait_for_ever(self, tmp_path: Path) -> None:
        path = tmp_path / "spill.jsonl"
        async with logging_to(close_timeout=0.02, spill=str(path)) as (logs, store):
            store.open.clear()
            logs.error("under way")
            await eventually(lambda: store.batches)
            logs.info("waiting")
            await logs.close()
        assert spilled(path) == ["under way", "waiting"]

    async def test_the_handler_of_sigterm_is_set_while_nobody_else_has_one(self) -> None:
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            async with open_logs():
                async with open_logs():
                    stood_in = signal.getsignal(signal.SIGTERM)
                assert signal.getsignal(signal.SIGTERM) == stood_in != signal.SIG_DFL
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            async with open_logs():
                assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_a_process_that_ends_without_closing_spills(self, tmp_path: Path) -> None:
        code = (
            "import asyncio, sys\n"
            "from noobly.logging.opening import enter_logs\n"
            "from noobly.core.scope import Environment\n"
            "from noobly.layers.opening import Request\n"
            "from contextlib import AsyncExitStack\n"
            "stack = AsyncExitStack()\n"
            "loop = asyncio.new_event_loop()\n"
            "request = Request(url='memory://', options={'spill': sys.argv[1]})\n"
            "live = loop.run_until_complete(enter_logs(stack, request, Environment()))\n"
            "live.portable.info('forgotten')\n"
        )
        path = tmp_path / "spill.jsonl"
        subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=30, capture_output=True)
        assert spilled(path) == ["forgotten"]


class TestSampling:
    async def test_the_first_then_every_so_many_and_a_summary(self) -> None:
        clock = FakeClock()
        environment = Environment(clock=clock)
        scope = Scope(service="logging", instance="default", provider="t", policy=Policy(), environment=environment)
        store = Store(environment)
        logs = Logs(store, scope, LogsOptions(linger=0.005, sample_first=3, sample_every=10))
        for _ in range(33):
            logs.info("again")
            logs.error("always")
        logs.info("other")
        clock.advance(1.0)
        await logs.drain()
        messages = store.messages()
        assert messages.count("again") == 6
        assert messages.count("always") == 33
        assert "again (27 more left out by sampling)" in messages
        assert messages.count("other") == 1
        await logs.close()


class TestDebugRing:
    async def test_it_comes_out_only_on_release(self) -> None:
        async with logging_to() as (logs, store):
            ring = Ring(2)
            with correlated("r-1", ring=ring):
                for number in range(3):
                    logs.debug("step", number=number, token="x")
                logs.info("done")
            await logs.drain()
            assert store.messages() == ["done"]
            ring.release()
            await logs.drain()
            records = [decode(line.data) for line in store.lines[1:]]
            assert [record.attributes["number"] for record in records] == [1, 2]
            assert {record.correlation_id for record in records} == {"r-1"}
            assert records[0].attributes["token"] == "[redacted]"

    async def test_outside_of_requests_it_costs_nothing(self) -> None:
        async with logging_to() as (logs, store):
            logs.debug("step")
            assert await logs.drain()
            assert store.lines == []


async def test_losses_and_redactions_are_measured() -> None:
    async with logging_to(queue=2, retries=0) as (logs, _):
        logs.info("x", password="y")
        await logs.drain()
        names = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in logs.scope.environment.meter.registry.collect()
            for sample in family.samples
        }
        assert names["noobly_log_records_total", ("instance", "default"), ("level", "info")] == 1
        assert names["noobly_log_redactions_total", ("instance", "default")] == 1
        assert names["noobly_log_lost_total", ("instance", "default"), ("reason", "spilled")] == 0
        assert names["noobly_log_returned_total", ("instance", "default")] == 0
