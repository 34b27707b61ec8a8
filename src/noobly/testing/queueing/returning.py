"""Returning: what nobody has worked on goes back as it came, and what a consumer lets go of comes to others."""

from __future__ import annotations

import asyncio

import pytest

from noobly.queueing import Can, Message, Queues, events, names
from noobly.queueing.messages import Value
from noobly.testing.queueing.harness import QueueHarness
from noobly.testing.queueing.theme import LONG, PATIENCE, Theme, buried, comes, flowing, needs, one, recorded, values


async def _all(queues: Queues, count: int) -> list[Value]:
    """Receive so many messages that must be there."""
    found = await queues.receive("q", max=count, lease=LONG)
    while len(found) < count:
        found += [await one(queues, "q")]
    return sorted(values(found))


class ReturningTheme(Theme):
    """A graceful end is no failure."""

    async def test_released_messages_come_again_at_once(self, queues: Queues, harness: QueueHarness) -> None:
        for number in range(2):
            await queues.send("q", number)
        found = [await one(queues, "q"), await one(queues, "q")]
        receipts = [each.receipt for each in found]
        assert await queues.release_many("q", [*receipts, receipts[0]]) == [True, True, False]
        assert await queues.release_many("q", receipts) == [False, False]
        again = [await one(queues, "q"), await one(queues, "q")]
        assert sorted(values(again)) == [0, 1]
        assert {each.deliveries for each in again} == {1 if Can.UNCOUNT in harness.capabilities else 2}
        assert not {each.receipt for each in again} & set(receipts)
        assert await queues.release_many("q", []) == []

    async def test_no_number_of_releases_buries_a_message(self, harness: QueueHarness) -> None:
        needs(harness, Can.UNCOUNT)
        async with harness.open(max_deliveries=2, backoff=harness.tick) as queues:
            await queues.send("q", 1, headers={"h": "1"})
            await queues.nack("q", (await one(queues, "q")).receipt, delay=0)
            for _ in range(3):
                found = await one(queues, "q")
                assert (found.deliveries, found.headers) == (2, {"h": "1"})
                await queues.release_many("q", [found.receipt])
            assert (await queues.nack("q", (await one(queues, "q")).receipt)).dead
            found = await one(queues, names.dead("q"))
            await queues.release_many(names.dead("q"), [found.receipt])
            assert (await one(queues, names.dead("q"))).value == 1

    async def test_how_often_a_released_message_was_delivered(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.UNCOUNT, Can.PEEK)
        await queues.send("q", 1)
        for _ in range(2):
            await queues.release_many("q", [(await one(queues, "q")).receipt])
        assert (await queues.peek("q"))[0].deliveries == 0
        await queues.reject("q", (await one(queues, "q")).receipt)
        assert (await queues.dead_letters("q"))[0].attempts == 1

    async def test_releases_are_told(self, queues: Queues, harness: QueueHarness) -> None:
        if not harness.direct:
            pytest.skip("events stay where the store is")
        given = recorded(queues, events.GivenBack)
        await queues.send("q", 1)
        receipt = (await one(queues, "q")).receipt
        await queues.release_many("q", [receipt, receipt])
        assert [(each.queue, each.delay) for each in given] == [("q", 0)]

    async def test_the_end_of_a_consumer_buries_nothing(self, harness: QueueHarness) -> None:
        async with harness.open(max_deliveries=1) as queues:
            for number in range(3):
                await queues.send("q", number)
            async with queues.consume("q", concurrency=3, lease=LONG) as messages:
                first = await asyncio.wait_for(anext(messages), PATIENCE)
            assert not messages.holds(first)
            assert await buried(queues, "q") == []
            if Can.UNCOUNT in harness.capabilities:
                assert await _all(queues, 3) == [0, 1, 2]

    async def test_handlers_that_are_stopped_bury_nothing(self, harness: QueueHarness) -> None:
        async with harness.open(max_deliveries=1) as queues:
            for number in range(3):
                await queues.send("q", number)
            await self._work_and_stop(queues, 3)
            assert await buried(queues, "q") == []
            if Can.UNCOUNT in harness.capabilities:
                assert await _all(queues, 3) == [0, 1, 2]

    async def test_groups_whose_failures_die_are_spared_too(self, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER)
        async with harness.open(group_failure="dead") as queues:
            await queues.send("q", 0, group="a")
            await queues.send("q", 1, group="b")
            await self._work_and_stop(queues, 2)
            assert await buried(queues, "q") == []
            assert await _all(queues, 2) == [0, 1]

    async def _work_and_stop(self, queues: Queues, count: int) -> None:
        begun = asyncio.Semaphore(0)

        async def handle(message: Message[Value]) -> None:
            begun.release()
            await asyncio.Event().wait()

        # All are busy, so that nobody is waiting at a server that may not notice at once that he is gone.
        task = asyncio.create_task(queues.work("q", handle, concurrency=count, lease=LONG, grace=0))
        async with asyncio.timeout(PATIENCE):
            for _ in range(count):
                await begun.acquire()
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.cancelled()

    async def test_a_stopped_consumer_hands_out_nothing_more(self, queues: Queues) -> None:
        for number in range(3):
            await queues.send("q", number)
        messages = queues.consume("q", concurrency=3, lease=LONG)
        message = await asyncio.wait_for(anext(messages), PATIENCE)
        messages.stop()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(messages), PATIENCE)
        await message.ack()
        assert await _all(queues, 2) == sorted({0, 1, 2} - {message.value})
        await messages.close()

    async def test_what_arrived_is_let_go_with_its_consumer(self, queues: Queues, harness: QueueHarness) -> None:
        for number in range(3):
            await queues.send("q", number)
        found = []
        async for message in queues.consume("q", concurrency=3, lease=2 * harness.tick):
            async with message as value:
                found.append(value)
            break
        # The consumer is gone, though its message is still here, and the collector of cycles has not run.
        assert not message.lost
        for _ in range(2):
            each = await comes(harness, queues, "q", ticks=3)
            found.append(each.value)
            await queues.ack("q", each.receipt)
        assert sorted(found) == [0, 1, 2]

    async def test_an_acknowledgement_outlives_its_receiver(self, queues: Queues, harness: QueueHarness) -> None:
        for turns in range(8):
            await queues.send("q", turns)
            async with queues.consume("q", lease=LONG) as messages:
                message = await asyncio.wait_for(anext(messages), PATIENCE)
                task = asyncio.create_task(_pass(message))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                begun = not messages.holds(message)
            if not begun:
                await queues.ack("q", (await one(queues, "q")).receipt)
            stats = await queues.stats("q")
            assert (stats.ready, stats.delayed, stats.in_flight) == (0, 0, 0)

    async def test_a_typed_receiver_waits_past_what_is_wrong(self, queues: Queues, harness: QueueHarness) -> None:
        numbers = queues.typed("numbers", int)
        await queues.send("numbers", "wrong")

        async def later() -> None:
            while not (await queues.stats("numbers")).dead:
                await harness.elapse(harness.tick / 4)
            await numbers.send(5)

        sending = asyncio.create_task(later())
        async with flowing(harness):
            assert values(await numbers.receive(wait=PATIENCE)) == [5]
        await sending
        await queues.send("numbers", "wrong too")
        await numbers.send(6)
        found = await numbers.receive()
        assert values(found or await numbers.receive(wait=PATIENCE)) == [6]

    async def test_dequeued_by_type(self, queues: Queues, harness: QueueHarness) -> None:
        if not harness.direct:
            pytest.skip("a server knows nothing of the type")
        await queues.send("q", "wrong")
        await queues.send("q", 5)
        assert await queues.dequeue("q", type=int) == 5
        assert await queues.dequeue("q", type=int) is None
        assert await buried(queues, "q") == ["wrong"]


async def _pass(message: Message[Value]) -> None:
    async with message:
        pass
