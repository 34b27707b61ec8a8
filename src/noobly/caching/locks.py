"""A lock that all users of a store share, made of the cache's public methods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from noobly.core.clock import Seconds, seconds
from noobly.core.errors import Conflict, InvalidArgument, NooblyError
from noobly.core.lifecycle import Tasks

_FIRST_POLL, _LAST_POLL = 0.01, 0.25


class Lockable(Protocol):
    """The public methods that a lock is made of."""

    async def acquire(self, name: str, *, lease: Seconds | None) -> str | None: ...
    async def extend(self, name: str, token: str, *, lease: Seconds | None) -> bool: ...
    async def release(self, name: str, token: str) -> bool: ...


@asynccontextmanager
async def held(cache: Lockable, tasks: Tasks, name: str, *, lease: float, wait: Seconds | None) -> AsyncIterator[str]:
    """Hold a lock for the body; its lease is renewed while the body runs.

    Args:
        cache: Whose store keeps the lock.
        tasks: Who owns the renewal.
        name: The lock's name.
        lease: Seconds after which the lock of a dead holder is free.
        wait: Seconds to wait for the lock; 0 for a single try, None for ever.

    Yields:
        The token that proves the holding. It is new each time but not ordered, so it tells two holdings apart and
        does not tell which one is newer.

    Raises:
        Conflict: Somebody else held it all the time.
    """
    token = await _acquire(cache, name, lease, 0.0 if wait == 0 else seconds(wait, "wait"))
    heartbeat = tasks.spawn(_renew(cache, name, token, lease), f"lock {name!r}")
    try:
        yield token
    finally:
        heartbeat.cancel()
        await asyncio.shield(cache.release(name, token))


async def _acquire(cache: Lockable, name: str, lease: float, wait: float | None) -> str:
    loop = asyncio.get_running_loop()
    give_up, pause = loop.time() + wait if wait is not None else None, _FIRST_POLL
    while True:
        token = await cache.acquire(name, lease=lease)
        if token is not None:
            return token
        if give_up is not None and loop.time() >= give_up:
            raise Conflict(f"the lock {name!r} was held by somebody else for {wait} s")
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LAST_POLL)


async def _renew(cache: Lockable, name: str, token: str, lease: float) -> None:
    while True:
        await asyncio.sleep(lease / 3)
        try:
            if not await cache.extend(name, token, lease=lease):
                return
        except NooblyError:
            continue  # The next beat may get through before the lease ends.


def token_bytes(token: str) -> bytes:
    """Return a lock's token as it is stored.

    Raises:
        InvalidArgument: It cannot be one.
    """
    if not isinstance(token, str) or not token.isascii():
        raise InvalidArgument("the token is not one that `acquire` gave out")
    return token.encode()
