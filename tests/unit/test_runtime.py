"""How the process does: lag of the event loop, and pauses of garbage collection."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from noobly.core.meter import Meter
from noobly.measuring import runtime
from noobly.measuring.runtime import watch
from noobly.testing import eventually


def count(meter: Meter, name: str, **labels: str) -> float:
    return meter.registry.get_sample_value(name, labels) or 0.0


async def test_a_blocked_loop_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "INTERVAL", 0.01)
    meter = Meter()
    async with watch(meter):
        await asyncio.sleep(0)
        time.sleep(0.31)  # noqa: ASYNC251 - blocking the loop is what is measured
        await eventually(lambda: count(meter, "noobly_event_loop_lag_seconds_count"))
    name = "noobly_event_loop_lag_seconds"
    assert count(meter, f"{name}_sum") >= 0.25
    assert count(meter, f"{name}_bucket", le="0.1") < count(meter, f"{name}_count")


async def test_collections_are_timed_by_generation_and_no_more_after_the_end() -> None:
    meter = Meter()
    before = list(gc.callbacks)
    async with watch(meter):
        gc.collect()
        seen = count(meter, "noobly_gc_pause_seconds_count", generation="2")
        assert seen >= 1
    assert gc.callbacks == before
    gc.collect()
    assert count(meter, "noobly_gc_pause_seconds_count", generation="2") == seen


async def test_it_can_be_watched_again() -> None:
    meter = Meter()
    for _ in range(2):
        async with watch(meter):
            gc.collect()
    assert count(meter, "noobly_gc_pause_seconds_count", generation="2") >= 2
