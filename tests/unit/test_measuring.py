"""Measuring beside its suite: stores that fail, caps that report, settings that act, sudden ends, the legacy API."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import msgspec
import pytest

from noobly.app import Noobly
from noobly.core.errors import AlreadyExists, Closed, Internal, InvalidArgument, Unavailable
from noobly.core.scope import Environment
from noobly.layers.opening import Request
from noobly.measuring import Metrics, open_metrics
from noobly.measuring.driver import Sample, Selector
from noobly.measuring.events import Lost
from noobly.measuring.opening import enter_metrics
from noobly.measuring.providers.memory import MemoryConfig, MemoryMetrics
from noobly.server.app import build
from noobly.server.auth import KeyGuard, Sessions
from noobly.server.keys import Keyring, StaticKeys
from noobly.settings import Settings
from noobly.testing import FakeClock, eventually
from noobly.testing.faults import Fault, Faults

from ..serving import serving

WARNINGS = "noobly.measuring"


@asynccontextmanager
async def faulty(faults: Faults, *, url: str = "memory://", clock: FakeClock | None = None, **options):
    request = Request(url=url, options=options, inner=[faults.layer])
    async with AsyncExitStack() as stack:
        live = await enter_metrics(stack, request, Environment(clock=clock or FakeClock()))
        yield live.portable


def counter(metrics: Metrics, name: str) -> float:
    families = metrics.scope.environment.meter.registry.collect()
    return sum(sample.value for family in families for sample in family.samples if sample.name == f"{name}_total")


class TestBatches:
    async def test_samples_are_recorded_together(self):
        faults = Faults()
        async with faulty(faults, batch=100, flush_every=600) as metrics:
            for _ in range(1050):
                await metrics.add("m", 1)
            assert faults.calls["record"] == 10
            await metrics.flush()
            await metrics.flush()
            assert faults.calls["record"] == 11
            assert (await metrics.total("m")).value == 1050

    async def test_a_few_are_recorded_soon(self):
        faults = Faults()
        async with faulty(faults, flush_every=0.01) as metrics:
            await metrics.add("m", 1)
            await eventually(lambda: faults.calls.get("record"))
            assert (await metrics.total("m")).value == 1

    async def test_a_flush_waits_for_what_is_under_way(self):
        faults = Faults()
        async with faulty(faults) as metrics:
            faults.plan(Fault.DELAY, operation="record")
            await metrics.add("m", 1)
            first = asyncio.create_task(metrics.flush())
            await eventually(lambda: faults.calls.get("record"))
            await metrics.add("m", 2)
            second = asyncio.create_task(metrics.total("m"))
            await asyncio.sleep(0)
            assert not first.done()
            faults.release()
            await first
            assert (await second).value == 3

    async def test_who_waits_sees_what_somebody_else_hands_on_meanwhile(self):
        loop = asyncio.get_running_loop()
        begun, gate, recorded = loop.create_future(), loop.create_future(), loop.create_future()

        def layer(operation, driver, inner):
            async def record(*args):
                if not begun.done():
                    begun.set_result(None)
                    await gate
                    recorded.set_result(None)
                else:
                    await asyncio.sleep(0)
                return await inner(*args)

            return record if operation.name == "record" else inner

        async def flush_as_soon_as_the_first_has_ended(metrics):
            await recorded
            await asyncio.sleep(0)
            await metrics.flush()

        request = Request(url="memory://", options={"flush_every": 600}, inner=[layer])
        async with AsyncExitStack() as stack:
            metrics = (await enter_metrics(stack, request, Environment(clock=FakeClock()))).portable
            other = asyncio.create_task(flush_as_soon_as_the_first_has_ended(metrics))
            await metrics.add("m", 1)
            first = asyncio.create_task(metrics.flush())
            await begun
            await metrics.add("m", 2)
            reader = asyncio.create_task(metrics.total("m"))
            await asyncio.sleep(0)
            gate.set_result(None)
            assert (await reader).value == 3
            await asyncio.gather(first, other)

    async def test_a_cancelled_flush_goes_on_without_its_caller(self):
        faults = Faults()
        async with faulty(faults) as metrics:
            faults.plan(Fault.DELAY, operation="record")
            await metrics.add("m", 1)
            flush = asyncio.create_task(metrics.flush())
            await eventually(lambda: faults.calls.get("record"))
            flush.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flush
            faults.release()
            assert (await metrics.total("m")).value == 1
            assert faults.calls["record"] == 1


class TestStoresThatFail:
    async def test_samples_wait_and_nobody_who_adds_is_troubled(self, caplog):
        faults = Faults()
        async with faulty(faults, batch=10, flush_every=600) as metrics:
            faults.plan(Fault.TEMPORARY, times=1000, operation="record")
            with caplog.at_level(logging.WARNING, WARNINGS):
                for _ in range(95):
                    await metrics.add("m", 1)
            assert len([record for record in caplog.records if "the store fails" in record.message]) == 1
            assert faults.calls["record"] == 1, "only the regular look tries again"
            for call in (metrics.flush(), metrics.total("m")):
                with pytest.raises(Unavailable):
                    await call
            faults.heal()
            assert (await metrics.total("m")).value == 95
            assert counter(metrics, "noobly_measuring_lost_samples") == 0

    async def test_past_the_bound_the_oldest_are_lost_and_counted(self):
        faults, told = Faults(), []
        async with faulty(faults, batch=10, buffer=50, flush_every=600) as metrics:
            metrics.scope.environment.bus.subscribe(Lost, told.append)
            faults.plan(Fault.TEMPORARY, times=1000, operation="record")
            for value in range(200):
                await metrics.add("m", value)
            faults.heal()
            kept = [one.value for one in (await metrics.list("m")).measurements]
            assert 50 <= len(kept) < 60
            assert kept == list(map(float, range(200 - len(kept), 200)))
            lost = 200 - len(kept)
            assert counter(metrics, "noobly_measuring_lost_samples") == lost == sum(event.count for event in told)

    async def test_it_recovers_by_itself(self):
        faults = Faults()
        async with faulty(faults, batch=10, flush_every=0.01) as metrics:
            faults.plan(Fault.TEMPORARY, times=3, operation="record")
            for _ in range(25):
                await metrics.add("m", 1)
            await eventually(lambda: faults.calls.get("record", 0) >= 5)
            faults.heal()
            assert (await metrics.total("m")).value == 25

    async def test_what_is_lost_at_the_end_is_said(self, caplog):
        faults, told = Faults(), []
        with caplog.at_level(logging.WARNING, WARNINGS):
            async with faulty(faults, flush_every=600) as metrics:
                metrics.scope.environment.bus.subscribe(Lost, told.append)
                await metrics.add("m", 1)
                faults.plan(Fault.PERMANENT, times=9, operation="record")
        assert [event.count for event in told] == [1]
        assert "are lost, for the store fails at the end" in caplog.text
        with pytest.raises(Closed):
            await metrics.add("m", 1)

    async def test_retention_that_fails_is_logged_and_tried_again(self, caplog):
        faults, clock = Faults(), FakeClock()
        with caplog.at_level(logging.WARNING, WARNINGS):
            async with faulty(faults, clock=clock, flush_every=0.01, retain_every=60) as metrics:
                faults.plan(Fault.PERMANENT, operation="retain")
                clock.advance(61)
                await eventually(lambda: "could not be dropped" in caplog.text)
                clock.advance(61)
                await eventually(lambda: faults.calls["retain"] == 2)
                assert (await metrics.total("m")).value == 0


class TestCaps:
    async def test_the_warning_names_the_label_once(self, caplog):
        async with open_metrics(series_per_metric=3) as metrics:
            with caplog.at_level(logging.WARNING, WARNINGS):
                for user in range(50):
                    await metrics.add("logins", 1, {"country": "SE", "user": str(user)})
            [record] = [one for one in caplog.records if one.name == WARNINGS]
            assert "logins" in record.message
            assert "'user' has the most values" in record.message
            assert counter(metrics, "noobly_measuring_overflow_samples") == 47

    async def test_what_is_forgotten_makes_room(self):
        clock = FakeClock()
        async with open_metrics(
            series_per_metric=1, keep_raw=1, keep_10s=10, keep_1m=60, keep_1h=3600, environment=Environment(clock=clock)
        ) as metrics:
            await metrics.add("m", 1, {"user": "a"})
            await metrics.add("m", 1, {"user": "b"})
            clock.advance(10_000)
            await metrics.retain()
            await metrics.add("m", 1, {"user": "b"})
            assert [one.labels for one in await metrics.series()] == [{"user": "b"}]

    async def test_memory_per_series_is_fixed(self):
        clock = FakeClock()
        config = MemoryConfig(raw_samples=100, keep_10s=1000, keep_1m=6000, keep_1h=360_000)
        driver = MemoryMetrics(config, Environment(clock=clock))
        start = clock.time() - 1e6
        await driver.record([Sample("m", (), start + number * 10, float(number)) for number in range(100_000)])
        rows = 0
        for step in (0, 10, 60, 3600):
            answer = await driver.query(Selector(name="m", start=clock.time() - 1e5, end=math.inf), step)
            rows = max(rows, len(answer.rollups))
        series = driver._metrics["m"][()]
        assert [len(tier.at) for tier in series._tiers] == [pytest.approx(most, rel=0.15) for most in config.most]
        assert rows <= 120


class TestInstruments:
    async def test_they_are_shared_by_all_instances(self):
        async with Noobly.open(settings=Settings()) as noobly:
            noobly.measuring.counter("shop_orders_total", "Orders.").inc(3)
            noobly.measuring.counter("shop_orders_total", "Orders.").inc()
            assert counter(noobly.measuring, "shop_orders") == 4
            with pytest.raises(AlreadyExists):
                noobly.measuring.gauge("shop_orders", "Orders.")

    async def test_the_cap_is_the_option(self):
        async with open_metrics(series_per_metric=2) as metrics:
            orders = metrics.counter("orders_total", "Orders.", labels=["user"])
            for user in range(9):
                orders.inc(user=str(user))
            families = metrics.scope.environment.meter.registry.collect()
            shown = [one for family in families for one in family.samples if one.name == "orders_total"]
            assert sum(one.value for one in shown) == 9
            assert len(shown) <= 3


ADDING = textwrap.dedent("""
    import asyncio, sys
    from noobly.measuring import open_metrics

    async def main():
        async with open_metrics(sys.argv[1], batch=50, flush_every=600) as metrics:
            for number in range(10_000_000):
                await metrics.add("m", 1)
                if number % 50 == 49:
                    await metrics.flush()
                    print(number + 1, flush=True)

    asyncio.run(main())
