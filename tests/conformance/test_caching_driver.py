"""The driver suite over every bare provider: a list of providers, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("noobly.testing.caching_driver")

from noobly.caching import Can
from noobly.testing import server_or_skip
from noobly.testing.caching_driver import CacheDriverSuite, DriverHarness
from noobly.testing.harness import EmbeddedHarness, ServerHarness

LISTS = frozenset({Can.LIST})


class TestMemory(CacheDriverSuite):
    @pytest.fixture
    def harness(self) -> DriverHarness:
        return EmbeddedHarness("memory://", capabilities=LISTS)


class TestFile(CacheDriverSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> DriverHarness:
        return EmbeddedHarness(f"file://{tmp_path}/cache", capabilities=LISTS, shared=True)


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with server_or_skip("redis") as url:
        yield url


@pytest.fixture(scope="module")
def memcached() -> Iterator[str]:
    with server_or_skip("memcached") as url:
        yield url


async def assert_they_stay_apart(one: ServerHarness, other: ServerHarness) -> None:
    async with one.open_bare() as mine, other.open_bare() as theirs:
        for driver in (mine, theirs):
            await driver.put_many([("key", b"x"), ("a:1", b"x")], 60)
        await mine.clear("a")
        assert await theirs.get_many(["key", "a:1"]) == [b"x", b"x"]
        await mine.clear("")
        assert await mine.get("key") is None
        assert await theirs.get_many(["key", "a:1"]) == [b"x", b"x"]
    await other.clean()


@pytest.mark.servers
class TestRedis(CacheDriverSuite):
    @pytest.fixture
    async def harness(self, redis: str) -> AsyncIterator[DriverHarness]:
        harness = ServerHarness(redis, capabilities=LISTS)
        yield harness
        await harness.clean()

    async def test_namespaces_stay_apart(self, redis: str) -> None:
        await assert_they_stay_apart(ServerHarness(redis), ServerHarness(redis))


@pytest.mark.servers
class TestMemcached(CacheDriverSuite):
    @pytest.fixture
    async def harness(self, memcached: str) -> AsyncIterator[DriverHarness]:
        harness = ServerHarness(memcached, value_bytes=1_000_000)
        yield harness
        await harness.clean()

    async def test_namespaces_stay_apart(self, memcached: str) -> None:
        await assert_they_stay_apart(ServerHarness(memcached), ServerHarness(memcached))


@pytest.mark.servers
class TestTieredRedis(CacheDriverSuite):
    @pytest.fixture
    async def harness(self, redis: str) -> AsyncIterator[DriverHarness]:
        harness = ServerHarness(f"tiered+{redis}", capabilities=LISTS)
        yield harness
        await harness.clean()
