"""Filling a cache before it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from time import monotonic

import msgspec

from noobly.core.errors import InvalidArgument


class WarmProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far warming has come.

    Args:
        done: Keys finished.
        failed: Those of them whose loader failed.
        total: All keys; None where their number is not known beforehand.
        seconds: Time since the start.
    """

    done: int
    failed: int
    total: int | None
    seconds: float


Fill = Callable[[str], Awaitable[object]]


async def warm(
    fill: Fill,
    keys: Iterable[str] | AsyncIterable[str],
    *,
    concurrency: int,
    rate: float | None,
    on_progress: Callable[[WarmProgress], None] | None,
) -> WarmProgress:
    """Run ``fill`` for each key, at most so many at once and so many per second; return the final progress."""
    if concurrency < 1:
        raise InvalidArgument(f"concurrency must be at least 1, not {concurrency}")
    if rate is not None and not rate > 0:
        raise InvalidArgument(f"rate must be more than 0 keys per second, or None for no limit, not {rate}")
    total = len(keys) if isinstance(keys, list | tuple | set | frozenset | dict) else None
    began, counts = monotonic(), {"done": 0, "failed": 0}
    source = _paced(keys, rate)
    reading = asyncio.Lock()

    def progress() -> WarmProgress:
        return WarmProgress(done=counts["done"], failed=counts["failed"], total=total, seconds=monotonic() - began)

    async def worker() -> None:
        while True:
            async with reading:
                key = await anext(source, None)
            if key is None:
                return
            filled = await _filled(fill, key)  # Awaited first, for other workers count meanwhile.
            counts["failed"] += not filled
            counts["done"] += 1
            if on_progress is not None:
                on_progress(progress())

    try:
        async with aclosing(source), asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # The source of keys failed, or the caller's own callback did.
    return progress()


async def _filled(fill: Fill, key: str) -> bool:
    try:
        await fill(key)
    except Exception:  # noqa: BLE001 - a loader is the user's; one bad key must not end the warming
        return False
    return True


async def _paced(keys: Iterable[str] | AsyncIterable[str], rate: float | None) -> AsyncGenerator[str, None]:
    pause = 1 / rate if rate else 0.0
    if isinstance(keys, AsyncIterable):
        async for key in keys:
            yield key
            await asyncio.sleep(pause)
        return
    for key in keys:
        yield key
        await asyncio.sleep(pause)