""")


def adding(url: str) -> subprocess.Popen[bytes]:
    """Start a process that adds samples and says how many are flushed."""
    return subprocess.Popen([sys.executable, "-c", ADDING, url], stdout=subprocess.PIPE)


class TestSqlite:
    async def test_a_full_disk_loses_nothing_while_it_lasts(self, tmp_path):
        url = f"sqlite://{tmp_path}/m.db"
        async with open_metrics(url, flush_every=600) as metrics:
            await metrics.add("m", 1)
            await metrics.flush()
            database = metrics._driver.provider._database
            await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone())
            for number in range(5_000):
                await metrics.add("m", 1, {"l": str(number % 500)})
            with pytest.raises(Unavailable, match="the disk is full"):
                await metrics.flush()
            await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())
            assert (await metrics.total("m")).value == 5_001

    async def test_settings_act(self, tmp_path):
        url = f"sqlite://{tmp_path}/m.db?durability=power&busy_timeout=0.1"
        async with open_metrics(url) as metrics:
            database = metrics._driver.provider._database
            assert await database.write(lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == 2
            other = sqlite3.connect(tmp_path / "m.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            await metrics.add("m", 1)
            with pytest.raises(Unavailable, match=r"another process held the file m\.db for over 0\.1 seconds"):
                await metrics.flush()
            other.execute("ROLLBACK")
            other.close()
            assert (await metrics.total("m")).value == 1

    async def test_a_damaged_sketch_is_said(self, tmp_path):
        async with open_metrics(f"sqlite://{tmp_path}/m.db") as metrics:
            for value in (1, 2):
                await metrics.add("m", value, at=time.time() - 4000)
            await metrics.retain()
            spoil = "UPDATE rollups SET sketch = x'ff'"
            await metrics._driver.provider._database.write(lambda connection: connection.execute(spoil).rowcount)
            assert (await metrics.total("m")).value == 3
            with pytest.raises(Internal, match="sketch is damaged"):
                await metrics.percentile("m", 50)

    async def test_kill_9_loses_at_most_what_was_not_flushed(self, tmp_path):
        url = f"sqlite://{tmp_path}/m.db"
        child = adding(url)
        for _ in range(100):
            await asyncio.to_thread(child.stdout.readline)
        child.send_signal(signal.SIGKILL)
        told = [line for line in (await asyncio.to_thread(child.stdout.read)).split(b"\n")[:-1] if line]
        child.wait(10)
        child.stdout.close()
        acknowledged = int(told[-1]) if told else 5000
        async with open_metrics(url) as metrics:
            found = await metrics.overview("m")
            assert acknowledged <= found.count <= acknowledged + 50
            assert found.total == found.count
            rows = await metrics.range("m", time.time() - 600, step=10)
            assert sum(point.count for point in rows.points) == found.count


@pytest.fixture
async def legacy():
    async with Noobly.open(settings=Settings()) as noobly:
        guard = KeyGuard(Keyring([StaticKeys("key")]), Sessions())
        async with serving(build(noobly, guard=guard)) as address:
            base = f"{address}/services/measuring/api"
            async with httpx2.AsyncClient(base_url=base, headers={"x-api-key": "key"}, trust_env=False) as client:
                yield client, noobly


class TestLegacy:
    """What the recorded cases of nooblyjs-core do not say."""

    async def test_what_is_no_number_is_refused(self, legacy):
        client, noobly = legacy
        for value in ("", " ", True, False, [], {}, "NaN", "Infinity", "1e999", None, "abc", [5], 10**400):
            answer = await client.post("/add", json={"metric": "m", "value": value})
            assert answer.status_code == 400, value
            assert answer.text.startswith("Bad Request: ")
        assert (await noobly.measuring.total("m")).count == 0

    async def test_what_is_no_name_is_refused(self, legacy):
        client, _ = legacy
        for metric in (None, "", "  ", 5, ["m"]):
            answer = await client.post("/add", json={"metric": metric, "value": 1})
            assert (answer.status_code, answer.text) == (400, "Bad Request: Missing metric")
        assert (await client.post("/add", json=[1])).status_code == 400
        assert (await client.post("/add", content=b"1", headers={"content-type": "text/plain"})).status_code == 400

    async def test_numbers_may_be_text(self, legacy):
        client, _ = legacy
        for value in ("5", "-2.5", " 1e2 "):
            assert (await client.post("/add", json={"metric": "m", "value": value})).text == "OK"
        assert (await client.get("/total/m/2000-01-01/2999-12-31")).json() == 102.5

    async def test_both_ends_belong_to_the_period(self, legacy):
        client, noobly = legacy
        for milliseconds in (0, 1, 500, 999):
            await noobly.measuring.add("m", milliseconds, at=1_700_000_000 + milliseconds / 1000 + 0.0004)
        listed = (await client.get("/list/m/2023-11-14T22:13:20.001Z/2023-11-14T22:13:20.500Z")).json()
        assert listed == [
            {"value": 1.0, "timestamp": "2023-11-14T22:13:20.001Z"},
            {"value": 500.0, "timestamp": "2023-11-14T22:13:20.500Z"},
        ]
        whole = "2023-11-14T23:13:20+01:00/2023-11-14T22:13:21"
        assert (await client.get(f"/total/m/{whole.replace('+', '%2B')}")).json() == 1500
        assert (await client.get("/average/m/2023/2024-01")).json() == 375

    async def test_a_date_is_its_first_moment(self, legacy):
        client, noobly = legacy
        await noobly.measuring.add("m", 1, at=1_699_920_000)
        assert (await client.get("/total/m/2023-11-14/2023-11-14")).json() == 1
        assert (await client.get("/total/m/2023-11-13/2023-11-13")).json() == 0

    @pytest.mark.parametrize("route", ["list", "total", "average"])
    async def test_what_is_no_date_is_refused(self, legacy, route):
        client, _ = legacy
        for period in ("yesterday/2024-01-01", "2024-01-01/x", "2024-13-01/2024-01-01", "1/2", "%20/%20"):
            answer = await client.get(f"/{route}/m/{period}")
            assert answer.status_code == 400, period
            assert "date" in answer.text

    async def test_nothing_is_0_and_what_is_gone_is_404(self, legacy):
        client, _ = legacy
        assert (await client.get("/average/m/2000-01-01/2999-12-31")).content == b"0"
        assert msgspec.json.decode((await client.get("/total/m/2000-01-01/2999-12-31")).content) == 0
        for route in ("settings", "analytics/summary"):
            assert (await client.get(f"/{route}")).status_code == 404

    async def test_keys_are_asked_for(self, legacy):
        client, _ = legacy
        bare = {"x-api-key": ""}
        assert (await client.get("/total/m/2000-01-01/2999-12-31", headers=bare)).status_code == 401
        assert (await client.post("/add", json={"metric": "m", "value": 1}, headers=bare)).status_code == 401
        assert (await client.get("/status", headers=bare)).json() == "measuring api running"


class TestCalls:
    async def test_a_bad_label_mapping_does_not_pass_for_a_known_one(self):
        async with open_metrics() as metrics:
            await metrics.add("m", 1, {"a": "1"})
            for labels in ({"a": 1}, {"a": ["1"]}, 5, "a"):
                with pytest.raises(InvalidArgument):
                    await metrics.add("m", 1, labels)

    async def test_sync_programs_have_it_too(self):
        def use() -> float:
            from noobly import SyncNoobly

            with SyncNoobly.open(settings=Settings()) as noobly:
                noobly.measuring.add("m", 2)
                noobly.measuring.counter("sync_total", "Text.").inc()
                return noobly.measuring.total("m").value

        assert await asyncio.to_thread(use) == 2
