"""The driver suite over every bare provider: a list of providers, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("noobly.testing.queueing_driver")

from noobly.queueing import Can
from noobly.testing import server_or_skip
from noobly.testing.queueing import EmbeddedQueues, QueueHarness, ServerQueues
from noobly.testing.queueing_driver import QueueDriverSuite

from ..redis_keys import database, forgotten

ALL = frozenset(Can)


class TestMemory(QueueDriverSuite):
    @pytest.fixture
    def harness(self) -> QueueHarness:
        return EmbeddedQueues("memory://", capabilities=ALL)


class TestSqlite(QueueDriverSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> QueueHarness:
        return EmbeddedQueues(f"sqlite://{tmp_path}/queues.db", capabilities=ALL, shared=True, durable=True)


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with server_or_skip("redis") as url:
        yield database(url, 1)


@pytest.mark.servers
class TestRedis(QueueDriverSuite):
    @pytest.fixture
    async def harness(self, redis: str) -> AsyncIterator[QueueHarness]:
        harness = ServerQueues(redis, capabilities=ALL, options={"durability": "ignore"})
        yield harness
        await forgotten(redis, str(harness.options["namespace"]))
