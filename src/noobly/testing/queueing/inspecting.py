"""Inspecting: how much there is, what it is, and who holds it back."""

from __future__ import annotations

import asyncio

import pytest

from noobly.core.errors import Conflict, InvalidArgument
from noobly.queueing import Can, Queues
from noobly.testing.queueing.harness import QueueHarness
from noobly.testing.queueing.theme import LONG, PATIENCE, Theme, drained, needs, one, values


class InspectingTheme(Theme):
    """Looking on changes nothing."""

    async def test_an_unknown_queue_is_empty_and_stays_unknown(self, queues: Queues, harness: QueueHarness) -> None:
        assert await queues.size("q") == 0
        stats = await queues.stats("q")
        assert (stats.queue, stats.ready, stats.delayed, stats.in_flight, stats.dead) == ("q", 0, 0, 0, 0)
        assert (stats.oldest, stats.paused) == (None, False)
        assert await queues.receive("q") == []
        assert await queues.dequeue("q") is None
        assert await queues.purge("q") == 0
        assert (await queues.redrive("q")).seen == 0
        if Can.PEEK in harness.capabilities:
            assert await queues.peek("q") == []
            assert await queues.dead_letters("q") == []
        assert await queues.queues() == []

    async def test_how_many_there_are(self, queues: Queues, harness: QueueHarness) -> None:
        for number in range(6):
            await queues.send("q", number)
        if Can.DELAY in harness.capabilities:
            await queues.send("q", "late", delay=LONG)
        held = [(await one(queues, "q")).receipt for _ in range(3)]
        await queues.reject("q", held[0])
        await queues.ack("q", held[1])
        stats = await queues.stats("q")
        assert (stats.ready, stats.in_flight, stats.dead) == (3, 1, 1)
        assert stats.delayed == (1 if Can.DELAY in harness.capabilities else 0)
        assert await queues.size("q") == stats.ready + stats.delayed
        assert (await queues.stats("q.dead")).ready == 1

    async def test_how_old_the_oldest_is(self, queues: Queues, harness: QueueHarness) -> None:
        await queues.send("q", 1)
        await harness.advance(4 * harness.tick)
        await queues.send("q", 2)
        oldest = (await queues.stats("q")).oldest
        assert oldest is None or 3.9 * harness.tick <= oldest < 4 * harness.tick + 30
        first = await one(queues, "q")
        if oldest is not None and not harness.real_time:
            assert first.value == 1
            assert (await queues.stats("q")).oldest == pytest.approx(0, abs=0.01)
        await one(queues, "q")
        assert (await queues.stats("q")).oldest is None

    async def test_which_queues_there_are(self, queues: Queues) -> None:
        for name in ("b", "a", "c"):
            await queues.send(name, 1)
        await queues.reject("c", (await one(queues, "c")).receipt)
        assert await queues.queues() == ["a", "b", "c"]
        await drained(queues, "b")
        assert await queues.queues() == ["a", "b", "c"]
        await queues.purge("b")
        assert await queues.queues() == ["a", "c"]
        await queues.send("b", 1)
        assert await queues.queues() == ["a", "b", "c"]

    async def test_purging_leaves_what_somebody_works_on(self, queues: Queues) -> None:
        for number in range(5):
            await queues.send("q", number)
        held = await one(queues, "q")
        assert await queues.purge("q") == 4
        assert await queues.receive("q") == []
        await queues.nack("q", held.receipt, delay=0)
        again = await one(queues, "q")
        assert (again.value, again.deliveries) == (held.value, 2)
        await queues.ack("q", again.receipt)
        assert await queues.purge("q") == 0

    async def test_purging_leaves_other_queues_and_dead_letters(self, queues: Queues) -> None:
        for queue in ("q", "q", "other"):
            await queues.send(queue, queue)
        await queues.reject("q", (await one(queues, "q")).receipt)
        assert await queues.purge("q") == 1
        assert (await queues.stats("q")).dead == 1
        assert await queues.size("other") == 1
        assert await queues.purge("q.dead") == 1
        assert (await queues.stats("q")).dead == 0
        await queues.send("q", "later")
        assert await drained(queues, "q") == ["later"]

    async def test_receipts_of_before_a_purge_are_old(self, queues: Queues, harness: QueueHarness) -> None:
        priority = 5 if Can.PRIORITY in harness.capabilities else 0
        await queues.send("q", "before", priority=priority)
        old = await one(queues, "q")
        await queues.ack("q", old.receipt)
        await queues.purge("q")
        await queues.send("q", "after", priority=priority)
        new = await one(queues, "q")
        with pytest.raises(Conflict):
            await queues.ack("q", old.receipt)
        await queues.ack("q", new.receipt)

    async def test_purging_forgets_dedup_keys(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DEDUP)
        await queues.send("q", "held", dedup="a")
        held = await one(queues, "q")
        await queues.send("q", "free", dedup="b")
        await queues.purge("q")
        assert not (await queues.send("q", "free", dedup="b")).duplicate
        await queues.ack("q", held.receipt)

    async def test_what_waits_behind_its_group_is_ready(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER, Can.DELAY)
        await queues.send("q", 1, group="g")
        await queues.send("q", 2, group="g", delay=LONG)
        stats = await queues.stats("q")
        assert (stats.ready, stats.delayed) == (2, 0)

    async def test_peeking_delivers_nothing(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PEEK)
        for number in range(5):
            await queues.send("q", number, headers={"n": str(number)})
        seen = await queues.peek("q")
        assert [each.value for each in seen] == list(range(5))
        assert [each.headers for each in seen] == [{"n": str(number)} for number in range(5)]
        assert {each.deliveries for each in seen} == {0}
        assert all(each.readable for each in seen)
        assert seen[0].sent_at == pytest.approx(harness.now(), abs=30)
        found = await one(queues, "q")
        assert (found.id, found.deliveries) == (seen[0].id, 1)
        assert [each.value for each in await queues.peek("q")] == [1, 2, 3, 4]

    async def test_peeking_in_pages(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PEEK)
        for number in range(12):
            await queues.send("q", number)
        assert [each.value for each in await queues.peek("q")] == list(range(10))
        assert [each.value for each in await queues.peek("q", max=5, skip=3)] == [3, 4, 5, 6, 7]
        assert [each.value for each in await queues.peek("q", max=1000, skip=10)] == [10, 11]
        assert await queues.peek("q", skip=12) == []

    async def test_peeking_shows_what_waits(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PEEK, Can.DELAY)
        await queues.send("q", "late", delay=LONG)
        await queues.send("q", "failed")
        await queues.nack("q", (await one(queues, "q")).receipt, delay=LONG, reason="bad")
        seen = {each.value: each for each in await queues.peek("q")}
        assert sorted(seen) == ["failed", "late"]
        assert (seen["failed"].deliveries, seen["late"].deliveries) == (1, 0)
        if Can.ERRORS in harness.capabilities:
            assert seen["failed"].first_error == seen["failed"].last_error == "bad"

    async def test_peeking_shows_priority_and_group(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PEEK, Can.PRIORITY, Can.ORDER)
        await queues.send("q", "plain")
        await queues.send("q", "urgent", priority=5, group="g")
        first, second = await queues.peek("q")
        assert (first.value, first.priority, first.group) == ("urgent", 5, "g")
        assert (second.value, second.priority, second.group) == ("plain", 0, None)

    async def test_dead_letters_in_pages(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PEEK)
        for number in range(4):
            await queues.send("q", number)
            await queues.reject("q", (await one(queues, "q")).receipt, reason=f"bad {number}")
        dead = await queues.dead_letters("q")
        assert [each.value for each in dead] == [0, 1, 2, 3]
        assert [each.last_error for each in dead] == ["bad 0", "bad 1", "bad 2", "bad 3"]
        assert [each.value for each in await queues.dead_letters("q", max=2, skip=1)] == [1, 2]
        with pytest.raises(InvalidArgument):
            await queues.dead_letters("q.dead")

    async def test_a_paused_queue_delivers_nothing(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PAUSE)
        await queues.send("q", "before")
        await queues.send("other", "other")
        await queues.pause("q")
        await queues.pause("q")
        await queues.send("q", "after")
        assert await queues.receive("q", max=10) == []
        stats = await queues.stats("q")
        assert (stats.ready, stats.paused) == (2, True)
        assert values(await queues.receive("other")) == ["other"]
        await queues.resume("q")
        await queues.resume("q")
        assert not (await queues.stats("q")).paused
        assert await drained(queues, "q") == ["before", "after"]

    async def test_an_empty_queue_may_be_paused(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PAUSE)
        for turn in range(2):
            await queues.pause("q")
            assert (await queues.stats("q")).paused
            assert await queues.queues() == (["q"] if turn else [])
            await queues.resume("q")
            assert not (await queues.stats("q")).paused
            await queues.send("q", turn)
            assert await drained(queues, "q") == [turn]
        await queues.pause("q")
        await queues.purge("q")
        assert (await queues.stats("q")).paused
        await queues.resume("q")

    async def test_deliveries_under_way_go_on(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PAUSE)
        for number in range(3):
            await queues.send("q", number)
        first, second, third = [await one(queues, "q") for _ in range(3)]
        await queues.pause("q")
        await queues.ack("q", first.receipt)
        await queues.nack("q", second.receipt, delay=0)
        await queues.reject("q", third.receipt)
        assert await queues.receive("q") == []
        await queues.resume("q")
        assert await drained(queues, "q") == [second.value]

    async def test_resuming_wakes_who_waits(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PAUSE)
        await queues.pause("q")
        task = asyncio.create_task(queues.receive("q", wait=PATIENCE))
        await harness.elapse(2 * harness.tick)
        await queues.send("q", 1)
        await harness.elapse(2 * harness.tick)
        assert not task.done()
        await queues.resume("q")
        assert values(await asyncio.wait_for(task, PATIENCE)) == [1]
