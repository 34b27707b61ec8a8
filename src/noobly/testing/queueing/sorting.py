"""Priority, delays, keys sent twice, and messages that come too late."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from noobly.queueing import Can, Outbound, Queues
from noobly.queueing.events import Expired
from noobly.testing.queueing.harness import QueueHarness
from noobly.testing.queueing.theme import LONG, Theme, comes, drained, holds, needs, one, recorded, values

_DAY = 86_400.0


class PriorityTheme(Theme):
    """Higher ones first."""

    async def test_from_nine_to_nought(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PRIORITY)
        for priority in (3, 0, 9, 5, 1, 7, 2, 8, 4, 6):
            await queues.send("q", priority, priority=priority)
        first = await one(queues, "q")
        assert (first.value, first.priority) == (9, 9)
        assert await drained(queues, "q") == [8, 7, 6, 5, 4, 3, 2, 1, 0]

    async def test_of_equal_ones_the_first(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PRIORITY)
        sent = [Outbound(message=number, priority=number % 3) for number in range(12)]
        await queues.send_many("q", sent)
        assert await drained(queues, "q") == [2, 5, 8, 11, 1, 4, 7, 10, 0, 3, 6, 9]

    async def test_one_that_comes_later_overtakes(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PRIORITY)
        for number in range(4):
            await queues.send("q", number)
        await queues.ack("q", (await one(queues, "q")).receipt)
        await queues.send("q", "urgent", priority=1)
        assert await drained(queues, "q") == ["urgent", 1, 2, 3]

    async def test_it_stays_when_given_back(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PRIORITY)
        await queues.send("q", "urgent", priority=4)
        await queues.nack("q", (await one(queues, "q")).receipt, delay=0)
        await queues.send("q", "plain")
        assert (await one(queues, "q")).value == "urgent"

    async def test_with_a_delay(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PRIORITY, Can.DELAY)
        await queues.send("q", "never", priority=9, delay=LONG)
        await queues.send("q", "urgent", priority=8, delay=2 * harness.tick)
        await queues.send("other", "urgent", delay=2 * harness.tick)
        for number in range(3):
            await queues.send("q", number)
        assert (await comes(harness, queues, "other", ticks=3)).value == "urgent"
        assert await holds(harness, lambda: _ready(queues, 4))
        assert await drained(queues, "q") == ["urgent", 0, 1, 2]


async def _ready(queues: Queues, count: int) -> bool:
    return (await queues.stats("q")).ready == count


class DelaysTheme(Theme):
    """Not before its time."""

    async def test_it_comes_when_its_time_has_come(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DELAY)
        await queues.send("q", "late", delay=timedelta(seconds=LONG))
        await queues.send("q", "soon", delay=2 * harness.tick)
        await queues.send("q", "now", delay=0)
        assert (await one(queues, "q")).value == "now"
        found = await comes(harness, queues, "q", ticks=3)
        assert (found.value, found.deliveries) == ("soon", 1)
        assert await queues.receive("q", max=10) == []
        stats = await queues.stats("q")
        assert (stats.ready, stats.delayed, stats.in_flight, stats.oldest) == (0, 1, 2, None)
        assert await queues.size("q") == 1

    async def test_to_the_moment(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DELAY)
        await queues.send("q", 1, delay=10)
        if harness.real_time:
            assert await queues.receive("q") == []
            return
        await harness.advance(9.9)
        assert await queues.receive("q") == []
        await harness.advance(0.2)
        assert values(await queues.receive("q")) == [1]

    async def test_of_many(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DELAY)
        await queues.send_many(
            "q", [Outbound(message=number, delay=LONG if number % 2 else None) for number in range(6)]
        )
        assert await drained(queues, "q") == [0, 2, 4]
        assert (await queues.stats("q")).delayed == 3

    async def test_a_day(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DELAY)
        await queues.send("q", 1, delay=_DAY)
        assert await queues.receive("q") == []
        if not harness.real_time:
            await harness.advance(_DAY - 1)
            assert await queues.receive("q") == []
            await harness.advance(2)
            assert values(await queues.receive("q")) == [1]

    async def test_purged(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DELAY)
        await queues.send("q", 1, delay=2 * harness.tick)
        assert await queues.purge("q") == 1
        await harness.advance(3 * harness.tick)
        assert await queues.receive("q") == []


class DedupTheme(Theme):
    """The same key twice is one message."""

    async def test_the_second_is_dropped(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DEDUP)
        first = await queues.send("q", "first", dedup="key")
        again = await queues.send("q", "second", dedup="key")
        assert (again.id, again.duplicate, first.duplicate) == (first.id, True, False)
        assert not (await queues.send("q", "other", dedup="other key")).duplicate
        assert not (await queues.send("q", "none")).duplicate
        assert sorted(await drained(queues, "q")) == ["first", "none", "other"]
        assert (await queues.send("q", "third", dedup="key")).duplicate
        assert await queues.size("q") == 0

    async def test_queues_have_keys_of_their_own(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DEDUP)
        for queue in ("one", "other"):
            assert not (await queues.send(queue, queue, dedup="key")).duplicate
            assert values(await queues.receive(queue)) == [queue]

    async def test_after_the_window_it_is_new(self, harness: QueueHarness) -> None:
        needs(harness, Can.DEDUP)
        async with harness.open(dedup_window=2 * harness.tick) as queues:
            first = await queues.send("q", 1, dedup="key")
            await queues.send("q", 1, dedup="other")

            async def taken() -> bool:
                return not (await queues.send("q", 2, dedup="key")).duplicate

            assert await holds(harness, taken, ticks=3)
            again = await queues.send("q", 3, dedup="key")
            assert again.id != first.id or not again.duplicate

    async def test_the_window_does_not_slide(self, harness: QueueHarness) -> None:
        needs(harness, Can.DEDUP)
        if harness.real_time:
            return
        async with harness.open(dedup_window=10) as queues:
            await queues.send("q", 1, dedup="key")
            await harness.advance(6)
            assert (await queues.send("q", 2, dedup="key")).duplicate
            await harness.advance(3.9)
            assert (await queues.send("q", 2, dedup="key")).duplicate
            await harness.advance(0.2)
            assert not (await queues.send("q", 3, dedup="key")).duplicate

    async def test_duplicates_among_many(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DEDUP)
        sent = await queues.send_many("q", [Outbound(message=number, dedup=f"{number % 3}") for number in range(9)])
        assert [each.duplicate for each in sent] == [False] * 3 + [True] * 6
        assert [each.id for each in sent[:3]] * 2 == [each.id for each in sent[3:]]
        raced = await asyncio.gather(*(queues.send("race", number, dedup="key") for number in range(20)))
        assert sum(not each.duplicate for each in raced) == 1
        assert len({each.id for each in raced}) == 1
        assert await queues.size("race") == 1

    async def test_redriven_messages_are_no_duplicates(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DEDUP)
        await queues.send("q", 1, dedup="key")
        await queues.reject("q", (await one(queues, "q")).receipt)
        assert (await queues.redrive("q")).moved == 1
        assert await drained(queues, "q") == [1]


class TtlTheme(Theme):
    """What nobody has received in its time is dropped."""

    async def test_dropped(self, queues: Queues, harness: QueueHarness) -> None:
        sent = await queues.send("q", "short", ttl=2 * harness.tick)
        await queues.send("q", "long", ttl=timedelta(days=1))
        await queues.send("q", "endless")
        expired = recorded(queues, Expired)
        await harness.advance(3 * harness.tick)
        assert sorted(await drained(queues, "q")) == ["endless", "long"]
        stats = await queues.stats("q")
        assert (stats.ready, stats.in_flight, stats.dead) == (0, 0, 0)
        if harness.direct:
            assert [(each.queue, each.message) for each in expired] == [("q", sent.id)]

    async def test_one_receive_passes_over_them(self, queues: Queues, harness: QueueHarness) -> None:
        for number in range(20):
            await queues.send("q", number, ttl=2 * harness.tick)
        await queues.send("q", "good")
        await harness.advance(3 * harness.tick)
        assert (await one(queues, "q")).value == "good"

    async def test_the_default_of_the_options(self, harness: QueueHarness) -> None:
        async with harness.open(ttl=2 * harness.tick) as queues:
            await queues.send("q", "short")
            await queues.send("q", "long", ttl=LONG)
            await harness.advance(3 * harness.tick)
            assert await drained(queues, "q") == ["long"]

    async def test_it_counts_from_the_end_of_a_delay(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DELAY)
        if harness.real_time:
            return
        await queues.send("q", 1, delay=10, ttl=5)
        await harness.advance(14)
        assert values(await queues.receive("q")) == [1]

    async def test_what_was_received_in_time_is_not_dropped(self, queues: Queues, harness: QueueHarness) -> None:
        await queues.send("q", 1, ttl=20 * harness.tick)
        found = await one(queues, "q")
        await harness.advance(21 * harness.tick)
        await queues.nack("q", found.receipt, delay=0)
        found = await one(queues, "q")
        assert found.deliveries == 2
        await queues.reject("q", found.receipt)
        assert (await queues.redrive("q")).moved == 1
        assert await drained(queues, "q") == [1]
