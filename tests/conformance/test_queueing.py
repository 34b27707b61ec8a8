"""The queueing suite over every provider: a list of providers, and nothing else; SQS and RabbitMQ have their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from noobly.core.capability import Capability
from noobly.core.config import Secret
from noobly.queueing import Can, Queues, open_queues
from noobly.testing import private_or_skip, server_or_skip
from noobly.testing.queueing import EmbeddedQueues, LifecycleTheme, QueueHarness, QueueSuite, ServerQueues

from ..redis_keys import database, forgotten
from ..serving import served

KEY = "queueing-key-of-the-tests"
ALL = frozenset(Can)


class RemoteQueues(EmbeddedQueues):
    """Queues on a server of this suite, over real HTTP."""

    direct = False

    @asynccontextmanager
    async def open(self, *, require: Sequence[Capability] = (), **options: object) -> AsyncIterator[Queues]:
        """See the protocol."""
        kept, client = self.options | options, self.environment()
        async with served("queueing", self.url, KEY, environment=self.environment(), **kept) as (noobly, address):
            self.under = noobly.queueing._driver
            async with open_queues(address, key=Secret(KEY), require=require, environment=client) as queues:
                yield queues


class TestMemory(QueueSuite):
    @pytest.fixture
    def harness(self) -> QueueHarness:
        return EmbeddedQueues("memory://", capabilities=ALL)


class TestSqlite(QueueSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> QueueHarness:
        return EmbeddedQueues(f"sqlite://{tmp_path}/queues.db", capabilities=ALL, shared=True, durable=True)


class TestRemoteMemory(QueueSuite):
    @pytest.fixture
    def harness(self) -> QueueHarness:
        return RemoteQueues("memory://", capabilities=ALL)


class TestRemoteSqlite(LifecycleTheme):
    """Two servers of one store."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> QueueHarness:
        return RemoteQueues(f"sqlite://{tmp_path}/queues.db", capabilities=ALL, shared=True, durable=True)


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with server_or_skip("redis") as url:
        yield database(url, 1)


@pytest.mark.servers
class TestRedis(QueueSuite):
    @pytest.fixture
    async def harness(self, redis: str) -> AsyncIterator[QueueHarness]:
        harness = ServerQueues(redis, capabilities=ALL, options={"durability": "ignore"})
        yield harness
        await forgotten(redis, str(harness.options["namespace"]))


@pytest.mark.servers
class TestRedisThatEnds(LifecycleTheme):
    """A server of our own, which may be stopped."""

    @pytest.fixture
    def harness(self) -> Iterator[QueueHarness]:
        with private_or_skip("redis", "--appendonly", "yes") as server:
            yield ServerQueues(server.url, capabilities=ALL, server=server)
