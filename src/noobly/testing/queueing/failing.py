"""Failing: messages come again after a pause, and end among the dead letters with all that is known of them."""

from __future__ import annotations

import asyncio

import pytest

from noobly.core.clock import fresh_id
from noobly.core.errors import InvalidArgument
from noobly.queueing import Can, Queues, names
from noobly.queueing.driver import Posted
from noobly.testing.queueing.harness import CHANCE, QueueHarness
from noobly.testing.queueing.theme import LONG, Theme, buried, can_peek, comes, drained, holds, needs, one, values


async def _die(queues: Queues, value: object, error: str) -> None:
    await queues.send("q", value)
    await queues.reject("q", (await one(queues, "q")).receipt, reason=error)


class FailingTheme(Theme):
    """What fails is tried again, a while later, and not for ever."""

    async def test_given_back_at_once(self, queues: Queues) -> None:
        await queues.send("q", 1)
        found = await one(queues, "q")
        returned = await queues.nack("q", found.receipt, delay=0)
        assert (returned.delay, returned.dead) == (0, False)
        assert (await one(queues, "q")).deliveries == 2

    async def test_given_back_for_later(self, queues: Queues, harness: QueueHarness) -> None:
        for queue, delay in (("soon", 2 * harness.tick), ("late", LONG)):
            await queues.send(queue, queue)
            returned = await queues.nack(queue, (await one(queues, queue)).receipt, delay=delay)
            assert (returned.delay, returned.dead) == (delay, False)
        stats = await queues.stats("late")
        assert (stats.ready, stats.delayed, stats.in_flight) == (0, 1, 0)
        again = await comes(harness, queues, "soon", ticks=3)
        assert (again.value, again.deliveries) == ("soon", 2)
        assert await queues.receive("late") == []

    async def test_the_pause_doubles_with_jitter_up_to_its_cap(self, harness: QueueHarness) -> None:
        tick = harness.tick
        async with harness.open(backoff=2 * tick, backoff_cap=6 * tick, max_deliveries=5) as queues:
            await queues.send("q", 1)
            found = await one(queues, "q")
            for pause in (2 * tick, 4 * tick, 6 * tick, 6 * tick):
                returned = await queues.nack("q", found.receipt)
                assert returned.delay == pytest.approx(pause * CHANCE)
                found = await comes(harness, queues, "q", ticks=pause * CHANCE / tick + 1)
            assert found.deliveries == 5

    async def test_retries_do_not_hold_the_others_up(self, queues: Queues) -> None:
        await queues.send("q", "failing")
        await queues.nack("q", (await one(queues, "q")).receipt, delay=LONG)
        await queues.send("q", "next")
        assert (await one(queues, "q")).value == "next"

    async def test_first_and_last_error_stay_with_it(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.ERRORS)
        await queues.send("q", 1)
        for first, last, reason in (("", "", "one"), ("one", "one", ""), ("one", "one", "two"), ("one", "two", "x")):
            found = await one(queues, "q")
            assert (found.first_error, found.last_error) == (first, last)
            await queues.nack("q", found.receipt, delay=0, reason=reason)

    async def test_odd_and_long_reasons(self, queues: Queues, harness: QueueHarness) -> None:
        for reason in ("naïve 鍵 🦊 \x00\n'\"", "x" * 5000):
            await queues.send("q", 1)
            await queues.nack("q", (await one(queues, "q")).receipt, delay=0, reason=reason)
            found = await one(queues, "q")
            if Can.ERRORS in harness.capabilities and reason.isprintable():
                assert found.last_error == reason[:1000]
            await queues.reject("q", found.receipt, reason=reason)
        assert (await queues.stats("q")).dead == 2

    async def test_after_the_last_delivery_it_dies(self, harness: QueueHarness) -> None:
        async with harness.open(max_deliveries=3) as queues:
            sent = await queues.send("q", {"a": 1}, headers={"h": "1"})
            for reason in ("first", "second"):
                assert not (await queues.nack("q", (await one(queues, "q")).receipt, delay=0, reason=reason)).dead
            returned = await queues.nack("q", (await one(queues, "q")).receipt, delay=LONG, reason="third")
            assert (returned.dead, returned.delay) == (True, 0)
            assert await queues.receive("q") == []
            stats = await queues.stats("q")
            assert (stats.ready, stats.delayed, stats.in_flight, stats.dead) == (0, 0, 0, 1)
            if can_peek(harness):
                await self._check_dead_letter(queues, harness, sent.id)
            found = await one(queues, names.dead("q"))
            assert (found.id, found.value, found.headers, found.deliveries) == (sent.id, {"a": 1}, {"h": "1"}, 1)
            assert found.last_error == "third"

    async def _check_dead_letter(self, queues: Queues, harness: QueueHarness, id: str) -> None:
        (dead,) = await queues.dead_letters("q")
        assert (dead.id, dead.origin, dead.value, dead.headers) == (id, "q", {"a": 1}, {"h": "1"})
        assert (dead.attempts, dead.last_error) == (3, "third")
        assert dead.first_error == ("first" if Can.ERRORS in harness.capabilities else dead.first_error)
        assert dead.died_at == pytest.approx(harness.now(), abs=30)
        assert dead.sent_at <= dead.died_at + 5

    async def test_what_its_options_asked_for_stays(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PRIORITY, Can.ORDER)
        await queues.send("q", 1, priority=7, group="g")
        await queues.reject("q", (await one(queues, "q")).receipt)
        found = await one(queues, names.dead("q"))
        assert (found.priority, found.group) == (7, "g")

    async def test_a_message_that_kills_its_receivers_dies_too(self, harness: QueueHarness) -> None:
        tick = harness.tick
        async with harness.open(max_deliveries=2) as queues:
            await queues.send("q", "killer")
            assert (await queues.receive("q", lease=2 * tick))[0].deliveries == 1
            found = await comes(harness, queues, "q", ticks=3)
            assert found.deliveries == 2
            await queues.extend("q", found.receipt, 2 * tick)
            await harness.advance(3 * tick)
            for _ in range(20):
                assert await queues.receive("q") == []
                if (await queues.stats("q")).dead:
                    break
                await harness.advance(tick / 2)
            assert await buried(queues, "q") == ["killer"]
            if can_peek(harness):
                assert (await queues.stats("q")).dead == 1

    async def test_it_is_told_how_often_a_killer_was_delivered(self, harness: QueueHarness) -> None:
        needs(harness, Can.PEEK)
        async with harness.open(max_deliveries=1) as queues:
            await queues.send("q", "killer")
            await queues.receive("q", lease=2 * harness.tick)
            await harness.advance(4 * harness.tick)
            assert await queues.receive("q", max=10) == []
            (dead,) = await queues.dead_letters("q")
            assert (dead.value, dead.attempts) == ("killer", 2)
            assert "delivered 1 times" in dead.last_error

    async def test_rejected(self, queues: Queues, harness: QueueHarness) -> None:
        sent = await queues.send("q", 1)
        await queues.reject("q", (await one(queues, "q")).receipt, reason="no such customer")
        assert await queues.receive("q") == []
        found = await one(queues, names.dead("q"))
        assert (found.id, found.value, found.last_error) == (sent.id, 1, "no such customer")
        if Can.ERRORS in harness.capabilities:
            assert found.first_error == "no such customer"

    async def test_dead_letters_do_not_die_again(self, harness: QueueHarness) -> None:
        async with harness.open(max_deliveries=1) as queues:
            await _die(queues, 1, "bad")
            for number in range(1, 5):
                found = await one(queues, names.dead("q"))
                assert (found.value, found.deliveries) == (1, number)
                await queues.extend(names.dead("q"), found.receipt, 2 * harness.tick)
                await harness.advance(4 * harness.tick)

    async def test_dead_letters_that_fail_once_more_stay(self, harness: QueueHarness) -> None:
        dead = names.dead("q")
        async with harness.open(max_deliveries=1, backoff=harness.tick) as queues:
            await _die(queues, 1, "bad")
            assert (await queues.nack(dead, (await one(queues, dead)).receipt, delay=0, reason="no")).dead is False
            await queues.reject(dead, (await one(queues, dead)).receipt, reason="never")
            found = await comes(harness, queues, dead, ticks=1)
            assert (found.value, found.deliveries) == (1, 3)
            await queues.nack(dead, found.receipt, delay=0)
            assert (await queues.stats("q")).dead == 1
            assert (await queues.redrive("q")).moved == 1

    async def test_letters_that_cannot_be_read_are_not_hidden(self, harness: QueueHarness) -> None:
        dead = names.dead("q")
        async with harness.open(backoff=harness.tick) as queues, harness.open_bare() as driver:
            await driver.send(dead, [Posted(id=fresh_id(), body=b"\xff{")])
            assert await queues.receive(dead, max=10, lease=LONG) == []

            async def back() -> bool:
                return (await queues.redrive("q", to="elsewhere")).moved == 1

            assert await holds(harness, back, ticks=1)

    @pytest.mark.parametrize(
        ("body", "headers"),
        [(b"\xff{", ""), (b"", ""), (b"[1, 2", ""), (b"1", "{no json"), (b"1", '{"c": 99}'), (b"\xc1", '{"c": 1}')],
        ids=repr,
    )
    async def test_what_is_no_message_dies_and_its_receiver_lives(
        self, queues: Queues, harness: QueueHarness, body: bytes, headers: str
    ) -> None:
        async with harness.open_bare() as driver:
            await driver.send("q", [Posted(id=fresh_id(), body=body, headers=headers)])
        await queues.send("q", "good")
        assert (await one(queues, "q")).value == "good"
        assert await queues.receive("q", max=10) == []
        assert (await queues.stats("q")).dead == 1
        assert await buried(queues, "q") == []
        if can_peek(harness):
            assert (await queues.stats("q")).dead == 1

    async def test_what_is_no_message_can_be_seen(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.PEEK)
        async with harness.open_bare() as driver:
            await driver.send("q", [Posted(id=fresh_id(), body=b"\xff{")])
        (seen,) = await queues.peek("q")
        assert (seen.value, seen.readable) == (None, False)
        assert await queues.receive("q") == []
        (dead,) = await queues.dead_letters("q")
        assert (dead.value, dead.origin, dead.attempts) == (None, "q", 1)
        assert dead.last_error

    async def test_redriven(self, queues: Queues) -> None:
        for number in range(5):
            await _die(queues, number, "timeout" if number % 2 else "bad")
        redriven = await queues.redrive("q")
        assert (redriven.seen, redriven.moved) == (5, 5)
        assert (await queues.stats("q")).dead == 0
        found = await queues.receive("q", max=10, lease=LONG)
        while more := await queues.receive("q", max=10, lease=LONG):
            found += more
        assert sorted(values(found)) == list(range(5))
        assert {each.deliveries for each in found} == {1}
        assert (await queues.redrive("q")).seen == 0

    async def test_what_is_no_message_is_redriven_as_it_is(self, queues: Queues, harness: QueueHarness) -> None:
        async with harness.open_bare() as driver:
            await driver.send("q", [Posted(id=fresh_id(), body=b"\xff{")])
            assert await queues.receive("q") == []
            assert (await queues.redrive("q", to="elsewhere")).moved == 1
            (found,) = await driver.receive("elsewhere", 10, LONG, 2.0)
            assert found.message.body == b"\xff{"

    async def test_redriven_by_error(self, queues: Queues) -> None:
        for number in range(5):
            await _die(queues, number, f"timeout of {number}" if number % 2 else "bad")
        redriven = await queues.redrive("q", error="timeout")
        assert (redriven.seen, redriven.moved) == (5, 2)
        assert sorted(await drained(queues, "q")) == [1, 3]
        assert (await queues.stats("q")).dead == 3
        assert (await queues.redrive("q", error="bad")).moved == 3
        assert sorted(await drained(queues, "q")) == [0, 2, 4]

    async def test_redriven_elsewhere_a_few_at_a_time(self, queues: Queues) -> None:
        for number in range(4):
            await _die(queues, number, "bad")
        assert (await queues.redrive("q", to="elsewhere", max=3)).moved == 3
        assert (await queues.stats("q")).dead == 1
        assert await queues.size("elsewhere") == 3
        assert await queues.size("q") == 0

    async def test_a_cancelled_redrive_loses_and_doubles_nothing(self, harness: QueueHarness) -> None:
        async with harness.open() as queues:
            for turns in (1, 2, 3, 5, 8, 13, 21, 34):
                for number in range(3):
                    await _die(queues, number, "bad")
                task = asyncio.create_task(queues.redrive("q"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])

                async def free() -> bool:
                    await queues.redrive("q")
                    return await queues.size("q") >= 3

                assert await holds(harness, free)
                assert sorted(await drained(queues, "q")) == [0, 1, 2]
                assert (await queues.redrive("q")).seen == 0

    async def test_redriven_at_a_rate(self, queues: Queues) -> None:
        for number in range(4):
            await _die(queues, number, "bad")
        now = asyncio.get_running_loop().time
        began = now()
        assert (await queues.redrive("q", rate=20)).moved == 4
        assert now() - began >= 0.15

    async def test_moved(self, queues: Queues) -> None:
        for number in range(5):
            await queues.send("q", number, headers={"n": str(number)})
        held = await one(queues, "q")
        moved = await queues.move("q", "elsewhere")
        assert (moved.seen, moved.moved) == (4, 4)
        found = await drained(queues, "elsewhere")
        assert sorted([*found, held.value]) == list(range(5))
        await queues.ack("q", held.receipt)
        with pytest.raises(InvalidArgument, match="itself"):
            await queues.move("q", "q")
