"""Refusals: bad arguments are refused alike on every provider, and leave nothing behind."""

from __future__ import annotations

import math
from datetime import datetime

import pytest

from noobly.core.errors import InvalidArgument, TooLarge
from noobly.measuring import Metrics, SampleIn
from noobly.testing.measuring.harness import MetricHarness
from noobly.testing.measuring.theme import Theme

_LABELS: tuple[object, ...] = (
    {"": "x"}, {"1a": "x"}, {"a-b": "x"}, {"__name": "x"}, {"a": 1}, {"a": None}, {"a": "x" * 257}, {1: "x"},
    {"a": "\ud800"}, {f"l{number}": "x" for number in range(17)}, "a=b", [("a", "b")],
)  # fmt: skip


class RefusalsTheme(Theme):
    """What is no name, no value, no time and no label."""

    @pytest.mark.parametrize("name", ["", "   ", "n" * 257, "\ud800", None, 5, b"m"], ids=ascii)
    async def test_names(self, metrics: Metrics, name: str) -> None:
        for call in (metrics.add(name, 1), metrics.list(name), metrics.total(name), metrics.range(name, 0)):
            with pytest.raises(InvalidArgument):
                await call
        assert await metrics.series() == []

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", None, [1], 1j, 10**400], ids=repr)
    async def test_values(self, metrics: Metrics, value: float) -> None:
        with pytest.raises(InvalidArgument):
            await metrics.add("m", value)
        assert (await metrics.total("m")).count == 0

    @pytest.mark.parametrize("labels", _LABELS, ids=ascii)
    async def test_labels(self, metrics: Metrics, labels: dict[str, str]) -> None:
        for call in (metrics.add("m", 1, labels), metrics.total("m", labels=labels)):
            with pytest.raises(InvalidArgument):
                await call
        assert await metrics.series() == []

    @pytest.mark.parametrize("at", [datetime(2024, 1, 1), "yesterday", True, math.nan, math.inf, 1e12], ids=repr)  # noqa: DTZ001 - no time zone is what is refused
    async def test_times(self, metrics: Metrics, at: float) -> None:
        calls = (metrics.add("m", 1, at=at), metrics.total("m", at), metrics.list("m", None, at), metrics.rate("m", at))
        for call in calls:
            with pytest.raises(InvalidArgument):
                await call

    async def test_the_future(self, metrics: Metrics, harness: MetricHarness) -> None:
        now = harness.clock.time()
        await metrics.add("m", 1, at=now + 599)
        with pytest.raises(InvalidArgument, match="in the future"):
            await metrics.add("m", 1, at=now + 601)
        assert (await metrics.total("m")).count == 1

    async def test_one_bad_sample_refuses_all(self, metrics: Metrics) -> None:
        with pytest.raises(InvalidArgument):
            await metrics.add_many([SampleIn(name="m", value=1), SampleIn(name="m", value=math.inf)])
        with pytest.raises(TooLarge):
            await metrics.add_many([SampleIn(name="m", value=1)] * 10_001)
        assert (await metrics.total("m")).count == 0
        await metrics.add_many([])

    async def test_numbers_out_of_range(self, metrics: Metrics, harness: MetricHarness) -> None:
        now = harness.clock.time()
        bad = (
            metrics.percentile("m", -0.1),
            metrics.percentile("m", 100.1),
            metrics.percentile("m", math.nan),
            metrics.list("m", limit=0),
            metrics.list("m", limit=100_001),
            metrics.series(limit=0),
            metrics.series("x" * 257),
            metrics.range("m", now - 60, step=0),
            metrics.range("m", now - 60, step=-1),
            metrics.range("m", now - 20_000, now, step=1),
            metrics.range("m", 0, step=60),
        )
        for call in bad:
            with pytest.raises(InvalidArgument):
                await call
