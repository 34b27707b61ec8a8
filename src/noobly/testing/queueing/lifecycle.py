"""Events, and lifecycle: crowds, cancellation in the middle, closing, opening again, servers that come back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from noobly.core.errors import Closed, NooblyError, Unavailable
from noobly.core.events import OperationFinished
from noobly.queueing import Can, Outbound, Queues, events
from noobly.testing.queueing.harness import QueueHarness
from noobly.testing.queueing.theme import LONG, PATIENCE, Pair, Theme, drained, flowing, holds, one, recorded, values

_CALLS: tuple[Callable[[Queues], Awaitable[object]], ...] = (
    lambda queues: queues.send("q", 1),
    lambda queues: queues.send_many("q", [Outbound(message=1)]),
    lambda queues: queues.receive("q"),
    lambda queues: queues.receive("q", wait=5),
    lambda queues: queues.dequeue("q"),
    lambda queues: queues.ack("q", "1mx"),
    lambda queues: queues.nack("q", "1mx"),
    lambda queues: queues.reject("q", "1mx"),
    lambda queues: queues.extend("q", "1mx"),
    lambda queues: queues.size("q"),
    lambda queues: queues.stats("q"),
    lambda queues: queues.queues(),
    lambda queues: queues.purge("q"),
    lambda queues: queues.redrive("q"),
    lambda queues: anext(queues.consume("q")),
    lambda queues: queues.work("q", print),
)


class EventsTheme(Theme):
    """What happens is told to those who listen."""

    async def test_events(self, harness: QueueHarness) -> None:
        if not harness.direct:
            pytest.skip("events stay where the store is")
        async with harness.open(max_deliveries=2) as queues:
            sent, received = recorded(queues, events.Sent), recorded(queues, events.Received)
            done, given = recorded(queues, events.Acknowledged), recorded(queues, events.GivenBack)
            died, purged = recorded(queues, events.Died), recorded(queues, events.Purged)
            await queues.send_many("q", [Outbound(message=number) for number in range(3)])
            await queues.send("q", "last")
            assert [(each.service, each.queue, each.count) for each in sent] == [
                ("queueing", "q", 3),
                ("queueing", "q", 1),
            ]
            found = [await one(queues, "q") for _ in range(3)]
            assert [each.count for each in received] == [1, 1, 1]
            assert await queues.ack_many("q", [found[0].receipt] * 2) == [True, False]
            assert [(each.queue, each.count) for each in done] == [("q", 1)]
            await queues.reject("q", found[1].receipt)
            await queues.nack("q", found[2].receipt, delay=0)
            await queues.nack("q", (await self._again(queues, found[2].id)), delay=LONG)
            assert [(each.queue, each.delay) for each in given] == [("q", 0)]
            assert [(each.queue, each.reason) for each in died] == [("q", "rejected"), ("q", "exhausted")]
            assert [each.message for each in died] == [found[1].id, found[2].id]
            await queues.send("q", "rest")
            count = await queues.purge("q")
            assert [(each.queue, each.count) for each in purged] == [("q", count)]

    async def _again(self, queues: Queues, id: str) -> str:
        while (found := await one(queues, "q")).id != id:
            await queues.ack("q", found.receipt)
        return found.receipt

    async def test_a_killer_is_told_by_its_name(self, harness: QueueHarness) -> None:
        if not harness.direct:
            pytest.skip("events stay where the store is")
        async with harness.open(max_deliveries=1) as queues:
            died = recorded(queues, events.Died)
            sent = await queues.send("q", 1)
            await queues.receive("q", lease=2 * harness.tick)

            async def dead() -> bool:
                assert await queues.receive("q") == []
                return bool(died)

            assert await holds(harness, dead, ticks=3)
            assert [(each.queue, each.message, each.reason) for each in died] == [("q", sent.id, "exhausted")]

    async def test_duplicates_are_not_sent(self, queues: Queues, harness: QueueHarness) -> None:
        if not harness.direct or Can.DEDUP not in harness.capabilities:
            pytest.skip("there are no events, or no duplicates")
        sent = recorded(queues, events.Sent)
        for _ in range(3):
            await queues.send("q", 1, dedup="key")
        assert [each.count for each in sent] == [1]


class LifecycleTheme(Theme):
    """Nothing is lost, and nothing comes twice, whatever callers do."""

    async def test_a_hundred_tasks_at_once(self, queues: Queues, harness: QueueHarness) -> None:
        await self._crowd((queues,), harness)

    async def test_two_clients_at_once(self, pair: Pair, harness: QueueHarness) -> None:
        await self._crowd(pair, harness)

    async def _crowd(self, clients: tuple[Queues, ...], harness: QueueHarness) -> None:
        found: list[int] = []

        async def produce(number: int) -> None:
            client = clients[number % len(clients)]
            for turn in range(6):
                await client.send("q", number * 10 + turn)

        async def consume(number: int) -> None:
            client = clients[number // 2 % len(clients)]
            while len(found) < 300:
                batch = await client.receive("q", max=3, wait=0.5, lease=LONG)
                found.extend(values(batch))
                assert all(await client.ack_many("q", [each.receipt for each in batch]))

        await asyncio.wait_for(asyncio.gather(*map(produce, range(50)), *map(consume, range(50))), timeout=3 * PATIENCE)
        assert sorted(found) == sorted(number * 10 + turn for number in range(50) for turn in range(6))
        stats = await clients[0].stats("q")
        assert (stats.ready, stats.delayed, stats.in_flight) == (0, 0, 0)

    async def test_cancelled_calls_lose_nothing(self, harness: QueueHarness) -> None:
        tick, chance = harness.tick, random.Random(11)
        async with harness.open(lease=4 * tick, max_deliveries=1000) as queues:
            sent: set[str] = set()
            done: list[str] = []

            async def work(number: int) -> None:
                for turn in range(5):
                    await queues.send("q", f"{number} {turn}")
                    sent.add(f"{number} {turn}")
                    await asyncio.sleep(0)
                    found = await queues.receive("q", max=2, wait=0.01)
                    good = await queues.ack_many("q", [each.receipt for each in found])
                    done.extend(each.value for each, stood in zip(found, good, strict=True) if stood)

            tasks = [asyncio.create_task(work(number)) for number in range(60)]
            for step in range(120):
                await asyncio.sleep(0)
                if step % 2:
                    chance.choice(tasks).cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(each is None or isinstance(each, asyncio.CancelledError) for each in ended)
            assert any(isinstance(each, asyncio.CancelledError) for each in ended)

            async def there() -> bool:
                done.extend(await drained(queues, "q"))
                return sent <= set(done) or (await queues.stats("q")).in_flight == 0

            assert await holds(harness, there, ticks=6)
            missing = sent - set(done)
            # An acknowledgement whose caller was cancelled may be done without anybody having counted it.
            assert len(missing) <= 2 * len([each for each in ended if each is not None])
            assert await queues.size("q") == 0

    async def test_closed_queues_refuse_every_call(self, harness: QueueHarness) -> None:
        async with harness.open() as queues:
            await queues.send("q", 1)
        for call in _CALLS:
            with pytest.raises(Closed):
                await call(queues)

    async def test_closing_twice_does_no_harm(self, harness: QueueHarness) -> None:
        async with harness.open() as queues:
            await queues.close()

    async def test_closing_while_somebody_waits(self, harness: QueueHarness) -> None:
        async with harness.open() as queues:
            task = asyncio.create_task(queues.receive("q", wait=LONG))
            await harness.elapse(2 * harness.tick)
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.done()
        assert task.cancelled() or task.exception() is not None or task.result() == []

    async def test_what_was_sent_is_there_again(self, harness: QueueHarness) -> None:
        if not harness.durable:
            pytest.skip("nothing outlives closing")
        extra: dict[str, object] = {"priority": 3} if Can.PRIORITY in harness.capabilities else {}
        async with harness.open() as queues:
            for number in range(10):
                await queues.send("q", number, headers={"n": str(number)})
            await queues.ack("q", (await one(queues, "q")).receipt)
            held = await one(queues, "q")
            failed = await one(queues, "q")
            await queues.nack("q", failed.receipt, delay=0, reason="bad")
            await queues.reject("q", (await one(queues, "q")).receipt, reason="worse")
            await queues.send("other", 1, **extra)  # type: ignore[arg-type]  # a priority, where there is one
        async with harness.open() as queues:
            stats = await queues.stats("q")
            assert (stats.ready, stats.in_flight, stats.dead) == (7, 1, 1)
            assert await queues.queues() == ["other", "q"]
            await queues.ack("q", held.receipt)
            assert (await one(queues, "other")).priority == (3 if extra else 0)
            assert len(await drained(queues, "q")) == 7
            assert (await queues.redrive("q")).moved == 1
            assert await queues.size("q") == 1

    async def test_a_restarted_server_is_found_again(self, harness: QueueHarness) -> None:
        if not harness.restartable:
            pytest.skip("there is no server of our own to restart")
        async with harness.open() as queues:
            for number in range(10):
                await queues.send("q", number)
            await queues.ack("q", (await one(queues, "q")).receipt)
            found: set[object] = set()

            async def consume() -> None:
                async for message in queues.consume("q", concurrency=2):
                    async with message as value:
                        found.add(value)

            consuming = asyncio.create_task(consume())
            await harness.restart()

            async def back() -> bool:
                try:
                    await queues.send("q", "after")
                except NooblyError as error:
                    assert error.temporary, error
                    return False
                return True

            assert await holds(harness, back)
            async with flowing(harness):
                while "after" not in found or (harness.durable and len(found) < 10):
                    assert not consuming.done(), consuming
                    await harness.elapse(harness.tick)
            consuming.cancel()
            await asyncio.wait([consuming])

    async def test_a_server_that_cannot_be_reached(self, harness: QueueHarness) -> None:
        if not harness.restartable:
            pytest.skip("there is no server of our own to stop")
        async with harness.open(timeout=1.0, attempts=2) as queues:
            await queues.send("q", 1)
            await harness.stop()
            for call in (queues.send("q", 2), queues.receive("q"), queues.size("q"), queues.ack("q", "1mx")):
                with pytest.raises(NooblyError) as failure:
                    await call
                assert failure.value.temporary
            with pytest.raises(Unavailable):
                await queues.size("q")
            await harness.restart()

    async def test_every_call_is_counted(self, queues: Queues) -> None:
        done = recorded(queues, OperationFinished)
        await queues.send("q", 1)
        await one(queues, "q")
        assert {each.outcome for each in done} == {"ok"}
        assert len(done) >= 2
