"""Sending: what is sent comes as it was sent, under any name, one by one or many at once."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import msgspec
import pytest

from noobly.core.errors import InvalidArgument, TooLarge
from noobly.queueing import Can, Outbound, Queues
from noobly.testing.awkward import NAMES as AWKWARD
from noobly.testing.awkward import VALUES
from noobly.testing.queueing.harness import QueueHarness
from noobly.testing.queueing.theme import Pair, Theme, drained, one, values

BYTES = (b"", b"\x00", b"5", b"null", b"\x01\x00{}", bytes(range(256)), b"\xff\xfe\r\n")


class Order(msgspec.Struct):
    """A struct to be sent."""

    number: int
    lines: list[str]


@dataclass
class Point:
    """A dataclass to be sent."""

    x: int
    y: float


class SendingTheme(Theme):
    """A message comes as it was sent."""

    @pytest.mark.parametrize("value", [*VALUES, *BYTES], ids=lambda value: repr(value)[:24])
    async def test_a_message_keeps_value_and_type(self, queues: Queues, value: object) -> None:
        receipt = await queues.send("q", value)
        found = await one(queues, "q")
        assert found.value == value
        assert type(found.value) is type(value)
        assert (found.id, found.queue, found.deliveries) == (receipt.id, "q", 1)
        assert (found.priority, found.group, found.headers) == (0, None, {})
        assert (found.first_error, found.last_error) == ("", "")
        assert not receipt.duplicate

    async def test_so_it_does_as_msgpack(self, harness: QueueHarness) -> None:
        async with harness.open(codec="msgpack") as queues:
            for value in (*VALUES, *BYTES):
                if value == 10**30:
                    continue
                await queues.send("q", value)
                found = await one(queues, "q")
                assert found.value == value
                assert type(found.value) is type(value)
                await queues.ack("q", found.receipt)

    async def test_structs_and_dataclasses_come_by_type(self, queues: Queues) -> None:
        await queues.send("orders", Order(5, ["tea"]))
        await queues.send("points", Point(1, 2.5))
        assert await queues.dequeue("orders", type=Order) == Order(5, ["tea"])
        assert await queues.dequeue("points", type=Point) == Point(1, 2.5)
        await queues.send("orders", Order(6, []))
        assert await queues.dequeue("orders") == {"number": 6, "lines": []}
        assert await queues.dequeue("orders", type=Order) is None

    async def test_other_kinds_of_bytes(self, queues: Queues) -> None:
        for given in (bytearray(b"\x00\xff"), memoryview(b"\x00\xff")):
            await queues.send("q", given)
            assert await queues.dequeue("q") == b"\x00\xff"

    async def test_the_sender_keeps_no_hand_on_it(self, queues: Queues) -> None:
        mine = {"list": [1]}
        await queues.send("q", mine)
        mine["list"].append(2)
        found = await one(queues, "q")
        assert found.value == {"list": [1]}
        found.value["list"].append(3)
        await queues.nack("q", found.receipt, delay=0)
        assert (await one(queues, "q")).value == {"list": [1]}

    async def test_big_messages(self, queues: Queues, harness: QueueHarness) -> None:
        size = min(harness.value_bytes, 1024 * 1024)
        data = random.Random(5).randbytes(size)
        await queues.send("bytes", data)
        assert (await one(queues, "bytes")).value == data
        text = "é" * (size // 2 - 1)
        await queues.send("text", text)
        assert (await one(queues, "text")).value == text

    async def test_messages_over_the_limit(self, harness: QueueHarness) -> None:
        async with harness.open(message_bytes=1000) as queues:
            with pytest.raises(TooLarge, match="1000"):
                await queues.send("q", b"x" * 1001)
            with pytest.raises(TooLarge):
                await queues.send_many("q", [Outbound(message=1), Outbound(message="x" * 999)])
            assert await queues.size("q") == 0
            await queues.send("q", b"x" * 1000)
            assert (await one(queues, "q")).value == b"x" * 1000

    async def test_headers_travel_along(self, queues: Queues) -> None:
        headers = {"trace": "00-ab", "": "", "naïve 鍵": "line\nbreak \x00", "content-type": "text/plain"}
        await queues.send("q", b"data", headers=headers)
        await queues.send("long", 1, headers={"long": "x" * 16_000})
        assert (await one(queues, "q")).headers == headers
        assert (await one(queues, "long")).headers == {"long": "x" * 16_000}

    async def test_the_time_of_sending(self, queues: Queues, harness: QueueHarness) -> None:
        before = harness.now()
        await queues.send("q", 1)
        found = await one(queues, "q")
        assert before - 5 <= found.sent_at <= harness.now() + 5
        await queues.nack("q", found.receipt, delay=0)
        assert (await one(queues, "q")).sent_at == pytest.approx(found.sent_at, abs=0.002)

    @pytest.mark.parametrize("name", AWKWARD, ids=lambda name: ascii(name)[:24])
    async def test_any_text_names_a_queue(self, queues: Queues, name: str) -> None:
        assert await queues.size(name) == 0
        await queues.send(name, "value")
        assert await queues.queues() == [name]
        assert await queues.size(name) == 1
        found = await one(queues, name)
        assert (found.value, found.queue) == ("value", name)
        await queues.extend(name, found.receipt, 60)
        await queues.nack(name, found.receipt, delay=0, reason=name)
        found = await one(queues, name)
        await queues.reject(name, found.receipt, reason=name)
        assert (await queues.stats(name)).dead == 1
        assert (await queues.redrive(name)).moved == 1
        assert await queues.dequeue(name) == "value"
        await queues.purge(name)
        assert await queues.queues() == []

    async def test_no_two_names_are_the_same(self, queues: Queues) -> None:
        for number, name in enumerate(AWKWARD):
            await queues.send(name, number)
        assert sorted(await queues.queues()) == sorted(AWKWARD)
        for number, name in enumerate(AWKWARD):
            assert await drained(queues, name) == [number]

    async def test_any_text_names_a_group_and_a_key(self, queues: Queues, harness: QueueHarness) -> None:
        ordered, keyed = Can.ORDER in harness.capabilities, Can.DEDUP in harness.capabilities
        if not ordered and not keyed:
            pytest.skip("the provider claims neither order nor dedup")
        for number, name in enumerate(AWKWARD):
            group, dedup = name if ordered else None, name if keyed else None
            sent = await queues.send("q", number, group=group, dedup=dedup)
            assert not sent.duplicate
        for number, name in enumerate(AWKWARD if keyed else ()):
            again = await queues.send("q", number, dedup=name)
            assert again.duplicate
        found = await queues.receive("q", max=100)
        assert {each.value: each.group for each in found} == {
            number: name if ordered else None for number, name in enumerate(AWKWARD)
        }

    async def test_many_at_once(self, queues: Queues) -> None:
        assert await queues.send_many("q", []) == []
        sent = await queues.send_many("q", [Outbound(message=number, headers={"n": "1"}) for number in range(1000)])
        assert len({each.id for each in sent}) == 1000
        assert not any(each.duplicate or each.error for each in sent)
        assert await queues.size("q") == 1000
        found = await queues.receive("q", max=1000)
        while len(found) < 1000:
            more = await queues.receive("q", max=1000)
            assert more
            found += more
        by_value = {each.value: each.id for each in found}
        assert [by_value[number] for number in range(1000)] == [each.id for each in sent]
        assert await queues.ack_many("q", [each.receipt for each in found]) == [True] * 1000

    async def test_ten_thousand_are_the_most(self, queues: Queues) -> None:
        with pytest.raises(TooLarge, match="10000"):
            await queues.send_many("q", [Outbound(message=1)] * 10_001)
        assert await queues.size("q") == 0

    async def test_one_bad_message_refuses_all(self, queues: Queues) -> None:
        with pytest.raises(InvalidArgument):
            await queues.send_many("q", [Outbound(message=1), Outbound(message=1, priority=10)])
        assert await queues.size("q") == 0

    async def test_the_short_words(self, queues: Queues) -> None:
        assert await queues.dequeue("q") is None
        assert await queues.dequeue("q", "nothing") == "nothing"
        first = await queues.enqueue("q", {"a": 1})
        second = await queues.enqueue("q", None)
        assert first != second
        assert await queues.size("q") == 2
        assert sorted([await queues.dequeue("q", 5), await queues.dequeue("q", 5)], key=str) == [None, {"a": 1}]
        assert await queues.size("q") == 0
        for number in range(3):
            await queues.enqueue("q", number)
        assert await queues.clear("q") == 3
        assert await queues.dequeue("q") is None

    async def test_queues_stay_apart(self, queues: Queues) -> None:
        await queues.send("one", 1)
        await queues.send("other", 2)
        found = await one(queues, "one")
        with pytest.raises(InvalidArgument):
            await queues.ack("one", "")
        assert await queues.receive("third") == []
        assert await queues.size("other") == 1
        await queues.ack("one", found.receipt)
        assert values(await queues.receive("other")) == [2]

    async def test_what_one_client_sends_another_receives(self, pair: Pair) -> None:
        here, there = pair
        await asyncio.gather(*(here.send("q", number) for number in range(20)))
        assert await there.size("q") == 20
        assert sorted(await drained(there, "q")) == list(range(20))
        assert await here.size("q") == 0
