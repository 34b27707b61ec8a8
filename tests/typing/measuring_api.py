"""What mypy must know of the public API; checked by ``scripts/check``, never run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_type

from noobly.core.remote import Remote, remote
from noobly.core.scope import Scope
from noobly.measuring import (
    Figure,
    Measurement,
    Measurements,
    Metrics,
    Overview,
    Points,
    SampleIn,
    SeriesInfo,
    open_metrics,
)
from noobly.measuring.instruments import Counter, Gauge, Histogram, Summary, Timer


async def samples(metrics: Metrics) -> None:
    await metrics.add("orders", 1.5, {"country": "de"}, at=datetime.now(UTC))
    await metrics.add_many([SampleIn(name="orders", value=2)])
    await metrics.add("orders", "1.5")  # type: ignore[arg-type]  # a value is a number


async def figures(metrics: Metrics) -> None:
    assert_type(await metrics.total("orders", 0, datetime.now(UTC)), Figure)
    assert_type((await metrics.average("orders")).value, float | None)
    assert_type(await metrics.percentile("orders", 99), Figure)
    assert_type(await metrics.overview("orders", labels={"country": "de"}), Overview)
    assert_type(await metrics.list("orders"), Measurements)
    assert_type((await metrics.list("orders")).measurements, list[Measurement])
    assert_type(await metrics.range("orders", 0, step=timedelta(minutes=1)), Points)
    assert_type(await metrics.series("ord"), list[SeriesInfo])
    assert_type(await metrics.retain(), int)


async def opens() -> None:
    async with open_metrics("sqlite://metrics.db") as metrics:
        assert_type(metrics, Metrics)


def remotes(calls: Remote, scope: Scope, metrics: Metrics) -> None:
    assert_type(remote(Metrics)(calls, scope, metrics.options), Metrics)


def instruments(metrics: Metrics) -> None:
    paid = metrics.counter("shop_paid_total", "Orders paid.", labels={"country": str, "new": bool})
    assert_type(paid, Counter)
    paid.inc(2, country="de", new=True)
    paid.labels("de", True).inc()
    paid.labels("de", True).dec()  # type: ignore[attr-defined]  # a counter only goes up
    open_carts = metrics.gauge("shop_carts", "Carts that are open.")
    assert_type(open_carts, Gauge)
    open_carts.callback(lambda: 3.0)
    assert_type(metrics.histogram("shop_bytes", "Bytes of an order.", buckets=[1, 10]), Histogram)
    assert_type(metrics.summary("shop_items", "Items of an order.", quantiles=[0.5]), Summary)
    assert_type(metrics.timer("shop_seconds", "Seconds of an order."), Timer)


def around(metrics: Metrics) -> None:
    timer = metrics.timer("shop_seconds", "Seconds of an order.", labels=["kind"])

    @timer(kind="plain")
    def plain(order: int) -> str:
        return str(order)

    @timer(kind="async")
    async def later(order: int) -> str:
        return str(order)

    async def uses() -> None:
        assert_type(plain(1), str)
        assert_type(await later(1), str)
        with timer(kind="body"):
            await later(2)

    del uses
