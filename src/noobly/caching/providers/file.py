"""The file provider: one file per entry in a folder that outlives the process and that several processes may share."""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar, TypeVarTuple

import msgspec

from noobly.caching.driver import RawPage
from noobly.caching.providers._entry_file import Entry, place
from noobly.caching.providers._entry_folder import EntryFolder
from noobly.caching.providers._entry_tally import Bounds
from noobly.caching.providers.memory import add_to_counter
from noobly.core.checks import Limits
from noobly.core.config import Config
from noobly.core.errors import NooblyError, PermissionDenied, Unavailable
from noobly.core.scope import Environment

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_THREADS = 4
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class FileConfig(Config, frozen=True, kw_only=True):
    """The options of the file provider.

    Args:
        path: The folder, on a local disk; below it each namespace has a folder of its own.
        namespace: Separates users of the same folder.
        max_bytes: Bytes of disk the namespace may take, each file in whole blocks of 4 KiB.
        max_entries: Entries the namespace may have.
    """

    url_parts: ClassVar[Mapping[str, str]] = {"path": "path"}

    path: Annotated[str, msgspec.Meta(min_length=1)]
    namespace: Annotated[str, msgspec.Meta(max_length=256)] = "noobly"
    max_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024)] = 1024 * 1024 * 1024
    max_entries: Annotated[int, msgspec.Meta(gt=0)] = 100_000


