"""The total of several processes: what is summed, what survives, and that it never goes back."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as TheirCounter
from prometheus_client import Gauge as TheirGauge

from noobly.core.errors import Internal
from noobly.core.lines import Block, Merge
from noobly.core.meter import Meter
from noobly.measuring.exposition import Exposition, Format, Wanted, render
from noobly.measuring.instruments import Instruments
from noobly.measuring.totals import Totals, fold, merged, prepare


class Worker:
    """One process, as far as its metrics go."""

    def __init__(self, folder: Path, name: str) -> None:
        self.totals = Totals(folder, name)
        self.meter = Meter(peers=self.totals)
        self.instruments = Instruments(self.meter)
        self.orders = self.instruments.counter("orders_total", "Orders.", labels=["kind"])
        self.shown = Exposition(self.meter, others=CollectorRegistry())
        self.taken = 0

    async def publish(self) -> None:
        self.taken += 1
        self.totals.publish(await self.shown.own(), self.taken)

    async def sample(self, line: str) -> float | None:
        text = (await self.shown.page(Wanted())).content.decode()
        found = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(f"{line} ")]
        assert len(found) < 2
        return float(found[0]) if found else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def pair(folder: Path) -> tuple[Worker, Worker]:
    return Worker(folder, "worker-0-1"), Worker(folder, "worker-1-1")


class TestSums:
    async def test_whichever_is_asked_shows_all(self, pair):
        one, two = pair
        one.orders.inc(3, kind="a")
        two.orders.inc(4, kind="a")
        two.orders.inc(1, kind="b")
        await one.publish()
        await two.publish()
        for worker in pair:
            assert await worker.sample('orders_total{kind="a"}') == 7
            assert await worker.sample('orders_total{kind="b"}') == 1

    async def test_histograms_and_summaries(self, pair):
        for worker, sizes in zip(pair, ([0.5, 5], [5, 50]), strict=True):
            for size in sizes:
                worker.instruments.histogram("size_bytes", "Sizes.", buckets=[1, 10]).observe(size)
                worker.instruments.summary("load", "Load.", quantiles=[0.5]).observe(size)
            await worker.publish()
        one, _ = pair
        bounds = [await one.sample(f'size_bytes_bucket{{le="{le}"}}') for le in ("1.0", "10.0", "+Inf")]
        assert bounds == [1, 3, 4]
        assert await one.sample("size_bytes_sum") == 60.5
        assert await one.sample("load_count") == 4
        assert await one.sample('load{quantile="0.5"}') is None

    @pytest.mark.parametrize(
        ("merge", "expected"), [(Merge.SUM, 7), (Merge.MAX, 5), (Merge.MIN, 2), (Merge.MOSTRECENT, 5)]
    )
    async def test_gauges_as_they_declare(self, pair, merge, expected):
        one, two = pair
        two.instruments.gauge("depth", "Depth.", merge=merge).set(2)
        one.instruments.gauge("depth", "Depth.", merge=merge).set(5)
        for worker in pair:
            await worker.publish()
        assert [await worker.sample("depth") for worker in pair] == [expected, expected]

    async def test_the_latest_wins_in_either_order_of_files(self, pair):
        one, two = pair
        one.instruments.gauge("depth", "Depth.", merge=Merge.MOSTRECENT).set(5)
        two.instruments.gauge("depth", "Depth.", merge=Merge.MOSTRECENT).set(2)
        for worker in pair:
            await worker.publish()
        assert [await worker.sample("depth") for worker in pair] == [2, 2]

    async def test_metrics_of_others(self, folder):
        workers = [Worker(folder, f"worker-{slot}") for slot in range(2)]
        for worker in workers:
            TheirCounter("theirs", "Theirs.", registry=worker.meter.registry).inc(2)
            TheirGauge("process_start_time_seconds", "Start.", registry=worker.meter.registry).set(worker.taken + 1)
            await worker.publish()
        assert await workers[0].sample("theirs_total") == 4
        assert await workers[0].sample("theirs_created") is None
        assert await workers[0].sample("process_start_time_seconds") == 1

    async def test_a_series_of_one_process_stays_whole(self, pair):
        one, two = pair
        one.instruments.histogram("size_bytes", "Sizes.", labels=["a"], buckets=[1, 10]).observe(1, a="x")
        sizes = two.instruments.histogram("size_bytes", "Sizes.", labels=["a"], buckets=[1, 10])
        sizes.observe(1, a="y")
        sizes.observe(1, a="x")
        for worker in pair:
            await worker.publish()
        lines = (await one.shown.page(Wanted(names=frozenset({"size_bytes_bucket"})))).content.decode().splitlines()
        assert [line for line in lines if 'a="y"' in line] == lines[-3:]

    def test_families_that_differ_are_not_mixed(self):
        blocks = [asyncio.run(own(kind)) for kind in ("counter", "gauge")]
        text = render(merged(blocks), Format.TEXT).decode()
        assert "# TYPE thing_total counter" in text
        assert "\nthing " not in text


async def own(kind: str) -> list[Block]:
    meter = Meter()
    if kind == "counter":
        Instruments(meter).counter("thing_total", "Thing.").inc()
    else:
        Instruments(meter).gauge("thing", "Thing.").inc()
    return await Exposition(meter, others=None).own()


class TestLife:
    async def test_what_was_shown_once_is_never_taken_back(self, pair):
        one, two = pair
        shown = 0.0
        for turn in range(20):
            asked, other = pair if turn % 3 else (two, one)
            asked.orders.inc(kind="a")
            other.orders.inc(kind="a")
            now = await asked.sample('orders_total{kind="a"}')
            assert now is not None
            assert now >= shown
            shown = now

    async def test_an_older_publication_does_not_undo_a_newer_one(self, pair):
        one, two = pair
        one.orders.inc(kind="a")
        older = await one.shown.own()
        one.orders.inc(kind="a")
        one.totals.publish(await one.shown.own(), 2)
        one.totals.publish(older, 1)
        assert await two.sample('orders_total{kind="a"}') == 2

    async def test_the_dead_count_on_in_one_file(self, folder, pair):
        one, _ = pair
        for generation in range(1, 6):
            dying = Worker(folder, f"worker-1-{generation}")
            dying.orders.inc(2, kind="a")
            dying.instruments.gauge("depth", "Depth.").set(100)
            dying.instruments.gauge("last", "Last.", merge=Merge.MOSTRECENT).set(generation)
            await dying.publish()
            fold(folder, f"worker-1-{generation}")
        one.orders.inc(kind="a")
        assert await one.sample('orders_total{kind="a"}') == 11
        assert await one.sample("depth") is None
        assert await one.sample("last") == 5
        assert sorted(path.name for path in folder.glob("*.metrics")) == ["dead.metrics", "worker-0-1.metrics"]

    def test_a_worker_that_never_published_leaves_nothing(self, folder):
        (folder / "worker-0-1.metrics.new").write_bytes(b"half")
        fold(folder, "worker-0-1")
        assert sorted(path.name for path in folder.iterdir()) == ["fold.lock"]

    async def test_folding_while_others_read_shows_each_once(self, folder, pair):
        one, _ = pair
        stop = threading.Event()
        seen: set[float | None] = set()

        def read() -> None:
            while not stop.is_set():
                blocks = one.totals.share([], 0)
                lines = [value for block in blocks if block.head.name == "orders" for _, value in block.lines]
                seen.add(sum(lines))

        for generation in range(20):
            dying = Worker(folder, f"worker-9-{generation}")
            dying.orders.inc(kind="a")
            await dying.publish()
        reading = threading.Thread(target=read)
        reading.start()
        try:
            for generation in range(20):
                await asyncio.to_thread(fold, folder, f"worker-9-{generation}")
        finally:
            stop.set()
            reading.join()
        assert seen == {20.0}

    def test_what_an_earlier_run_left_is_removed(self, folder):
        for name in ("dead.metrics", "worker-0-1.metrics", "worker-0-1.metrics.new"):
            (folder / name).write_bytes(b"")
        prepare(folder)
        assert list(folder.glob("*.metrics*")) == []
        assert folder.stat().st_mode & 0o077 == 0

    def test_damage_is_said(self, folder, pair):
        (folder / "worker-5-1.metrics").write_bytes(b"\xc1")
        with pytest.raises(Internal, match=r"worker-5-1\.metrics are damaged"):
            pair[0].totals.share([], 1)
