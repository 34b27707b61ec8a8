"""Stores that are asked for gauges when somebody scrapes."""

from __future__ import annotations

import asyncio

import pytest

from noobly.core import meter as module
from noobly.core.errors import Unavailable
from noobly.core.looking import Looking
from noobly.core.meter import Meter
from noobly.measuring.exposition import LOOKED_SECONDS, Exposition, Wanted
from noobly.testing import FakeClock


class TestMeter:
    async def test_one_that_is_down_or_slow_holds_up_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
        meter, asked = Meter(), []

        async def down() -> None:
            raise Unavailable("gone")

        async def slow() -> None:
            await asyncio.Event().wait()

        async def good() -> None:
            asked.append(1)

        for look in (down, slow, good):
            meter.watch(look)
        await meter.look()
        assert asked == [1]

    async def test_it_ends_with_its_owner(self) -> None:
        meter, asked = Meter(), []

        async def look() -> None:
            asked.append(1)

        end = meter.watch(look)
        end()
        end()
        await meter.look()
        assert asked == []

    async def test_a_scrape_asks_every_few_seconds_at_most(self) -> None:
        meter, clock, asked = Meter(), FakeClock(), []

        async def look() -> None:
            asked.append(1)

        meter.watch(look)
        exposition = Exposition(meter, clock=clock, others=None)
        for seconds, count in ((0.0, 1), (LOOKED_SECONDS / 2, 1), (LOOKED_SECONDS / 2, 2)):
            clock.advance(seconds)
            await exposition.page(Wanted())
            assert len(asked) == count


class TestLooking:
    async def test_names_that_are_gone_are_shown_empty_and_failures_as_they_were(self) -> None:
        shown: dict[str, int] = {}
        there = {"a": 1, "b": 2, "c": 3}

        async def names() -> list[str]:
            return list(there)

        async def ask(name: str) -> tuple[str, int]:
            if there[name] < 0:
                raise Unavailable(name)
            return name, there[name]

        look = Looking(names, ask, lambda found: shown.update([found]), nothing=lambda name: (name, 0), most=2)
        await look()
        assert shown == {"a": 1, "b": 2}
        del there["a"]
        there["b"] = -1
        await look()
        assert shown == {"a": 0, "b": 2, "c": 3}