class FileCache:
    """Entries in files, kept over restarts; the least recently used ones leave first.

    It is a cache, so writes are not flushed to the disk one by one: the entries of the last seconds before a power
    failure may be gone, but none is ever returned damaged. ``add``, ``swap``, ``touch`` and ``increment`` are atomic
    between processes on one machine (flock); a network file system may not keep that promise.
    """

    Config = FileConfig
    scheme = "file"
    # A local disk needs no deadline or retry, and a full one must not open a circuit through which reads still work.
    in_process = True

    def __init__(self, config: FileConfig, environment: Environment) -> None:
        self.limits = Limits(value_bytes=config.max_bytes // 2)
        self._now = environment.clock.time
        # The namespace is hashed, as keys are: it may be any text, and a path must not be.
        name = hashlib.sha256(config.namespace.encode()).hexdigest()[:32]
        self._path = Path(config.path).absolute() / name
        self._folder = EntryFolder(self._path, Bounds(config.max_bytes, config.max_entries), self._now)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="noobly-file-cache")

    async def start(self, stack: AsyncExitStack) -> None:
        """Make the folder and measure what is in it.

        Raises:
            Unavailable: The folder cannot be made or read.
            PermissionDenied: It may not be, or others may write to it.
        """
        stack.push_async_callback(asyncio.to_thread, self._threads.shutdown)
        try:
            await self._run(self._folder.prepare)
            await self._run(functools.partial(self._folder.shrink, at_once=True))
        except OSError as error:
            raise self.classify(error) or error from error

    async def get(self, key: str, /) -> bytes | None:
        """See the protocol."""
        return await self._run(self._get, key)

    async def get_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        """See the protocol."""
        return await self._run(lambda: [self._get(key) for key in keys])

    async def fetch_many(self, keys: Sequence[str]) -> list[tuple[bytes, float | None] | None]:
        """Return entries with the seconds they have left, for a tier in front of this one."""
        entries = await self._run(lambda: [self._entry(key) for key in keys])
        now = self._now()
        return [entry and (entry.data, entry.end - now if entry.end < math.inf else None) for entry in entries]

    async def put(self, key: str, data: bytes, ttl: float | None, /) -> None:
        """See the protocol."""
        await self._run(self._put, key, data, ttl)

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """See the protocol."""
        await self._run(self._put_many, entries, ttl)

    async def add(self, key: str, data: bytes, ttl: float | None, /) -> bool:
        """See the protocol."""
        fresh = Entry(key, data, self._end(ttl))
        return await self._run(self._change, key, lambda found: fresh if found is None else None)

    async def swap(self, key: str, expected: bytes, data: bytes | None, ttl: float | None, /) -> bool:
        """See the protocol."""
        if data is None:
            return await self._run(self._delete, key, expected)
        fresh = Entry(key, data, self._end(ttl))
        return await self._run(
            self._change, key, lambda found: fresh if found is not None and found.data == expected else None
        )

    async def delete_many(self, keys: Sequence[str], /) -> list[bool]:
        """See the protocol."""
        return await self._run(lambda: [self._delete(key, None) for key in keys])

    async def touch(self, key: str, ttl: float | None, /) -> bool:
        """See the protocol."""
        end = self._end(ttl)
        return await self._run(self._change, key, lambda found: found and found._replace(end=end))

    async def increment(self, key: str, amount: int, ttl: float | None, /) -> int:
        """See the protocol."""
        return await self._run(self._increment, key, amount, self._end(ttl))

    async def clear(self, namespace: str, /) -> None:
        """See the protocol; quick for a namespace without a colon in it."""
        await self._run(self._folder.clear, namespace)

    async def keys(self, namespace: str, after: str | None, limit: int, /) -> RawPage:
        """See the protocol; keys come in the order of their hashes."""
        return await self._run(self._folder.page, namespace, after, limit)

    async def health(self) -> None:
        """See the protocol; looks whether the folder is there and safe."""
        await self._run(self._folder.prepare)

    def classify(self, error: Exception) -> NooblyError | None:
        """Return the suite's error for one of the operating system."""
        if not isinstance(error, OSError):
            return None
        where, reason = self._path.parent, error.strerror or str(error)
        if isinstance(error, PermissionError):
            return PermissionDenied(f"the file cache in {where} may not be used: {reason}; check its owner and mode")
        if error.errno in _FULL:
            return Unavailable(f"the disk of {where} is full, the entry was not stored; free space")
        return Unavailable(f"the file cache in {where} failed: {reason}")

    async def _run(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        # A caller that is cancelled stops waiting; the work, once begun, is finished by its thread.
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _end(self, ttl: float | None) -> float:
        return math.inf if ttl is None else self._now() + ttl

    def _get(self, key: str) -> bytes | None:
        entry = self._entry(key)
        return entry and entry.data

    def _entry(self, key: str) -> Entry | None:
        entry = self._folder.load(key)
        if entry is None or entry.end > self._now():
            return entry
        with self._folder.locked(place(key).shard):
            self._live(key)
        return None

    def _live(self, key: str) -> Entry | None:
        """Return an entry and drop it if it is past its end; the caller holds its lock."""
        entry = self._folder.load(key)
        if entry is None or entry.end > self._now():
            return entry
        self._folder.remove(place(key))
        return None

    def _put(self, key: str, data: bytes, ttl: float | None) -> None:
        with self._folder.locked(place(key).shard):
            self._folder.store(Entry(key, data, self._end(ttl)))
        self._folder.shrink()

    def _put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None) -> None:
        for key, data in entries:
            self._put(key, data, ttl)

    def _change(self, key: str, change: Callable[[Entry | None], Entry | None]) -> bool:
        with self._folder.locked(place(key).shard):
            fresh = change(self._live(key))
            if fresh is None:
                return False
            self._folder.store(fresh)
        self._folder.shrink()
        return True

    def _delete(self, key: str, expected: bytes | None) -> bool:
        spot = place(key)
        with self._folder.locked(spot.shard):
            entry = self._live(key)
            if expected is None or (entry is not None and entry.data == expected):
                self._folder.remove(spot)
                return entry is not None
            return False

    def _increment(self, key: str, amount: int, end: float) -> int:
        numbers: list[int] = []

        def added(found: Entry | None) -> Entry:
            numbers.append(add_to_counter(key, found.data if found is not None else b"0", amount))
            return Entry(key, b"%d" % numbers[0], found.end if found is not None else end)

        self._change(key, added)
        return numbers[0]
