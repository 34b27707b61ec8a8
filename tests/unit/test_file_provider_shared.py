"""The file provider with other processes, within its bounds, on full disks and when it is interrupted."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from noobly.caching import open_cache
from noobly.caching.providers import _entry_folder
from noobly.caching.providers.file import FileCache
from noobly.core.errors import PermissionDenied, Unavailable
from noobly.testing import FakeClock

from .file_cache import KIB, blocks, entries, found, listed, opened


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[FileCache]:
    async with opened(tmp_path / "cache") as found:
        yield found


INCREMENT = """
import asyncio, sys
from noobly.caching import open_cache
async def main():
    async with open_cache("file:", path=sys.argv[1]) as cache:
        for _ in range(50):
            await asyncio.gather(*(cache.increment("counter") for _ in range(10)))
asyncio.run(main())
"""


def run(script: str, *args: object, **options: object) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


async def test_two_processes_count_together(tmp_path: Path) -> None:
    with run(INCREMENT, tmp_path) as one, run(INCREMENT, tmp_path) as two:
        outputs = [await asyncio.to_thread(process.communicate, timeout=30) for process in (one, two)]
    assert (one.returncode, two.returncode) == (0, 0), outputs
    async with open_cache("file:", path=str(tmp_path)) as cache:
        assert await cache.get("counter") == 1000


async def test_of_many_who_add_or_swap_one_wins(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as two:
        calls = [cache.add("lock", b"%d" % n, None) for n in range(20) for cache in (one, two)]
        assert sum(await asyncio.gather(*calls)) == 1
        held = await one.get("lock")
        assert held is not None
        swaps = [cache.swap("lock", held, b"next%d" % n, None) for n in range(20) for cache in (one, two)]
        assert sum(await asyncio.gather(*swaps)) == 1


async def test_a_lock_that_another_process_keeps_is_an_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_entry_folder, "_PATIENCE", 0.05)
    async with open_cache("file:", path=str(tmp_path)) as cache:
        await cache.put("key", 1)
        (lock,) = found(tmp_path, "lock-*")
        with lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(Unavailable, match="held a lock"):
                await cache.put("key", 2)
            assert await cache.get("key") == 1, "reading needs no lock"
        await cache.put("key", 3)
        assert await cache.get("key") == 3


async def test_eviction_keeps_the_bounds_and_what_is_used(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock, max_bytes=256 * KIB, max_entries=50) as cache:
        await cache.put("used", b"x" * 100, None)
        for n in range(200):
            clock.advance(61)
            await cache.put(f"few:{n}", b"x" * 100, None)
            assert await cache.get("used") is not None
            assert len(entries(tmp_path)) <= 50
        assert await cache.get_many(["few:0", "few:199"]) == [None, b"x" * 100]
        for n in range(100):
            clock.advance(61)
            await cache.put(f"large:{n}", b"x" * 20_000, None)
            assert blocks(tmp_path) <= 256 * KIB
        assert await cache.get("large:99") is not None
        assert cache.limits.value_bytes == 128 * KIB
        await cache.put("largest", b"x" * 128 * KIB, None)
        assert await cache.get("largest") is not None


async def test_the_bounds_hold_for_what_is_found(tmp_path: Path) -> None:
    async with opened(tmp_path) as cache:
        await cache.put_many([(f"k:{n}", b"x" * 4000) for n in range(100)], None)
        assert blocks(tmp_path) > 256 * KIB
    async with opened(tmp_path, max_bytes=256 * KIB):
        assert 0 < blocks(tmp_path) <= 256 * KIB


async def test_the_bounds_hold_for_what_others_write(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=256 * KIB) as one, opened(tmp_path, max_bytes=256 * KIB) as two:
        for n in range(100):
            await one.put(f"one:{n}", b"x" * 4000, None)
            await two.put(f"two:{n}", b"x" * 4000, None)
            assert blocks(tmp_path) <= (256 + 2 * 32 + 2 * 8) * KIB, "each may be an eighth and an entry behind"
        assert await two.get("two:99") is not None


async def test_leftovers_of_dead_writers_and_empty_folders_go(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as cache:
        await cache.put("a:1", b"1", None)
        await cache.put("b:1", b"1", None)
        folders = {file.parent for file in entries(tmp_path)}
        for folder in folders:
            for age in (10, 4000):
                left = folder / f"tmp-{age}"
                left.touch()
                os.utime(left, (clock.time() - age, clock.time() - age))
        await cache.delete_many(["a:1"])
    async with opened(tmp_path, clock):
        assert [file.name for file in found(tmp_path, "tmp-*")] == ["tmp-10", "tmp-10"]
        clock.advance(4000)
    async with opened(tmp_path, clock) as cache:
        assert await listed(cache) == ["b:1"]
        assert len([folder for folder in folders if folder.exists()]) == 1


FULL = """
import asyncio, resource, subprocess, sys
from noobly.caching import open_cache
from noobly.core.errors import Unavailable
kind, path = sys.argv[1:]
if kind == "tmpfs":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", path], check=True)
async def main():
    async with open_cache("file:", path=path) as cache:
        await cache.put("key", b"old")
        if kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for _ in range(8):
            try:
                await cache.put("key", b"x" * 300_000)
            except Unavailable as error:
                print(error)
            assert await cache.get("key") == b"old"
            assert await cache.add("new", b"x" * 1000)
            assert await cache.delete("new")
