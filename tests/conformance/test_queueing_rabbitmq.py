"""The queueing suite over RabbitMQ, and what is different there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from noobly.queueing import Can
from noobly.testing import server_or_skip
from noobly.testing.queueing import QueueHarness, QueueSuite, ServerQueues
from noobly.testing.queueing.theme import Pair, comes, drained, one

from ..rabbit import swept


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[str]:
    with server_or_skip("rabbitmq") as url:
        yield url


@pytest.mark.servers
class TestRabbitmq(QueueSuite):
    """What RabbitMQ holds it holds for a connection, so no lease outlives it, and no other client has a say."""

    @pytest.fixture
    async def harness(self, rabbitmq: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[QueueHarness]:
        async with swept(rabbitmq, monkeypatch):
            yield ServerQueues(rabbitmq, capabilities=frozenset({Can.DELAY, Can.ERRORS, Can.UNCOUNT}))

    async def test_one_client_cannot_answer_twice_for_another(self, pair: Pair, harness: QueueHarness) -> None:
        here, there = pair
        await here.send("q", 1)
        first = (await here.receive("q", lease=2 * harness.tick))[0]
        assert await there.receive("q") == []
        second = await comes(harness, there, "q", ticks=3)
        assert second.deliveries == 2
        assert await here.ack_many("q", [first.receipt, second.receipt]) == [False, False]
        await there.ack("q", second.receipt)

    async def test_what_was_sent_is_there_again(self, harness: QueueHarness) -> None:
        async with harness.open() as queues:
            for number in range(5):
                await queues.send("q", number)
            await queues.ack("q", (await one(queues, "q")).receipt)
            await queues.reject("q", (await one(queues, "q")).receipt)
            held = await one(queues, "q")
            await queues.send("other", 1)
        async with harness.open() as queues:
            stats = await queues.stats("q")
            assert (stats.ready, stats.in_flight, stats.dead) == (3, 0, 1)
            assert await queues.queues() == ["other", "q"]
            assert await queues.ack_many("q", [held.receipt]) == [False]
            again = await one(queues, "q")
            assert (again.value, again.deliveries) == (held.value, 2)
            assert len(await drained(queues, "q")) == 2
            assert (await queues.redrive("q")).moved == 1
