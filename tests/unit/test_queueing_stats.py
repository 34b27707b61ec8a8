"""What metrics tell of queues."""

from __future__ import annotations

from noobly.core.scope import Environment
from noobly.queueing import Outbound, Queues, open_queues
from noobly.testing import FakeClock


def counted(environment: Environment, queue: str) -> dict[str, float]:
    [family] = [one for one in environment.meter.registry.collect() if one.name == "noobly_queue_messages"]
    return {one.labels["event"]: one.value for one in family.samples if one.labels["queue"] == queue}


async def depth(environment: Environment, queue: str) -> dict[str, float | None]:
    await environment.meter.look()
    where = {"instance": "default", "queue": queue}
    value = environment.meter.registry.get_sample_value
    states = ("ready", "delayed", "in_flight", "dead")
    found = {state: value("noobly_queue_depth", {**where, "state": state}) for state in states}
    return {**found, "oldest": value("noobly_queue_oldest_seconds", where)}


async def give_back(queues: Queues, times: int) -> None:
    for _ in range(times):
        [delivery] = await queues.receive("q")
        await queues.nack("q", delivery.receipt, delay=0)


async def test_what_becomes_of_messages_is_counted() -> None:
    environment = Environment(clock=FakeClock())
    async with open_queues(environment=environment, max_deliveries=2) as queues:
        await queues.send_many("q", [Outbound(message=number) for number in range(4)])
        await queues.send("q", 5)
        await queues.send("q", 6, dedup="k")
        assert (await queues.send("q", 6, dedup="k")).duplicate
        first, second = await queues.receive("q", max=2)
        await queues.ack("q", first.receipt)
        assert await queues.ack_many("q", [second.receipt, first.receipt]) == [True, False]
        await give_back(queues, 2)
        [third] = await queues.receive("q")
        await queues.reject("q", third.receipt)
        await queues.purge("q")
    assert counted(environment, "q") == {
        "sent": 6,
        "received": 5,
        "acknowledged": 2,
        "given_back": 1,
        "died": 2,
        "purged": 2,
    }


async def test_what_waits_is_shown_when_somebody_scrapes() -> None:
    clock = FakeClock()
    environment = Environment(clock=clock)
    async with open_queues(environment=environment, max_deliveries=1) as queues:
        await queues.send_many("q", [Outbound(message=number) for number in range(3)])
        await queues.send("q", 3, delay=60)
        clock.advance(5)
        held, lost = await queues.receive("q", max=2)
        await queues.nack("q", lost.receipt)
        assert await depth(environment, "q") == {"ready": 1, "delayed": 1, "in_flight": 1, "dead": 1, "oldest": 5.0}
        await queues.ack("q", held.receipt)
        await queues.purge("q")
        shown = await depth(environment, "q")
        assert (shown["ready"], shown["delayed"], shown["in_flight"], shown["oldest"]) == (0, 0, 0, 0)


async def test_only_so_many_queues_are_asked_for() -> None:
    environment = Environment()
    async with open_queues(environment=environment, depth_queues=2) as queues:
        for name in ("c", "a", "b"):
            await queues.send(name, 1)
        assert (await depth(environment, "a"))["ready"] == 1
        assert (await depth(environment, "b"))["ready"] == 1
        assert (await depth(environment, "c"))["ready"] is None


async def test_none_may_be_asked_for() -> None:
    environment = Environment()
    async with open_queues(environment=environment, depth_queues=0) as queues:
        await queues.send("q", 1)
        assert (await depth(environment, "q"))["ready"] is None
