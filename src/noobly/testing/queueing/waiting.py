"""Waiting: a receiver that waits is there at once when something comes, and loses nothing when it gives up."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from noobly.queueing import Can, Delivery, Queues
from noobly.queueing.messages import Value
from noobly.testing.queueing.harness import QueueHarness
from noobly.testing.queueing.theme import LONG, PATIENCE, Pair, Theme, comes, drained, flowing, needs, one, values

_AT_ONCE = 1.9
"""Seconds that are less than a provider's longest wait, so that looking again only at its end is found out."""

Waiting = asyncio.Task[list[Delivery[Value]]]


async def _waiting(harness: QueueHarness, queues: Queues, queue: str = "q", *, wait: float = PATIENCE) -> Waiting:
    """Start a receiver, and let it begin to wait."""
    task = asyncio.create_task(queues.receive(queue, wait=wait, lease=LONG))
    await harness.elapse(2 * harness.tick)
    return task


class WaitingTheme(Theme):
    """As soon as there is something, and not sooner."""

    async def test_nothing_comes(self, queues: Queues) -> None:
        now = asyncio.get_running_loop().time
        began = now()
        assert await queues.receive("q") == []
        assert await queues.receive("q", wait=0) == []
        assert await queues.receive("q", wait=timedelta(seconds=0.2)) == []
        assert 0.19 <= now() - began < PATIENCE
        assert await queues.queues() == []

    async def test_longer_than_one_call_waits(self, queues: Queues, harness: QueueHarness) -> None:
        task = asyncio.create_task(queues.receive("q", wait=30))
        await asyncio.wait([task], timeout=2.3)
        assert not task.done()
        await queues.send("q", 1)
        assert values(await asyncio.wait_for(task, PATIENCE)) == [1]

    async def test_a_message_that_is_there_is_not_waited_for(self, queues: Queues) -> None:
        await queues.send("q", 1)
        async with asyncio.timeout(PATIENCE):
            assert values(await queues.receive("q", max=10, wait=1000)) == [1]

    async def test_a_sent_message_wakes_it_at_once(self, queues: Queues, harness: QueueHarness) -> None:
        now = asyncio.get_running_loop().time
        for number in range(3):
            task = await _waiting(harness, queues)
            began = now()
            await queues.send("q", number)
            assert values(await asyncio.wait_for(task, PATIENCE)) == [number]
            assert now() - began < _AT_ONCE

    async def test_one_that_another_client_sends_does_too(self, pair: Pair, harness: QueueHarness) -> None:
        here, there = pair
        now = asyncio.get_running_loop().time
        for number in range(3):
            task = await _waiting(harness, there)
            began = now()
            await here.send("q", number)
            assert values(await asyncio.wait_for(task, PATIENCE)) == [number]
            assert now() - began < _AT_ONCE

    async def test_each_of_several_gets_one(self, queues: Queues, harness: QueueHarness) -> None:
        now = asyncio.get_running_loop().time
        tasks = [asyncio.create_task(queues.receive("q", wait=PATIENCE, lease=LONG)) for _ in range(4)]
        other = await _waiting(harness, queues, "other", wait=1000)
        for number in range(4):
            await queues.send("q", number)
        began = now()
        found = await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
        assert now() - began < _AT_ONCE
        assert sorted(each.value for batch in found for each in batch) == [0, 1, 2, 3]
        assert not other.done()
        other.cancel()
        await asyncio.wait([other])

    async def test_a_delay_that_ends_wakes_it(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DELAY)
        task = await _waiting(harness, queues)
        await queues.send("q", 1, delay=3 * harness.tick)
        async with flowing(harness):
            assert values(await task) == [1]

    async def test_one_that_is_given_back_wakes_it(self, queues: Queues, harness: QueueHarness) -> None:
        now = asyncio.get_running_loop().time
        await queues.send("q", 1)
        held = await one(queues, "q")
        task = await _waiting(harness, queues)
        began = now()
        await queues.nack("q", held.receipt, delay=0)
        assert (await asyncio.wait_for(task, PATIENCE))[0].deliveries == 2
        assert now() - began < _AT_ONCE

    async def test_a_pause_that_ends_wakes_it(self, queues: Queues, harness: QueueHarness) -> None:
        await queues.send("q", 1)
        held = await one(queues, "q")
        task = await _waiting(harness, queues)
        await queues.nack("q", held.receipt, delay=2 * harness.tick)
        async with flowing(harness):
            assert (await task)[0].deliveries == 2

    async def test_a_lease_that_ends_wakes_it(self, queues: Queues, harness: QueueHarness) -> None:
        await queues.send("q", 1)
        assert await queues.receive("q", lease=4 * harness.tick)
        task = await _waiting(harness, queues)
        async with flowing(harness):
            assert (await task)[0].deliveries == 2

    async def test_a_group_that_goes_on_wakes_it(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER)
        now = asyncio.get_running_loop().time
        for number in range(2):
            await queues.send("q", number, group="g")
        held = await one(queues, "q")
        task = await _waiting(harness, queues)
        began = now()
        await queues.ack("q", held.receipt)
        assert values(await asyncio.wait_for(task, PATIENCE)) == [1]
        assert now() - began < _AT_ONCE

    async def test_giving_up_loses_nothing(self, queues: Queues, harness: QueueHarness) -> None:
        task = asyncio.create_task(queues.receive("q", wait=PATIENCE, lease=2 * harness.tick))
        await harness.elapse(2 * harness.tick)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await queues.send("q", 1)
        # At worst its lease has to end first: a server may not have noticed yet that the receiver is gone.
        assert (await comes(harness, queues, "q", ticks=0)).value == 1

    async def test_giving_up_just_when_it_comes_loses_nothing(self, harness: QueueHarness) -> None:
        tick = harness.tick
        async with harness.open(lease=2 * tick, max_deliveries=1000) as queues:
            kept: list[int] = []
            for number in range(20):
                task = asyncio.create_task(queues.receive("q", wait=PATIENCE, lease=2 * tick))
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                await queues.send("q", number)
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    kept += values(task.result())
                    await queues.ack_many("q", [each.receipt for each in task.result()])
            for _ in range(20):
                await harness.advance(tick)
                kept += await drained(queues, "q")
                if set(kept) == set(range(20)):
                    break
            assert set(kept) == set(range(20))

    async def test_when_one_gives_up_another_is_woken(self, queues: Queues, harness: QueueHarness) -> None:
        now = asyncio.get_running_loop().time
        first = await _waiting(harness, queues)
        second = await _waiting(harness, queues)
        began = now()
        await queues.send("q", 1)
        first.cancel()
        await asyncio.wait([first])
        if first.cancelled() and harness.direct and not harness.real_time:
            assert values(await asyncio.wait_for(second, PATIENCE)) == [1]
            assert now() - began < _AT_ONCE
            return
        second.cancel()
        await asyncio.wait([second])
