"""The caching suite over every provider: a list of providers, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from noobly.caching import Can
from noobly.testing import private_or_skip, server_or_skip
from noobly.testing.caching import CacheSuite, LifecycleTheme
from noobly.testing.harness import EmbeddedHarness, Harness, ServerHarness
from noobly.testing.remote import RemoteHarness
from noobly.testing.shared_memory import SharedMemoryHarness

LISTS = frozenset({Can.LIST})
MEMCACHED_BYTES = 1_000_000
"""It takes items of 1 MiB, key and header included."""


class TestMemory(CacheSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        return EmbeddedHarness("memory://", capabilities=LISTS)


class TestSharedMemory(CacheSuite):
    """Two clients of one store in this process, behind all layers, that take turns at every operation."""

    @pytest.fixture
    def harness(self) -> Harness:
        return SharedMemoryHarness()


class TestFile(CacheSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return EmbeddedHarness(f"file://{tmp_path}/cache", capabilities=LISTS, shared=True)


class TestRemote(CacheSuite):
    """A cache on a server, called over HTTP."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return RemoteHarness(f"file://{tmp_path}/cache", capabilities=LISTS, shared=True)


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with server_or_skip("redis") as url:
        yield url


@pytest.fixture(scope="module")
def memcached() -> Iterator[str]:
    with server_or_skip("memcached") as url:
        yield url


@pytest.mark.servers
class TestRedis(CacheSuite):
    @pytest.fixture
    async def harness(self, redis: str) -> AsyncIterator[Harness]:
        harness = ServerHarness(redis, capabilities=LISTS)
        yield harness
        await harness.clean()


@pytest.mark.servers
class TestMemcached(CacheSuite):
    @pytest.fixture
    async def harness(self, memcached: str) -> AsyncIterator[Harness]:
        harness = ServerHarness(memcached, value_bytes=MEMCACHED_BYTES)
        yield harness
        await harness.clean()


@pytest.mark.servers
class TestTieredRedis(CacheSuite):
    @pytest.fixture
    async def harness(self, redis: str) -> AsyncIterator[Harness]:
        harness = ServerHarness(f"tiered+{redis}", capabilities=LISTS)
        yield harness
        await harness.clean()


@pytest.mark.servers
class TestServersThatEnd(LifecycleTheme):
    """Servers of our own, which may be stopped."""

    @pytest.fixture(params=["redis", "memcached", "tiered+redis"])
    def harness(self, request: pytest.FixtureRequest) -> Iterator[Harness]:
        scheme = str(request.param)
        with private_or_skip(scheme.removeprefix("tiered+")) as server:
            url = server.url.replace(server.spec.scheme, scheme, 1)
            listing = LISTS if "redis" in scheme else frozenset()
            yield ServerHarness(url, capabilities=listing, value_bytes=MEMCACHED_BYTES, server=server)
