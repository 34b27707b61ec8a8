"""Consuming: one message after another, kept alive while it is worked on, and settled by how the work ends."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import pytest

from noobly.core.correlation import correlated, correlation_id
from noobly.core.errors import InvalidArgument
from noobly.queueing import Can, Consumption, Message, Queues
from noobly.queueing.messages import Value
from noobly.testing.queueing.harness import QueueHarness
from noobly.testing.queueing.theme import LONG, PATIENCE, Theme, buried, comes, flowing, one, values


class Parcel(msgspec.Struct):
    """What a typed queue carries."""

    weight: int
    to: str


async def _next(consumption: Consumption[Value]) -> Message[Value]:
    return await asyncio.wait_for(anext(consumption), PATIENCE)


async def _settled(queues: Queues, queue: str = "q") -> bool:
    stats = await queues.stats(queue)
    return (stats.ready, stats.delayed, stats.in_flight) == (0, 0, 0)


async def _quiet(harness: QueueHarness, queues: Queues, queue: str = "q") -> None:
    """Let time pass until a queue has nothing any more, and still has not: a server may miss one that it just moves."""
    empty = 0
    async with asyncio.timeout(PATIENCE):
        while empty < 3:
            empty = empty + 1 if await _settled(queues, queue) else 0
            await harness.elapse(harness.tick / 10)


async def _until(condition: asyncio.Event) -> None:
    await asyncio.wait_for(condition.wait(), PATIENCE)


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE)
    assert task.done()


class ConsumingTheme(Theme):
    """``async for``, handlers, typed queues."""

    async def test_one_after_another(self, queues: Queues, harness: QueueHarness) -> None:
        found: list[object] = []
        async with flowing(harness), queues.consume("q") as messages:
            for number in range(5):
                await queues.send("q", number, headers={"n": str(number)})
            async for message in messages:
                async with message as value:
                    assert value == message.value
                    assert message.delivery.headers == {"n": str(value)}
                    found.append(value)
                if len(found) == 5:
                    messages.stop()
        assert sorted(found, key=str) == list(range(5))
        assert await _settled(queues)

    async def test_the_work_goes_on_with_what_its_request_began(self, queues: Queues, harness: QueueHarness) -> None:
        with correlated("request-7"):
            await queues.send("q", 1, headers={"h": "1"})
        async with queues.consume("q", lease=LONG) as messages:
            message = await _next(messages)
            assert message.delivery.headers == {"h": "1"}
            async with message:
                assert correlation_id() == "request-7"
                await queues.send("next", 1)
            assert correlation_id() == ""
        assert (await one(queues, "next")).correlation_id == "request-7"
        await queues.send("q", 2)
        async with queues.consume("q", lease=LONG) as messages, await _next(messages):
            assert correlation_id() == "" or not harness.direct  # A request to a server has an id in any case.

    async def test_it_waits_for_what_comes(self, queues: Queues) -> None:
        async with queues.consume("q") as messages:
            task = asyncio.create_task(_next(messages))
            await asyncio.sleep(0)
            await queues.send("q", "later")
            async with await task as value:
                assert value == "later"
        assert await _settled(queues)

    async def test_what_raises_is_given_back(self, harness: QueueHarness) -> None:
        async with harness.open(backoff=harness.tick) as queues:
            sent = await queues.send("q", 1)
            async with flowing(harness), queues.consume("q") as messages:
                async with await _next(messages):
                    raise ValueError("boom")
                again = await _next(messages)
                assert (again.id, again.delivery.deliveries) == (sent.id, 2)
                if Can.ERRORS in harness.capabilities:
                    assert again.delivery.last_error == "ValueError: boom"
                await again.ack()
        assert not messages.holds(again)

    async def test_a_handler_may_settle_by_itself(self, queues: Queues) -> None:
        for number in range(3):
            await queues.send("q", number)
        async with queues.consume("q", concurrency=3, lease=LONG) as messages:
            first, second, third = [await _next(messages) for _ in range(3)]
            async with first:
                await first.reject("not for us")
                raise ValueError("after it was settled")
            async with second:
                assert (await second.nack(delay=0, reason="once more")).delay == 0
            async with third:
                await third.ack()
            again = await _next(messages)
            assert (again.id, again.delivery.deliveries) == (second.id, 2)
            await again.ack()
        assert await buried(queues, "q") == [first.value]
        assert await _settled(queues)

    async def test_no_more_are_open_than_may_be(self, queues: Queues, harness: QueueHarness) -> None:
        for number in range(10):
            await queues.send("q", number)
        async with queues.consume("q", concurrency=3, lease=LONG) as messages:
            opened = [await _next(messages) for _ in range(3)]
            waiting = asyncio.create_task(_next(messages))
            await harness.elapse(3 * harness.tick)
            assert not waiting.done()
            assert (await queues.stats("q")).in_flight == 3
            await opened[1].ack()
            await waiting
            assert (await queues.stats("q")).in_flight == 3
        stats = await queues.stats("q")
        assert (stats.ready + stats.delayed, stats.in_flight) == (9, 0)

    async def test_what_is_open_at_the_end_goes_back(self, queues: Queues, harness: QueueHarness) -> None:
        for number in range(5):
            await queues.send("q", number)
        async with queues.consume("q", concurrency=5, lease=LONG) as messages:
            await _next(messages)
            while (await queues.stats("q")).in_flight < 5:
                await _next(messages)
        found = await queues.receive("q", max=5)
        while len(found) < 5:
            found += await queues.receive("q", max=5, wait=PATIENCE)
        assert sorted(values(found)) == list(range(5))
        assert {each.deliveries for each in found} == {1 if Can.UNCOUNT in harness.capabilities else 2}

    async def test_a_message_is_kept_as_long_as_its_handler_takes(self, queues: Queues, harness: QueueHarness) -> None:
        lease = 3.0 if harness.real_time else 8 * harness.tick
        await queues.send("q", 1)
        async with queues.consume("q", lease=lease) as messages:
            message = await _next(messages)
            await harness.elapse(1.5 * lease)
            assert await queues.receive("q") == []
            assert not message.lost
            await message.ack()
        assert await _settled(queues)

    async def test_a_message_that_was_lost_is_known(self, queues: Queues) -> None:
        await queues.send("q", 1)
        async with queues.consume("q", lease=LONG) as messages:
            message = await _next(messages)
            assert messages.holds(message)
            await queues.ack("q", message.delivery.receipt)  # As if somebody else had it, and was done.
            await messages.beat()
            assert message.lost
            assert not messages.holds(message)
            async with message:
                pass
            await queues.send("q", 2)
            assert (await _next(messages)).value == 2

    async def test_stopping_lets_open_messages_be_settled(self, queues: Queues) -> None:
        for number in range(2):
            await queues.send("q", number)
        async with queues.consume("q", lease=LONG) as messages:
            message = await _next(messages)
            messages.stop()
            with pytest.raises(StopAsyncIteration):
                await _next(messages)
            await message.ack()
        assert await queues.size("q") == 1

    @pytest.mark.parametrize("concurrency", [0, -1, 1001, True, 1.5, "2"], ids=repr)
    async def test_bad_numbers_at_once(self, queues: Queues, concurrency: int) -> None:
        with pytest.raises(InvalidArgument, match="concurrency"):
            queues.consume("q", concurrency=concurrency)

    async def test_handlers_run_side_by_side(self, queues: Queues, harness: QueueHarness) -> None:
        done: list[object] = []
        running: set[str] = set()
        most = 0

        async def handle(message: Message[Value]) -> None:
            nonlocal most
            running.add(message.id)
            most = max(most, len(running))
            await asyncio.sleep(0.001)
            running.discard(message.id)
            done.append(message.value)

        for number in range(30):
            await queues.send("q", number)
        task = asyncio.create_task(queues.work("q", handle, concurrency=4, lease=LONG))
        await _quiet(harness, queues)
        await _ended(task)
        assert sorted(done, key=str) == sorted(range(30), key=str)
        assert 1 < most <= 4

    async def test_plain_handlers_run_in_threads(self, queues: Queues, harness: QueueHarness) -> None:
        threads: list[str] = []

        def handle(message: Message[Value]) -> None:
            threads.append(threading.current_thread().name)

        for number in range(3):
            await queues.send("q", number)
        task = asyncio.create_task(queues.work("q", handle, concurrency=2, lease=LONG))
        await _quiet(harness, queues)
        await _ended(task)
        assert len(threads) == 3
        assert threading.current_thread().name not in threads

    async def test_a_handler_that_raises_gets_it_again(self, harness: QueueHarness) -> None:
        seen: list[tuple[object, int]] = []

        def handle(message: Message[Value]) -> None:
            seen.append((message.value, message.delivery.deliveries))
            if message.value == "bad" or message.delivery.deliveries == 1:
                raise RuntimeError("lone \ud800 half")

        async with harness.open(backoff=harness.tick / 4, max_deliveries=3) as queues:
            for value in ("good", "bad"):
                await queues.send("q", value)
            task = asyncio.create_task(queues.work("q", handle, lease=LONG))
            await _quiet(harness, queues)
            await _ended(task)
            assert sorted(seen) == [("bad", 1), ("bad", 2), ("bad", 3), ("good", 1), ("good", 2)]
            assert await buried(queues, "q") == ["bad"]

    async def test_a_graceful_end(self, queues: Queues) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def handle(message: Message[Value]) -> None:
            begun.set()
            await go_on.wait()

        for number in range(3):
            await queues.send("q", number)
        task = asyncio.create_task(queues.work("q", handle, concurrency=1, lease=LONG, grace=PATIENCE))
        await _until(begun)
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.cancelled()
        stats = await queues.stats("q")
        assert (stats.ready, stats.in_flight) == (2, 0)

    async def test_handlers_that_outlast_the_grace(self, harness: QueueHarness) -> None:
        begun, ends = asyncio.Event(), 0

        async def handle(message: Message[Value]) -> None:
            nonlocal ends
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ends += 1

        async with harness.open(max_deliveries=100) as queues:
            await queues.send("q", 1)
            for ended, grace in enumerate((0.05, PATIENCE), 1):
                begun.clear()
                task = asyncio.create_task(queues.work("q", handle, lease=4 * harness.tick, grace=grace))
                await _until(begun)
                task.cancel()
                await harness.elapse(harness.tick)
                if grace == PATIENCE:
                    task.cancel()  # Once more: whoever waits for the end waits no longer.
                await asyncio.wait([task], timeout=PATIENCE)
                assert task.cancelled()
                assert ends == ended
                # A server may not have noticed yet that a receiver is gone, and may hold the message for it.
                async with flowing(harness):
                    found = await one(queues, "q")
                counted = 1 if Can.UNCOUNT in harness.capabilities else 2
                assert found.deliveries == counted * ended or not harness.direct
                await queues.nack("q", found.receipt, delay=0)

    async def test_typed_queues(self, queues: Queues) -> None:
        parcels = queues.typed("parcels", Parcel)
        await parcels.send(Parcel(5, "Ada"), headers={"h": "1"})
        (found,) = await parcels.receive(wait=PATIENCE)
        assert found.value == Parcel(5, "Ada")
        assert found.headers == {"h": "1"}
        with pytest.raises(InvalidArgument, match="parcels"):
            await parcels.send(Parcel("heavy", "Ada"))  # type: ignore[arg-type]  # what is refused
        with pytest.raises(InvalidArgument):
            await queues.typed("numbers", int).send("5")  # type: ignore[arg-type]  # what is refused
        await queues.typed("lists", list[int]).send([1, 2])
        assert await queues.dequeue("lists") == [1, 2]

    async def test_what_is_not_of_the_type_dies(self, queues: Queues) -> None:
        parcels = queues.typed("parcels", Parcel)
        await queues.send("parcels", {"weight": "heavy"})
        await parcels.send(Parcel(5, "Ada"))
        found = [*await parcels.receive(max=10, wait=PATIENCE), *await parcels.receive(max=10)]
        assert values(found) == [Parcel(5, "Ada")]
        assert await buried(queues, "parcels") == [{"weight": "heavy"}]

    async def test_consuming_by_type(self, queues: Queues) -> None:
        await queues.send("parcels", "no parcel")
        await queues.send("parcels", Parcel(5, "Ada"))
        async with queues.typed("parcels", Parcel).consume(lease=LONG) as messages:
            message = await asyncio.wait_for(anext(messages), PATIENCE)
            assert message.value == Parcel(5, "Ada")
            await message.ack()
        assert await buried(queues, "parcels") == ["no parcel"]

    async def test_working_by_type(self, queues: Queues, harness: QueueHarness) -> None:
        weights: list[int] = []

        async def handle(message: Message[Parcel]) -> None:
            weights.append(message.value.weight)

        await queues.send("parcels", [])
        await queues.send("parcels", Parcel(5, "Ada"))
        task = asyncio.create_task(queues.typed("parcels", Parcel).work(handle, lease=LONG))
        await _quiet(harness, queues, "parcels")
        await _ended(task)
        assert weights == [5]

    async def test_closing_the_queues_ends_the_consuming(self, harness: QueueHarness) -> None:
        async with harness.open() as queues:
            await queues.send("q", 1)
            messages = queues.consume("q", lease=2 * harness.tick)
            await _next(messages)
        if harness.shared and harness.durable:
            async with harness.open() as queues:
                assert (await comes(harness, queues, "q", ticks=3)).deliveries == 2
