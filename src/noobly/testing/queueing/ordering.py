"""Ordering: first in, first out; groups one message after another; tenants in turn."""

from __future__ import annotations

import asyncio

import pytest

from noobly.queueing import Can, Delivery, Queues
from noobly.queueing.messages import Value
from noobly.testing.queueing.harness import QueueHarness
from noobly.testing.queueing.theme import LONG, Theme, buried, comes, drained, flowing, needs, one, values

_GROUPS = 5
_EACH = 8


async def _sent(queues: Queues, *groups: str) -> None:
    """Send one message to each group, which says the group and its number in it: ``a1``."""
    for number, group in enumerate(groups):
        await queues.send("q", f"{group}{groups[: number + 1].count(group)}", group=group)


async def _in_turn(queues: Queues) -> str:
    """Receive and acknowledge one after another; return all in order."""
    found = []
    while batch := await queues.receive("q", lease=LONG):
        found.append(batch[0].value)
        await queues.ack("q", batch[0].receipt)
    return " ".join(found)


class OrderingTheme(Theme):
    """What is sent first comes first, as far as it shall."""

    async def test_first_in_first_out(self, queues: Queues) -> None:
        for number in range(50):
            await queues.send("q", number)
        assert values(await queues.receive("q", lease=LONG)) == [0]
        assert await drained(queues, "q") == list(range(1, 50))

    async def test_a_group_comes_one_after_another(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER)
        await _sent(queues, "a", "a", "b", "a")
        found = {each.value: each.receipt for each in await queues.receive("q", max=10, lease=LONG)}
        assert sorted(found) == ["a1", "b1"]
        assert await queues.receive("q", max=10) == []
        assert await queues.size("q") == 2
        await queues.ack("q", found["a1"])
        second = await one(queues, "q")
        assert (second.value, second.group) == ("a2", "a")
        await queues.ack("q", second.receipt)
        assert (await one(queues, "q")).value == "a3"

    async def test_messages_without_a_group_pass_by(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER)
        await _sent(queues, "a", "a")
        await queues.send("q", "free")
        assert sorted(values(await queues.receive("q", max=10, lease=LONG))) == ["a1", "free"]

    async def test_what_is_given_back_comes_before_its_successors(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER)
        await _sent(queues, "a", "a", "b")
        await queues.nack("q", (await one(queues, "q")).receipt, delay=0)
        assert (await _in_turn(queues)).split(" a")[0] in ("a1", "b1")
        await _sent(queues, "a", "a", "b")
        await queues.nack("q", (await one(queues, "q")).receipt, delay=LONG)
        assert await _in_turn(queues) == "b1"

    async def test_so_does_what_its_receiver_left(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER)
        await _sent(queues, "a", "a")
        assert values(await queues.receive("q", max=10, lease=2 * harness.tick)) == ["a1"]
        again = await comes(harness, queues, "q", ticks=3)
        assert (again.value, again.deliveries) == ("a1", 2)
        assert await queues.receive("q") == []
        await queues.ack("q", again.receipt)
        assert (await one(queues, "q")).value == "a2"

    async def test_a_group_goes_on_past_what_died(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER)
        await _sent(queues, "a", "a")
        await queues.reject("q", (await one(queues, "q")).receipt)
        assert await _in_turn(queues) == "a2"

    async def test_a_group_that_skips_what_fails(self, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER)
        async with harness.open(group_failure="dead") as queues:
            await _sent(queues, "a", "a")
            assert (await queues.nack("q", (await one(queues, "q")).receipt, reason="bad")).dead
            assert await _in_turn(queues) == "a2"
            assert await buried(queues, "q") == ["a1"]
            await queues.send("q", "free")
            assert not (await queues.nack("q", (await one(queues, "q")).receipt, delay=0)).dead

    async def test_a_group_goes_on_after_a_purge(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER)
        await _sent(queues, "a", "a", "a")
        held = await one(queues, "q")
        assert await queues.purge("q") == 2
        await queues.send("q", "later", group="a")
        assert await queues.receive("q") == []
        await queues.ack("q", held.receipt)
        assert await _in_turn(queues) == "later"
        await _sent(queues, "b", "b")
        await queues.purge("q")
        await queues.send("q", "again", group="b")
        assert await _in_turn(queues) == "again"

    async def test_neither_priority_nor_delay_breaks_a_group(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER, Can.PRIORITY, Can.DELAY)
        await queues.send("q", "first", group="a")
        await queues.send("q", "second", group="a", delay=2 * harness.tick)
        await queues.send("q", "third", group="a", priority=9)
        await queues.send("q", "fourth", group="a", priority=5)
        await queues.ack("q", (await one(queues, "q")).receipt)
        second = await comes(harness, queues, "q", ticks=3)
        assert second.value == "second"
        await queues.ack("q", second.receipt)
        assert await _in_turn(queues) == "third fourth"

    async def test_groups_keep_their_order_under_retries_by_many_consumers(self, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER)
        async with harness.open(max_deliveries=1000) as queues:
            for number in range(_EACH):
                for group in range(_GROUPS):
                    await queues.send("q", number, group=f"group {group}")
            done: dict[str | None, list[int]] = {}
            at_work: set[str | None] = set()

            async def work(one: Delivery[Value]) -> None:
                assert one.group not in at_work
                at_work.add(one.group)
                await asyncio.sleep(0)
                at_work.discard(one.group)
                if one.deliveries <= one.value % 3:
                    await queues.nack("q", one.receipt, delay=0)
                else:
                    done.setdefault(one.group, []).append(one.value)
                    await queues.ack("q", one.receipt)

            async def consume() -> None:
                while sum(map(len, done.values())) < _GROUPS * _EACH:
                    for one in await queues.receive("q", max=2, wait=0.5, lease=LONG):
                        await work(one)

            async with flowing(harness):
                await asyncio.gather(*(consume() for _ in range(8)))
            assert done == {f"group {group}": list(range(_EACH)) for group in range(_GROUPS)}

    async def test_tenants_take_turns(self, harness: QueueHarness) -> None:
        needs(harness, Can.FAIR)
        async with harness.open(groups="fair") as queues:
            await _sent(queues, "a", "a", "a", "a", "a", "a", "b", "b", "c")
            found = await queues.receive("q", max=2, lease=LONG)
            assert values(found) == ["a1", "b1"]
            assert found[0].group == "a"
            assert await _in_turn(queues) == "c1 a2 b2 a3 a4 a5 a6"

    async def test_a_tenant_that_comes_later_does_not_wait(self, harness: QueueHarness) -> None:
        needs(harness, Can.FAIR)
        async with harness.open(groups="fair") as queues:
            await _sent(queues, *["a"] * 10)
            for _ in range(5):
                await queues.ack("q", (await one(queues, "q")).receipt)
            await _sent(queues, "b", "b")
            found = (await _in_turn(queues)).split()
            assert found.index("b1") <= 1
            assert found.index("b2") <= 3

    @pytest.mark.parametrize("groups", ["fair", "both"])
    async def test_messages_without_a_group_take_turns_too(self, harness: QueueHarness, groups: str) -> None:
        needs(harness, Can.FAIR, *([Can.ORDER] if groups == "both" else []))
        async with harness.open(groups=groups) as queues:
            for number in range(1, 5):
                await queues.send("q", f"none{number}")
            await _sent(queues, "a", "b")
            found = await queues.receive("q", max=10, lease=LONG)
            assert values(found) == ["none1", "a1", "b1", "none2", "none3", "none4"]
            assert [each.group for each in found] == [None, "a", "b", None, None, None]

    async def test_a_tenant_has_several_under_way(self, harness: QueueHarness) -> None:
        needs(harness, Can.FAIR)
        async with harness.open(groups="fair", group_failure="dead") as queues:
            await _sent(queues, "a", "a", "a")
            first, *_ = found = await queues.receive("q", max=10, lease=LONG)
            assert values(found) == ["a1", "a2", "a3"]
            assert not (await queues.nack("q", first.receipt, delay=0)).dead

    async def test_priority_goes_before_turns(self, harness: QueueHarness) -> None:
        needs(harness, Can.FAIR, Can.PRIORITY)
        async with harness.open(groups="fair") as queues:
            await _sent(queues, "a", "b")
            for number in range(2):
                await queues.send("q", f"urgent{number}", group="a", priority=5)
            assert (await _in_turn(queues)).startswith("urgent0 urgent1 ")

    async def test_ordered_within_and_in_turn_between(self, harness: QueueHarness) -> None:
        needs(harness, Can.ORDER, Can.FAIR)
        async with harness.open(groups="both") as queues:
            await _sent(queues, "a", "a", "a", "b", "b")
            first = await queues.receive("q", max=10, lease=LONG)
            assert values(first) == ["a1", "b1"]
            assert await queues.receive("q") == []
            await queues.ack_many("q", [each.receipt for each in first])
            assert await _in_turn(queues) == "a2 b2 a3"
