"""What callers of ``get_or_compute`` and ``cached`` get, in whatever way the value came about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
import pytest_asyncio

from noobly.app import Noobly
from noobly.caching import Cache, Can, Computed, open_cache
from noobly.core.errors import InvalidArgument, Unavailable, Unsupported
from noobly.server.app import build
from noobly.server.auth import DevGuard
from noobly.settings import Settings
from noobly.testing import free_port

from ..serving import serving

if TYPE_CHECKING:
    from fractions import Fraction


class User(msgspec.Struct):
    name: str
    born: date
    roles: tuple[str, ...] = ()


ADA = User("Ada", date(1815, 12, 10), ("admin",))


@pytest_asyncio.fixture
async def cache() -> AsyncIterator[Cache]:
    async with open_cache() as opened:
        yield opened


async def test_every_caller_gets_a_copy_of_its_own(cache: Cache) -> None:
    async def factory() -> dict[str, list[int]]:
        await asyncio.sleep(0)
        return {"numbers": [1]}

    one, two, later = await asyncio.gather(*(cache.get_or_compute("k", factory) for _ in range(3)))
    one["numbers"].append(2)
    assert two == later == await cache.get_or_compute("k", factory) == {"numbers": [1]}


async def test_a_type_holds_for_computed_and_stored_values_alike(cache: Cache) -> None:
    for _ in range(2):
        assert await cache.get_or_compute("k", lambda: ADA, type=User) == ADA
    for _ in range(2):
        assert await cache.get_or_compute("untyped", lambda: (1, 2)) == [1, 2]
    with pytest.raises(InvalidArgument, match="not a int"):
        await cache.get_or_compute("k", lambda: ADA, type=int)


async def test_a_decorated_function_returns_what_it_says(cache: Cache) -> None:
    calls: list[int] = []

    @cache.cached("user:{number}", ttl=60)
    async def user(number: int) -> User:
        calls.append(number)
        return ADA

    @cache.cached("at:{number}")
    def at(number: int) -> datetime:
        return datetime.fromtimestamp(number, UTC)

    assert [await user(1), await user(1)] == [ADA, ADA]
    assert calls == [1]
    assert [await at(0), await at(0)] == [datetime(1970, 1, 1, tzinfo=UTC)] * 2


async def test_an_annotation_that_cannot_be_told_is_none(cache: Cache) -> None:
    @cache.cached("half")
    def half() -> Fraction:
        return {"half": True}  # type: ignore[return-value]

    assert await half() == {"half": True}


async def test_a_function_that_stops_iterating_is_an_error_like_any_other(cache: Cache) -> None:
    @cache.cached("k")
    def broken() -> int:
        return next(iter(()))

    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await broken()


async def test_unknown_ways_of_keeping_are_refused(cache: Cache) -> None:
    with pytest.raises(InvalidArgument, match="no argument 'tll'"):
        await cache.get_or_compute("k", lambda: 1, tll=5)  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match="ttl"):
        await cache.get_or_compute("k", lambda: 1, ttl=-1)


async def test_a_result_that_is_not_to_be_stored(cache: Cache) -> None:
    assert await cache.get_or_compute("k", lambda: Computed(value=[1], store=False)) == [1]
    assert await cache.get("k") is None


async def test_what_a_remote_instance_can_do_is_asked_of_its_server() -> None:
    async with Noobly.open(settings=Settings()) as noobly, serving(build(noobly, guard=DevGuard())) as base:
        async with open_cache(base, require=[Can.LIST]) as cache:
            assert [key async for key in cache.keys()] == []
        noobly.caching.capabilities = frozenset()
        async with serving(build(noobly, guard=DevGuard())) as bare:
            with pytest.raises(Unsupported, match="lacks list"):
                async with open_cache(bare, require=[Can.LIST]):
                    pass
    with pytest.raises(Unavailable):
        async with open_cache(base, require=[Can.LIST]):
            pass


async def test_reads_of_a_server_that_is_away_miss() -> None:
    async with open_cache(f"http://127.0.0.1:{free_port()}", attempts=1) as remote:
        assert await remote.get("k", "default") == "default"
        assert await remote.get_many(["k"]) == {}
        assert await remote.lookup("k") is None
        assert await remote.get_or_compute("k", lambda: {"a": 1}) == {"a": 1}
