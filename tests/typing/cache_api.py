"""What mypy must know of the public API; checked by ``scripts/check``, never run."""

from __future__ import annotations

from typing import assert_type

import msgspec

from noobly.caching import Cache, Claim, Entry, open_cache
from noobly.caching.entries import Value
from noobly.core.remote import Remote, remote
from noobly.core.scope import Scope


class User(msgspec.Struct):
    name: str


async def reads(cache: Cache) -> None:
    assert_type(await cache.get("k", type=User), User | None)
    assert_type(await cache.get("k", 0, type=User), User | int)
    assert_type(await cache.lookup("k"), Entry | None)
    assert_type(await cache.claim("k"), Claim)
    assert_type(await cache.increment("k"), int)
    assert_type(await cache.get_many(["k"]), dict[str, Value])


async def opens() -> None:
    async with open_cache("http://localhost:11000") as cache:
        assert_type(cache, Cache)


def remotes(calls: Remote, scope: Scope, cache: Cache) -> None:
    assert_type(remote(Cache)(calls, scope, cache.options), Cache)


async def decorates(cache: Cache) -> None:
    @cache.cached("user:{id}")
    async def user(id: int) -> User:
        return User(str(id))

    @cache.cached("name:{id}")
    def name(id: int) -> str:
        return str(id)

    assert_type(await user(1), User)
    assert_type(await name(1), str)
