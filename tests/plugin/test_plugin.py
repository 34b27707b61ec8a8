"""A provider in a package of its own is found through its entry point and passes the suites that Noobly ships."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest.register_assert_rewrite("noobly.testing.caching_driver")

from noobly.caching import Can, open_cache
from noobly.caching.providers import REGISTRY
from noobly.core.errors import ConfigError, Unavailable
from noobly.testing import required
from noobly.testing.caching import CacheSuite
from noobly.testing.caching_driver import CacheDriverSuite
from noobly.testing.harness import EmbeddedHarness

SCHEME = "example-sqlite"

if SCHEME not in entry_points(group="noobly.caching").names:
    advice = "noobly-example-sqlite is not installed: run scripts/install"
    if required():
        pytest.fail(advice, pytrace=False)
    pytest.skip(advice, allow_module_level=True)


@pytest.fixture
def sqlite(tmp_path: Path) -> EmbeddedHarness:
    url = f"{SCHEME}://{tmp_path}/cache.db"
    return EmbeddedHarness(url, capabilities=frozenset({Can.LIST}), shared=True)


class TestDriver(CacheDriverSuite):
    @pytest.fixture
    def harness(self, sqlite: EmbeddedHarness) -> EmbeddedHarness:
        return sqlite


class TestCache(CacheSuite):
    @pytest.fixture
    def harness(self, sqlite: EmbeddedHarness) -> EmbeddedHarness:
        return sqlite


def test_it_is_listed_beside_the_built_in_ones() -> None:
    found = {listed.scheme: listed.builtin for listed in REGISTRY.providers()}
    assert found[SCHEME] is False
    assert found["memory"] is True


async def test_entries_outlive_the_process(tmp_path: Path) -> None:
    url = f"{SCHEME}://{tmp_path}/cache.db"
    async with open_cache(url) as cache:
        await cache.put("user:1", {"name": "Ada"})
    async with open_cache(url) as cache:
        assert await cache.get("user:1") == {"name": "Ada"}


async def test_namespaces_are_apart(tmp_path: Path) -> None:
    url = f"{SCHEME}://{tmp_path}/cache.db"
    async with open_cache(url, namespace="one") as one, open_cache(url, namespace="two") as two:
        await one.put("key", 1)
        await two.put("key", 2)
        await one.clear()
        assert await one.get("key") is None
        assert await two.get("key") == 2


async def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cache\.db"):
        async with open_cache(f"{SCHEME}://{tmp_path}/none/cache.db"):
            pass


async def test_its_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean busy_timeout"):
        async with open_cache(f"{SCHEME}://{tmp_path}/cache.db?busy_timeot=1"):
            pass
