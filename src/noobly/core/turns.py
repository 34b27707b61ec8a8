"""Long work on the event loop, in short stretches: between them others get their turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

STRETCH = 0.001
"""Seconds after which others get their turn."""


async def gently(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items; after each millisecond of work on them, others have a turn on the event loop."""
    began = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - began > STRETCH:
            await asyncio.sleep(0)
            began = time.perf_counter()
