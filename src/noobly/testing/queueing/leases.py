"""Leases: a message is one receiver's until it is acknowledged, given back, or the lease ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from noobly.core.errors import Conflict
from noobly.queueing import Queues
from noobly.testing.queueing.harness import QueueHarness
from noobly.testing.queueing.theme import LONG, Pair, Theme, comes, drained, one, values

_ANSWERS: dict[str, Callable[[Queues, str], Awaitable[object]]] = {
    "ack": lambda queues, receipt: queues.ack("q", receipt),
    "nack": lambda queues, receipt: queues.nack("q", receipt, delay=0),
    "reject": lambda queues, receipt: queues.reject("q", receipt),
    "extend": lambda queues, receipt: queues.extend("q", receipt, LONG),
}


async def _stale(queues: Queues, receipt: str) -> None:
    """Expect every answer with a receipt to be refused."""
    for name, answer in _ANSWERS.items():
        with pytest.raises(Conflict, match="lease"):
            await answer(queues, receipt)
            raise AssertionError(f"{name} took an old receipt")
    assert await queues.ack_many("q", [receipt]) == [False]
    assert await queues.extend_many("q", [receipt], LONG) == [False]
    assert await queues.release_many("q", [receipt]) == [False]


class LeasesTheme(Theme):
    """Nobody else gets what somebody holds, and nothing that is let go is lost."""

    async def test_what_is_held_comes_to_nobody_else(self, queues: Queues) -> None:
        await queues.send("q", 1)
        await one(queues, "q")
        assert await queues.receive("q", max=10) == []
        assert await queues.size("q") == 0
        assert (await queues.stats("q")).in_flight == 1

    async def test_of_several_each_comes_once(self, queues: Queues) -> None:
        for number in range(5):
            await queues.send("q", number)
        first = await queues.receive("q", max=3, lease=LONG)
        second = await queues.receive("q", max=10, lease=LONG)
        assert len(first) <= 3
        found = [*first, *second]
        while more := await queues.receive("q", max=10, lease=LONG):
            found += more
        assert sorted(values(found)) == list(range(5))
        assert len({each.receipt for each in found}) == 5

    async def test_an_acknowledged_message_is_gone(self, queues: Queues, harness: QueueHarness) -> None:
        await queues.send("q", 1)
        found = (await queues.receive("q", lease=2 * harness.tick))[0]
        await queues.ack("q", found.receipt)
        await harness.advance(4 * harness.tick)
        assert await queues.receive("q") == []
        stats = await queues.stats("q")
        assert (stats.ready, stats.delayed, stats.in_flight, stats.dead) == (0, 0, 0, 0)
        await _stale(queues, found.receipt)

    async def test_acknowledging_many(self, queues: Queues) -> None:
        for number in range(4):
            await queues.send("q", number)
        found: list[str] = []
        while batch := await queues.receive("q", max=4, lease=LONG):
            found += [each.receipt for each in batch]
        await queues.ack("q", found[1])
        assert await queues.ack_many("q", found) == [True, False, True, True]
        assert await queues.ack_many("q", []) == []
        assert (await queues.stats("q")).in_flight == 0

    async def test_a_lease_that_ends_lets_the_message_go(self, queues: Queues, harness: QueueHarness) -> None:
        sent = await queues.send("q", "value", headers={"h": "1"})
        first = (await queues.receive("q", lease=2 * harness.tick))[0]
        again = await comes(harness, queues, "q", ticks=3)
        assert (again.id, again.value, again.headers) == (sent.id, "value", {"h": "1"})
        assert (first.deliveries, again.deliveries) == (1, 2)
        assert again.receipt != first.receipt
        await _stale(queues, first.receipt)
        await queues.ack("q", again.receipt)
        assert await queues.receive("q") == []

    async def test_a_receipt_is_no_good_once_its_lease_has_ended(self, queues: Queues, harness: QueueHarness) -> None:
        await queues.send("q", 1)
        found = (await queues.receive("q", lease=2 * harness.tick))[0]
        await harness.advance(4 * harness.tick)
        await _stale(queues, found.receipt)
        assert (await one(queues, "q")).deliveries == 2

    async def test_a_receipt_is_no_good_once_used(self, queues: Queues) -> None:
        for name, answer in _ANSWERS.items():
            if name == "extend":
                continue
            await queues.send("q", name)
            found = await one(queues, "q")
            await answer(queues, found.receipt)
            await _stale(queues, found.receipt)
            assert await drained(queues, "q") == (["nack"] if name == "nack" else [])

    async def test_receipts_of_other_queues_and_of_nobody(self, queues: Queues) -> None:
        await queues.send("other", 1)
        found = await one(queues, "other")
        await _stale(queues, found.receipt)
        await _stale(queues, found.receipt[:-1] + ("0" if found.receipt[-1] != "0" else "1"))
        await _stale(queues, "1mnever given out")
        await queues.ack("other", found.receipt)

    async def test_extending_keeps_it(self, queues: Queues, harness: QueueHarness) -> None:
        for name in ("kept", "left"):
            await queues.send(name, name)
        kept = (await queues.receive("kept", lease=4 * harness.tick))[0]
        await queues.receive("left", lease=4 * harness.tick)
        await queues.extend("kept", kept.receipt, LONG)
        assert (await comes(harness, queues, "left", ticks=5)).deliveries == 2
        assert await queues.receive("kept") == []
        assert await queues.extend_many("kept", [kept.receipt, kept.receipt], LONG) == [True, True]
        await queues.ack("kept", kept.receipt)

    async def test_extending_counts_from_now(self, queues: Queues, harness: QueueHarness) -> None:
        await queues.send("q", 1)
        found = (await queues.receive("q", lease=LONG))[0]
        await queues.extend("q", found.receipt, 2 * harness.tick)
        assert (await comes(harness, queues, "q", ticks=3)).deliveries == 2

    async def test_the_lease_of_the_options(self, harness: QueueHarness) -> None:
        async with harness.open(lease=2 * harness.tick) as queues:
            await queues.send("q", 1)
            assert len(await queues.receive("q")) == 1
            found = await comes(harness, queues, "q", ticks=3)
            assert found.deliveries == 2
            await queues.extend("q", found.receipt)
            assert (await comes(harness, queues, "q", ticks=3)).deliveries == 3

    async def test_deliveries_are_counted(self, harness: QueueHarness) -> None:
        async with harness.open(max_deliveries=100) as queues:
            await queues.send("q", 1)
            for number in range(1, 8):
                found = await one(queues, "q")
                assert found.deliveries == number
                await queues.nack("q", found.receipt, delay=0)

    async def test_one_client_cannot_answer_twice_for_another(self, pair: Pair, harness: QueueHarness) -> None:
        here, there = pair
        await here.send("q", 1)
        first = (await here.receive("q", lease=2 * harness.tick))[0]
        assert await there.receive("q") == []
        second = await comes(harness, there, "q", ticks=3)
        assert second.deliveries == 2
        await _stale(here, first.receipt)
        await here.ack("q", second.receipt)  # A receipt is good in any hands.

    async def test_of_many_acknowledgements_at_once_one_is_good(self, queues: Queues) -> None:
        await queues.send("q", 1)
        found = await one(queues, "q")
        good = await asyncio.gather(*(queues.ack_many("q", [found.receipt]) for _ in range(20)))
        assert sum(each for (each,) in good) == 1

    async def test_of_many_receivers_at_once_one_gets_it(self, queues: Queues) -> None:
        for turn in range(5):
            await queues.send("q", turn)
            found = await asyncio.gather(*(queues.receive("q", lease=LONG) for _ in range(20)))
            assert values([each for batch in found for each in batch]) == [turn]
