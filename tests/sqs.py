"""The queueing suite as SQS plays it: where its own limits, or those of the servers that stand in for it, show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from noobly.core.errors import Unsupported
from noobly.queueing import Can, Message, Queues
from noobly.testing.queueing import QueueHarness, QueueSuite, ServerQueues
from noobly.testing.queueing.theme import LONG, drained, needs, one, values

STANDARD = frozenset({Can.DELAY})
FIFO = frozenset({Can.ORDER, Can.DEDUP})
VALUE_BYTES = 700_000
"""Bytes that are no text take a third more, and a message has 1 MiB."""


@contextmanager
def sqs_queues(endpoint: str, monkeypatch: pytest.MonkeyPatch, *, fifo: bool) -> Iterator[QueueHarness]:
    """Give a harness for a server that stands in for SQS; SQS counts in whole seconds."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    yield ServerQueues(
        "sqs://eu-west-1",
        capabilities=FIFO if fifo else STANDARD,
        options={"endpoint": endpoint, "fifo": fifo, "timeout": 30},  # The servers that stand in for SQS are slow.
        tick=1.0,
        value_bytes=VALUE_BYTES,
    )


class SqsSuite(QueueSuite):
    """SQS delays by 15 minutes at most, and remembers dedup keys for 5 minutes, no more and no less."""

    async def test_a_day(self, queues: Queues, harness: QueueHarness) -> None:
        needs(harness, Can.DELAY)
        with pytest.raises(Unsupported, match="schedule"):
            await queues.send("q", 1, delay=86_400)
        assert await queues.size("q") == 0

    async def test_after_the_window_it_is_new(self, harness: QueueHarness) -> None:
        needs(harness, Can.DEDUP)
        async with harness.open(dedup_window=60) as queues:
            with pytest.raises(Unsupported, match="dedup_window"):
                await queues.send("q", 1, dedup="key")

    async def test_a_group_goes_on_after_a_purge(self, queues: Queues, harness: QueueHarness) -> None:
        """What waits for a message that somebody works on cannot be received, and so not be deleted alone."""
        needs(harness, Can.ORDER)
        for value in ("a", "b", "c"):
            await queues.send("q", value, group="g")
        held = await one(queues, "q")
        assert await queues.purge("q") == 0
        await queues.ack("q", held.receipt)
        assert await queues.purge("q") == 2
        await queues.send("q", "again", group="g")
        assert values(await queues.receive("q", wait=5, lease=LONG)) == ["again"]

    async def test_handlers_that_outlast_the_grace(self, harness: QueueHarness) -> None:
        """A receive that was cancelled may take the message meanwhile; it gives it back, but that is a delivery."""
        begun, ends = asyncio.Event(), 0

        async def handle(_: Message[object]) -> None:
            nonlocal ends
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ends += 1

        async with harness.open(max_deliveries=100) as queues:
            await queues.send("q", 1)
            task = asyncio.create_task(queues.work("q", handle, lease=60, grace=0.05))
            await begun.wait()
            task.cancel()
            await asyncio.wait([task])
            assert (task.cancelled(), ends) == (True, 1)
            assert (await one(queues, "q")).deliveries in (2, 3)


class MotoSuite(SqsSuite):
    """moto's queues take a time that grows with the square of their length, and have no lock around receiving."""

    @pytest.mark.skip(reason="moto needs minutes for a thousand messages")
    async def test_many_at_once(self) -> None: ...

    @pytest.mark.skip(reason="moto may hand a message to two threads at once")
    async def test_a_hundred_tasks_at_once(self) -> None: ...

    @pytest.mark.skip(reason="moto may hand a message to two threads at once")
    async def test_two_clients_at_once(self) -> None: ...

    async def test_first_in_first_out(self, queues: Queues) -> None:
        """Ten messages take one call, and so one thread of moto's."""
        for number in range(25):
            await queues.send("q", number)
        found: list[object] = []
        while batch := await queues.receive("q", max=10, lease=LONG):
            found += values(batch)
        assert found == list(range(25))

    async def test_the_second_is_dropped(self, queues: Queues, harness: QueueHarness) -> None:
        """moto forgets a key with its message, where SQS keeps it for 5 minutes."""
        needs(harness, Can.DEDUP)
        first = await queues.send("q", "first", dedup="key")
        again = await queues.send("q", "second", dedup="key")
        assert (again.id, again.duplicate, first.duplicate) == (first.id, True, False)
        assert not (await queues.send("q", "other", dedup="other key")).duplicate
        assert sorted(await drained(queues, "q")) == ["first", "other"]
