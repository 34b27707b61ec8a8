"""Lifecycle: crowds, cancellation, closing, opening again, and two clients at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from noobly.core.errors import Closed, ConfigError
from noobly.measuring import Metrics, SampleIn
from noobly.testing.measuring.harness import MetricHarness
from noobly.testing.measuring.theme import Theme

_CALLS: tuple[Callable[[Metrics], Awaitable[object]], ...] = (
    lambda metrics: metrics.add("m", 1),
    lambda metrics: metrics.add_many([SampleIn(name="m", value=1)]),
    lambda metrics: metrics.flush(),
    lambda metrics: metrics.list("m"),
    lambda metrics: metrics.total("m"),
    lambda metrics: metrics.average("m"),
    lambda metrics: metrics.min("m"),
    lambda metrics: metrics.max("m"),
    lambda metrics: metrics.rate("m"),
    lambda metrics: metrics.percentile("m", 50),
    lambda metrics: metrics.overview("m"),
    lambda metrics: metrics.range("m", 1_700_000_000 - 60, 1_700_000_000),
    lambda metrics: metrics.series(),
    lambda metrics: metrics.retain(),
)


class LifecycleTheme(Theme):
    """Nothing that was added is lost or counted twice, whatever callers do."""

    async def test_a_hundred_tasks_at_once(self, metrics: Metrics) -> None:
        async def work(number: int) -> None:
            for turn in range(5):
                await metrics.add("all", 1, {"shard": str(number % 5)})
                await metrics.add(f"own {number}", turn)
            assert (await metrics.total(f"own {number}")).value == 10

        await asyncio.gather(*(work(number) for number in range(100)))
        assert (await metrics.total("all")).value == 500
        assert len(await metrics.series("all")) == 5

    async def test_cancelled_callers_take_nothing_along(self, harness: MetricHarness) -> None:
        async with harness.open(batch=7) as metrics:
            added: list[int] = []

            async def work(number: int) -> None:
                for _ in range(20):
                    await metrics.add("m", 1)
                    added.append(number)
                    await metrics.total("m")

            tasks = [asyncio.create_task(work(number)) for number in range(30)]
            for task in tasks[::2]:
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            counted = (await metrics.total("m")).count
            assert len(added) <= counted <= len(added) + len(tasks[::2])

    async def test_closed_metrics_refuse_every_call(self, harness: MetricHarness) -> None:
        async with harness.open() as metrics:
            await metrics.add("m", 1)
        for call in _CALLS:
            with pytest.raises(Closed):
                await call(metrics)

    async def test_what_was_added_last_is_there_again(self, harness: MetricHarness) -> None:
        async with harness.open() as metrics:
            for number in range(1234):
                harness.clock.advance(0.001)
                await metrics.add("m", number, {"l": str(number % 3)})
        async with harness.open() as metrics:
            found = await metrics.overview("m")
            assert found.count == (1234 if harness.durable else 0)
            assert found.total == (sum(range(1234)) if harness.durable else 0)
            assert found.last == (1233 if harness.durable else None)
            await metrics.add("m", 1, {"l": "1"})
            assert len(await metrics.series()) == (3 if harness.durable else 1)

    async def test_the_cap_counts_what_was_there_before(self, harness: MetricHarness) -> None:
        if not harness.durable:
            pytest.skip("there is no before")
        for opening in range(3):
            async with harness.open(series_per_metric=2) as metrics:
                await metrics.add("m", 1, {"opening": str(opening)})
        async with harness.open() as metrics:
            labels = [one.labels for one in await metrics.series()]
            assert sorted(labels, key=str) == [{"opening": "0"}, {"opening": "1"}, {"overflow": "true"}]

    async def test_two_clients_add_to_the_same_steps(self, harness: MetricHarness) -> None:
        if not harness.shared:
            pytest.skip("two metrics of this provider share nothing")
        async with harness.open(batch=3) as one, harness.open(batch=5) as other:
            pair = (one, other)

            async def work(number: int) -> None:
                for value in range(20):
                    await pair[number % 2].add("m", value)

            await asyncio.gather(*(work(number) for number in range(20)))
            await asyncio.gather(one.flush(), other.flush())
            for metrics in pair:
                found = await metrics.overview("m")
                assert (found.count, found.total, found.min, found.max) == (400, 3800, 0, 19)
                assert found.p50 == pytest.approx(9, rel=0.01)

    async def test_unknown_options_are_refused(self, harness: MetricHarness) -> None:
        with pytest.raises(ConfigError, match="batch"):
            async with harness.open(btach=5):
                raise AssertionError("it opened")

    async def test_instruments_are_there_too(self, metrics: Metrics) -> None:
        orders = metrics.counter("conformance_orders_total", "Orders.", labels=["country"])
        orders.inc(2, country="SE")
        with metrics.timer("conformance_work_seconds", "Work.")():
            pass
        shown = {
            sample.name for family in metrics.scope.environment.meter.registry.collect() for sample in family.samples
        }
        assert {"conformance_orders_total", "conformance_work_seconds_count"} <= shown
