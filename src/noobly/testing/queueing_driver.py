"""The conformance suite of queue drivers: what ``queueing/driver.py`` promises, on the bare provider.

    class TestMine(QueueDriverSuite):
        @pytest.fixture
        def harness(self) -> QueueHarness:
            return EmbeddedQueues("mine://", capabilities=frozenset({Can.DELAY}))

Run it first while writing a provider; ``noobly.testing.queueing`` then says whether queues work on it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count

import msgspec
import pytest

from noobly.core.errors import Unsupported
from noobly.queueing import Can
from noobly.queueing.driver import Failure, Leased, Posted, QueueDriver
from noobly.testing.queueing.harness import QueueHarness

NAMES = (
    "plain", "a/b", "..", ".", "trail/", " ", "two\nlines\n", "\r\n", "\x00", "".join(map(chr, range(32))), "%2F",
    "?a=1#b", "naïve 鍵 🦊", "e\u0301", "\u00e9", "*", "#", ">", "[a-z]?", "\\", "'; --", ":", "x.dead", "Q", "q",
    "q" * 256, "鍵" * 256,
)  # fmt: skip
BODIES = (b"", b"\x00", b"data", b"5", b"\r\nEND\r\n", bytes(range(256)) * 4)
RECEIPTS = ("x", "1", "99.1", "-1", "a.b.c", "\x00", "鍵", "' OR 1=1", "x" * 4096, "%s", "1:2:3", "AAAA==")
LONG = 600.0
WAIT = 2.0

_ids = count(1)


def posted(body: bytes = b"x") -> Posted:
    """Return a message with an id of its own."""
    return Posted(id=f"message-{next(_ids)}", body=body)


def numbered(amount: int) -> list[Posted]:
    """Return messages whose bodies are ``0``, ``1`` and so on."""
    return [posted(b"%d" % number) for number in range(amount)]


def bodies(found: Sequence[Leased]) -> list[bytes]:
    """Return what messages carry."""
    return [one.message.body for one in found]


class QueueDriverSuite:
    """Every promise of the driver protocol; a subclass overrides the ``harness`` fixture."""

    @pytest.fixture
    def harness(self) -> QueueHarness:
        """Return a harness that no other test uses."""
        raise NotImplementedError("override the harness fixture: it says how to open the provider under test")

    @pytest.fixture
    async def driver(self, harness: QueueHarness) -> AsyncIterator[QueueDriver]:
        """Open the bare provider."""
        async with harness.open_bare() as driver:
            yield driver

    async def test_what_it_claims_is_what_it_has(self, driver: QueueDriver, harness: QueueHarness) -> None:
        named = {Can.PRIORITY, Can.DELAY, Can.DEDUP, Can.ORDER, Can.FAIR, Can.ERRORS, Can.UNCOUNT}
        assert driver.features == harness.capabilities & named
        if Can.PEEK not in harness.capabilities:
            with pytest.raises(Unsupported):
                await driver.peek("q", 0, 1)
        if Can.PAUSE not in harness.capabilities:
            with pytest.raises(Unsupported):
                await driver.pause("q")
        assert driver.limits.value_bytes > 0
        assert driver.scheme

    async def test_health_is_quiet_on_a_good_store(self, driver: QueueDriver) -> None:
        await driver.health()

    async def test_an_unknown_queue_is_empty_and_stays_unknown(self, driver: QueueDriver) -> None:
        assert await driver.receive("q", 10, LONG, 0) == []
        assert await driver.receive("q", 10, LONG, 0.05) == []
        counts = await driver.counts("q")
        assert (counts.ready, counts.delayed, counts.in_flight, counts.oldest) == (0, 0, 0, None)
        assert await driver.purge("q") == 0
        await self._nobodys(driver, "q", "x")
        assert await driver.queues() == []

    async def _nobodys(self, driver: QueueDriver, queue: str, receipt: str) -> None:
        assert await driver.ack(queue, [receipt]) == [False]
        assert await driver.nack(queue, [Failure(receipt, 0, "no")]) == [False]
        assert await driver.extend(queue, [receipt], LONG) == [False]
        assert await driver.bury(queue, "dead", Failure(receipt, 0, "no")) is False
        assert (await driver.counts("dead")).ready == 0

    @pytest.mark.parametrize("receipt", RECEIPTS, ids=lambda receipt: ascii(receipt)[:20])
    async def test_receipts_of_nobody(self, driver: QueueDriver, receipt: str) -> None:
        await driver.send("q", [posted()])
        await self._nobodys(driver, "q", receipt)
        (held,) = await driver.receive("q", 1, LONG, 0)
        await self._nobodys(driver, "q", receipt)
        await self._nobodys(driver, "other", held.receipt)
        assert await driver.ack("q", [held.receipt]) == [True]

    async def test_nothing_at_all(self, driver: QueueDriver) -> None:
        assert await driver.ack("q", []) == []
        assert await driver.nack("q", []) == []
        assert await driver.extend("q", [], LONG) == []

    @pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
    async def test_any_text_names_a_queue(self, driver: QueueDriver, name: str) -> None:
        await driver.send(name, [posted(b"1"), posted(b"2")])
        assert await driver.queues() == [name]
        (first,) = await driver.receive(name, 1, LONG, 0)
        assert await driver.extend(name, [first.receipt], LONG) == [True]
        assert await driver.nack(name, [Failure(first.receipt, 0, name)]) == [True]
        (again,) = await driver.receive(name, 1, LONG, WAIT)
        assert await driver.bury(name, "dead", Failure(again.receipt, 0, name))
        assert (await driver.counts(name)).ready == 1
        assert await driver.purge(name) == 1
        assert await driver.queues() == ["dead"]

    async def test_no_two_names_are_the_same(self, driver: QueueDriver) -> None:
        for number, name in enumerate(NAMES):
            await driver.send(name, [posted(b"%d" % number)])
        assert await driver.queues() == sorted(NAMES)
        for number, name in enumerate(NAMES):
            assert bodies(await driver.receive(name, 10, LONG, 0)) == [b"%d" % number]

    @pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body)[:20])
    async def test_bytes_and_headers_come_as_they_are(
        self, driver: QueueDriver, harness: QueueHarness, body: bytes
    ) -> None:
        sent = msgspec.structs.replace(posted(body), headers='{"h":"naïve \\u0000 鍵"}')
        (result,) = await driver.send("q", [sent])
        assert (result.id, result.duplicate, result.error) == (sent.id, False, "")
        (found,) = await driver.receive("q", 10, LONG, 0)
        assert (found.message.id, found.message.body, found.message.headers) == (sent.id, body, sent.headers)
        assert type(found.message.body) is bytes
        assert found.receipt
        assert found.deliveries == 1
        assert found.sent_at == pytest.approx(harness.now(), abs=30)

    async def test_a_thousand_in_order(self, driver: QueueDriver) -> None:
        sent = numbered(1000)
        assert [one.id for one in await driver.send("q", sent)] == [one.id for one in sent]
        assert (await driver.counts("q")).ready == 1000
        found: list[Leased] = []
        while batch := await driver.receive("q", 1000, LONG, 0):
            found += batch
        assert bodies(found) == [one.body for one in sent]
        assert await driver.ack("q", [one.receipt for one in found]) == [True] * 1000

    async def test_no_more_than_asked_for(self, driver: QueueDriver) -> None:
        await driver.send("q", numbered(5))
        assert bodies(await driver.receive("q", 2, LONG, 0)) == [b"0", b"1"]
        assert bodies(await driver.receive("q", 1, LONG, 0)) == [b"2"]
        assert bodies(await driver.receive("q", 1000, LONG, 0)) == [b"3", b"4"]

    async def test_a_lease_that_ends(self, driver: QueueDriver, harness: QueueHarness) -> None:
        sent = posted()
        await driver.send("q", [sent])
        (first,) = await driver.receive("q", 1, 2 * harness.tick, 0)
        assert await driver.receive("q", 1, LONG, 0) == []
        again = await self._late(driver, harness, 3)
        assert (again.message.id, again.deliveries) == (sent.id, 2)
        assert again.receipt != first.receipt
        await self._nobodys(driver, "q", first.receipt)
        assert await driver.ack("q", [again.receipt, again.receipt]) == [True, False]
        await self._nobodys(driver, "q", again.receipt)

    async def _late(self, driver: QueueDriver, harness: QueueHarness, ticks: float) -> Leased:
        await harness.advance(ticks * harness.tick)
        for _ in range(8):
            if found := await driver.receive("q", 1, LONG, 0):
                return found[0]
            await harness.advance(harness.tick / 2)
        raise AssertionError("it did not come")

    async def test_a_receipt_is_no_good_for_a_later_message(self, driver: QueueDriver) -> None:
        old: list[str] = []
        for number in range(3):
            await driver.send("q", [posted(b"%d" % number)])
            (held,) = await driver.receive("q", 1, LONG, 0)
            assert held.receipt not in old
            for receipt in old:
                await self._nobodys(driver, "q", receipt)
            assert await driver.ack("q", [held.receipt]) == [True]
            await driver.purge("q")
            old.append(held.receipt)

    async def test_extending(self, driver: QueueDriver, harness: QueueHarness) -> None:
        await driver.send("q", numbered(2))
        kept, left = await driver.receive("q", 2, 4 * harness.tick, 0)
        assert await driver.extend("q", ["x", kept.receipt], LONG) == [False, True]
        assert (await self._late(driver, harness, 5)).message.id == left.message.id
        assert await driver.receive("q", 1, LONG, 0) == []
        assert await driver.ack("q", [left.receipt, kept.receipt]) == [False, True]

    async def test_giving_back(self, driver: QueueDriver, harness: QueueHarness) -> None:
        await driver.send("q", numbered(3))
        now, soon, late = await driver.receive("q", 3, LONG, 0)
        given = [
            Failure(now.receipt, 0, "a"),
            Failure("x", 0, ""),
            Failure(soon.receipt, 2 * harness.tick, ""),
            Failure(late.receipt, LONG, "b"),
        ]
        assert await driver.nack("q", given) == [True, False, True, True]
        for one in (now, soon, late):
            await self._nobodys(driver, "q", one.receipt)
        (again,) = await driver.receive("q", 1, LONG, 0)
        assert (again.message.body, again.deliveries) == (b"0", 2)
        if Can.ERRORS in harness.capabilities:
            assert (again.message.first_error, again.message.last_error) == ("a", "a")
        assert (await self._late(driver, harness, 3)).message.body == b"1"
        assert await driver.receive("q", 10, LONG, 0) == []
        assert (await driver.counts("q")).delayed == 1

    async def test_burying(self, driver: QueueDriver, harness: QueueHarness) -> None:
        sent = msgspec.structs.replace(posted(b"body"), headers='{"h":{}}')
        await driver.send("q", [sent])
        (first,) = await driver.receive("q", 1, LONG, 0)
        await driver.nack("q", [Failure(first.receipt, 0, "first")])
        (second,) = await driver.receive("q", 1, LONG, WAIT)
        assert await driver.bury("q", "dead", Failure(second.receipt, 0, "second"))
        await self._gone(driver, second.receipt)
        (found,) = await driver.receive("dead", 1, LONG, WAIT)
        message = found.message
        assert (message.id, message.body, message.headers) == (sent.id, b"body", sent.headers)
        assert (message.attempts, message.last_error, message.delay, message.dedup) == (2, "second", 0, None)
        assert message.died_at == pytest.approx(harness.now(), abs=30)
        assert found.deliveries == 1
        if Can.ERRORS in harness.capabilities:
            assert message.first_error == "first"

    async def _gone(self, driver: QueueDriver, receipt: str) -> None:
        counts = await driver.counts("q")
        assert (counts.ready, counts.delayed, counts.in_flight) == (0, 0, 0)
        assert (await driver.counts("dead")).ready == 1
        assert await driver.bury("q", "dead", Failure(receipt, 0, "again")) is False
        assert (await driver.counts("dead")).ready == 1

    async def test_counting_and_purging(self, driver: QueueDriver, harness: QueueHarness) -> None:
        await driver.send("q", numbered(6))
        held, given, _ = await driver.receive("q", 3, LONG, 0)
        await driver.nack("q", [Failure(given.receipt, LONG, "")])
        counts = await driver.counts("q")
        assert (counts.ready, counts.delayed, counts.in_flight, counts.paused) == (3, 1, 2, False)
        assert counts.oldest is None or 0 <= counts.oldest < 60
        assert await driver.purge("q") == 4
        counts = await driver.counts("q")
        assert (counts.ready, counts.delayed, counts.in_flight, counts.oldest) == (0, 0, 2, None)
        assert await driver.nack("q", [Failure(held.receipt, 0, "")]) == [True]
        assert bodies(await driver.receive("q", 10, LONG, WAIT)) == [held.message.body]

    async def test_waiting(self, driver: QueueDriver, harness: QueueHarness) -> None:
        now = asyncio.get_running_loop().time
        began = now()
        assert await driver.receive("q", 1, LONG, 0.3) == []
        assert now() - began >= 0.29
        for number in range(3):
            tasks = [asyncio.create_task(driver.receive("q", 1, LONG, WAIT)) for _ in range(2)]
            await harness.elapse(harness.tick)
            began = now()
            await driver.send("q", [posted(b"%d" % number)])
            await driver.send("q", [posted(b"%d" % number)])
            found = await asyncio.gather(*tasks)
            assert [bodies(one) for one in found] == [[b"%d" % number]] * 2
            assert now() - began < 1.0

    async def test_cancelled_receivers_lose_nothing(self, driver: QueueDriver, harness: QueueHarness) -> None:
        chance, found = random.Random(3), set[bytes]()
        for number in range(40):
            task = asyncio.create_task(driver.receive("q", 2, 2 * harness.tick, WAIT))
            await _turns(chance.randrange(6))
            await driver.send("q", [posted(b"%d" % number)])
            await _turns(chance.randrange(6))
            task.cancel()
            await asyncio.wait([task])
            found |= await self._taken(driver, [] if task.cancelled() else task.result())
        for _ in range(20):
            await harness.advance(harness.tick)
            found |= await self._taken(driver, await driver.receive("q", 100, LONG, 0))
            if len(found) == 40:
                break
        assert found == {b"%d" % number for number in range(40)}

    async def _taken(self, driver: QueueDriver, found: Sequence[Leased]) -> set[bytes]:
        await driver.ack("q", [one.receipt for one in found])
        return set(bodies(found))

    async def test_cancelled_calls_leave_later_ones_right(self, driver: QueueDriver) -> None:
        chance = random.Random(5)
        calls: tuple[Callable[[], object], ...] = (
            lambda: driver.send("other", numbered(3)),
            lambda: driver.receive("other", 2, LONG, 0),
            lambda: driver.counts("other"),
            lambda: driver.purge("other"),
        )
        for _ in range(60):
            task = asyncio.ensure_future(chance.choice(calls)())  # type: ignore[call-overload]  # coroutines, all of them
            await _turns(chance.randrange(4))
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None
        await driver.send("q", numbered(3))
        found = await driver.receive("q", 10, LONG, 0)
        assert bodies(found) == [b"0", b"1", b"2"]
        assert await driver.ack("q", [one.receipt for one in found]) == [True] * 3

    async def test_of_many_receivers_each_message_has_one(self, driver: QueueDriver) -> None:
        await driver.send("q", numbered(100))
        found = await asyncio.gather(*(driver.receive("q", 5, LONG, 0) for _ in range(40)))
        rest = await driver.receive("q", 1000, LONG, 0)
        got = [body for batch in (*found, rest) for body in bodies(batch)]
        assert sorted(got) == sorted(b"%d" % number for number in range(100))
        receipts = [one.receipt for batch in (*found, rest) for one in batch]
        good = await asyncio.gather(*(driver.ack("q", receipts) for _ in range(3)))
        assert [sum(each) for each in zip(*good, strict=True)] == [1] * 100

    async def test_two_openings_see_the_same(self, harness: QueueHarness) -> None:
        if not harness.shared:
            pytest.skip("two openings of this provider share nothing")
        async with harness.open_bare() as one, harness.open_bare() as other:
            task = asyncio.create_task(other.receive("q", 10, LONG, WAIT))
            await harness.elapse(harness.tick)
            await one.send("q", [posted(b"1")])
            (found,) = await task
            assert await one.receive("q", 10, LONG, 0) == []
            assert await one.ack("q", [found.receipt]) == [True]
            assert await other.ack("q", [found.receipt]) == [False]
            assert await other.queues() == ["q"]

    async def test_what_a_message_may_ask_for(self, driver: QueueDriver, harness: QueueHarness) -> None:
        change = msgspec.structs.replace
        if Can.PRIORITY in harness.capabilities:
            await driver.send("p", [change(one, priority=number) for number, one in enumerate(numbered(3))])
            assert [one.message.priority for one in await driver.receive("p", 3, LONG, 0)] == [2, 1, 0]
        if Can.DELAY in harness.capabilities:
            await driver.send("d", [change(posted(), delay=LONG), posted(b"now")])
            assert bodies(await driver.receive("d", 3, LONG, 0)) == [b"now"]
        if Can.DEDUP in harness.capabilities:
            first, again = await driver.send("k", [change(posted(), dedup="k", window=LONG) for _ in range(2)])
            assert (again.id, again.duplicate, first.duplicate) == (first.id, True, False)
        if Can.ORDER in harness.capabilities:
            await driver.send("o", [change(one, group="g") for one in numbered(3)])
            (first_of,) = await driver.receive("o", 3, LONG, 0)
            assert await driver.bury("o", "dead", Failure(first_of.receipt, 0, ""))
            assert bodies(await driver.receive("o", 3, LONG, WAIT)) == [b"1"]
        if Can.FAIR in harness.capabilities:
            await driver.send("f", [change(one, tenant="ab"[number // 2]) for number, one in enumerate(numbered(4))])
            found = await driver.receive("f", 4, LONG, 0)
            assert [one.message.tenant for one in found] == ["a", "b", "a", "b"]

    async def test_a_dead_letter_may_be_sent_again(self, driver: QueueDriver, harness: QueueHarness) -> None:
        change = msgspec.structs.replace
        await driver.send("q", [change(posted(), first_error="a", last_error="b")])
        (found,) = await driver.receive("q", 1, LONG, 0)
        assert (found.deliveries, found.message.attempts, found.message.died_at) == (1, 0, 0)
        if Can.ERRORS in harness.capabilities:
            assert (found.message.first_error, found.message.last_error) == ("a", "b")

    async def test_peeking(self, driver: QueueDriver, harness: QueueHarness) -> None:
        if Can.PEEK not in harness.capabilities:
            pytest.skip("the provider does not show messages")
        await driver.send("q", numbered(5))
        await driver.receive("q", 1, LONG, 0)
        seen = await driver.peek("q", 1, 2)
        assert bodies(seen) == [b"2", b"3"]
        assert {(one.receipt, one.deliveries) for one in seen} == {("", 0)}
        assert await driver.peek("unknown", 0, 10) == []

    async def test_pausing(self, driver: QueueDriver, harness: QueueHarness) -> None:
        if Can.PAUSE not in harness.capabilities:
            pytest.skip("the provider does not hold queues back")
        await driver.send("q", [posted()])
        await driver.pause("q")
        assert await driver.receive("q", 1, LONG, 0.1) == []
        assert (await driver.counts("q")).paused
        await driver.resume("q")
        await driver.resume("never paused")
        assert len(await driver.receive("q", 1, LONG, WAIT)) == 1
        assert await driver.queues() == ["q"]


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)
