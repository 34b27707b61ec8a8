"""The working suite over every provider: a list of providers, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from noobly.core.capability import Capability
from noobly.core.clock import fresh_id
from noobly.core.config import Secret
from noobly.testing import private_or_skip, server_or_skip
from noobly.testing.working import EmbeddedJobs, JobHarness, JobSuite, LifecycleTheme, ServerJobs, StoppingTheme
from noobly.working import Can, JobOptions, Jobs, open_jobs

from ..redis_keys import database, unlinked
from ..serving import served

KEY = "working-key-of-the-tests"
ALL = frozenset(Can)


class RemoteJobs(EmbeddedJobs):
    """Jobs on a server of this suite, over real HTTP."""

    direct = False

    @asynccontextmanager
    async def open(self, *, require: Sequence[Capability] = (), **options: object) -> AsyncIterator[Jobs]:
        """See the protocol."""
        kept, client = self.options | options, self.environment()
        mine = {name: value for name, value in options.items() if name in JobOptions.__struct_fields__}
        async with (
            served("working", self.url, KEY, environment=self.environment(), **kept) as (_, address),
            open_jobs(address, key=Secret(KEY), require=require, environment=client, **mine) as jobs,
        ):
            yield jobs


class TestMemory(JobSuite):
    @pytest.fixture
    def harness(self) -> JobHarness:
        return EmbeddedJobs("memory://", capabilities=ALL)


class TestSqlite(JobSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> JobHarness:
        return EmbeddedJobs(f"sqlite://{tmp_path}/jobs.db", capabilities=ALL, apart=True, shared=True, durable=True)


class TestRemoteMemory(JobSuite):
    @pytest.fixture
    def harness(self) -> JobHarness:
        return RemoteJobs("memory://", capabilities=ALL)


class TestRemoteSqlite(JobSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> JobHarness:
        url = f"sqlite://{tmp_path}/jobs.db"
        return RemoteJobs(url, capabilities=ALL, shared=True, durable=True)


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with server_or_skip("redis") as url:
        yield database(url, 2)


@pytest.mark.servers
class TestBullmq(JobSuite):
    @pytest.fixture
    async def harness(self, redis: str) -> AsyncIterator[JobHarness]:
        prefix = f"conformance-{fresh_id()}"
        yield ServerJobs(redis.replace("redis", "bullmq", 1), capabilities=ALL, options={"prefix": prefix})
        await unlinked(redis, prefix)


@pytest.mark.servers
class TestBullmqThatEnds(LifecycleTheme, StoppingTheme):
    """A server of our own, which may be stopped."""

    @pytest.fixture
    def harness(self) -> Iterator[JobHarness]:
        with private_or_skip("redis", "--appendonly", "yes") as server:
            yield ServerJobs(server.url.replace("redis", "bullmq", 1), capabilities=ALL, server=server)