asyncio.run(main())
subprocess.run(["find", path, "-name", "tmp-*"], check=True)
"""

# Where we may mount, also a small disk that is really full; a limit on the size of files needs no rights.
UNSHARE = ["unshare", "-m"]
MOUNTS = shutil.which("unshare") and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0
DISKS = ["limit", *(["tmpfs"] if MOUNTS else [])]


@pytest.mark.parametrize("kind", DISKS)
async def test_a_full_disk_is_an_error_for_the_write_alone(tmp_path: Path, kind: str) -> None:
    argv = [*(UNSHARE if kind == "tmpfs" else []), sys.executable, "-c", FULL, kind, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 8, "every write failed, and none left a file behind"
    assert all(("is full" if kind == "tmpfs" else "too large") in line for line in lines)


async def test_errors_of_the_system_have_names(cache: FileCache) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT):
        found = cache.classify(OSError(number, os.strerror(number)))
        assert type(found) is Unavailable
        assert "is full" in found.message
    assert type(cache.classify(OSError(errno.EACCES, "no"))) is PermissionDenied
    assert type(cache.classify(OSError(errno.EIO, "broken"))) is Unavailable
    assert cache.classify(ValueError()) is None


async def test_cancelled_writes_are_done_in_full_or_not_at_all(cache: FileCache, tmp_path: Path) -> None:
    chance = random.Random(1)
    values = {f"k:{n}": bytes([n % 256]) * 30_000 for n in range(200)}
    tasks = [asyncio.create_task(cache.put(key, data, None)) for key, data in values.items()]
    await asyncio.sleep(0)
    for task in chance.sample(tasks, 100):
        task.cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) > 0
    for (key, data), result in zip(values.items(), results, strict=True):
        assert await cache.get(key) in ([data] if result is None else [data, None])
    await cache.clear("")
    assert found(tmp_path, "tmp-*") == []


async def test_closing_ends_the_threads_after_their_work(tmp_path: Path) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("noobly-file-cache")]

    async with opened(tmp_path) as cache:
        tasks = [asyncio.create_task(cache.put(f"k:{n}", b"1", None)) for n in range(50)]
        await asyncio.sleep(0)
        assert threads()
    assert threads() == []
    assert await asyncio.gather(*tasks) == [None] * 50
    assert len(entries(tmp_path)) == 50


async def test_a_clear_that_was_cut_short_is_finished_by_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as cache:
        await cache.put_many([(f"a:{n}", b"1") for n in range(50)], None)
        for number, folder in enumerate(found(tmp_path, "?" * 32 + "-?")):
            folder.rename(folder.with_name(f"cleared-{number}"))
        await cache.put("a:1", b"2", None)
    async with opened(tmp_path) as cache:
        assert await listed(cache) == ["a:1"]
        assert len(entries(tmp_path)) == 1


async def test_clearing_makes_room(tmp_path: Path) -> None:
    async with opened(tmp_path, max_entries=100) as cache:
        for _ in range(5):
            keys = [f"a:{n}" for n in range(90)]
            await cache.put_many([(key, b"1") for key in keys], None)
            assert None not in await cache.get_many(keys)
            await cache.clear("a")
