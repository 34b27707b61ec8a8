"""A file provider on a folder, and a look into the folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from noobly.caching.providers.file import FileCache, FileConfig
from noobly.core.scope import Environment
from noobly.testing import FakeClock

KIB = 1024


@asynccontextmanager
async def opened(path: Path, clock: FakeClock | None = None, **options: int) -> AsyncIterator[FileCache]:
    async with AsyncExitStack() as stack:
        cache = FileCache(FileConfig(path=str(path), **options), Environment(clock=clock))
        await cache.start(stack)
        yield cache


def entries(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if len(file.name) == 64]


def found(path: Path, pattern: str) -> list[Path]:
    return sorted(path.rglob(pattern))


def blocks(path: Path) -> int:
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in entries(path))


async def listed(cache: FileCache, namespace: str = "", limit: int = 100) -> list[str]:
    keys: list[str] = []
    after: str | None = None
    while True:
        page = await cache.keys(namespace, after, limit)
        assert len(page.keys) <= limit
        keys += page.keys
        after = page.after
        if after is None:
            return keys
