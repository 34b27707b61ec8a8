"""The folder of a file cache: locks between processes, the files in it, and its bounds. Everything here blocks."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from noobly.caching.driver import RawPage
from noobly.caching.providers import _entry_file as entry_file
from noobly.caching.providers._entry_file import SHARDS, TEMPORARY, Entry, Place, place
from noobly.caching.providers._entry_tally import Bounds, File, Tally
from noobly.core.clock import fresh_id

_PATIENCE = 5.0
"""Seconds to wait for another process that holds a lock."""
_ABANDONED = 3600.0
"""Seconds after which a temporary file belongs to a writer that died."""
_ASIDE = "cleared-"
_PAGE = 1000
"""Files that one page of keys looks at beyond its limit, so that a call stays short."""


class EntryFolder:
    """Entries as files of one folder that several processes may share.

    Reading takes no lock, for files are replaced in one step. Whatever looks and then changes holds the lock of the
    key's shard, between threads and between processes.

    Args:
        path: The folder; it is made, for its owner alone.
        bounds: What it may hold. Each process looks at the folder anew after it has written an eighth of that.
        now: Where the wall-clock time is read.
    """

    def __init__(self, path: Path, bounds: Bounds, now: Callable[[], float]) -> None:
        self._path = path
        self._bounds = bounds
        self._now = now
        self._threads = {shard: threading.Lock() for shard in SHARDS}
        self._shrinking = threading.Lock()
        self._tally = Tally(bounds)

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            PermissionError: It is a link, or another account owns it or may write to it.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            self._path.mkdir(mode=0o700)
        status = self._path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022 or status.st_uid != os.geteuid():
            raise PermissionError(f"{self._path} must be a folder that only this account may write to")

    def load(self, key: str) -> Entry | None:
        """Return the entry of a key, which may be past its end; None if there is none."""
        spot = place(key)
        with self._opened(spot.folder) as folder:
            return entry_file.read(folder, key, spot.name, self._now) if folder is not None else None

    def store(self, entry: Entry) -> None:
        """Put an entry; the caller holds its lock."""
        spot = place(entry.key)
        with self._made(spot.folder) as folder:
            before = entry_file.size_of(folder, spot.name)
            size = entry_file.write(folder, spot.name, entry, self._now())
        self._tally.replaced(before, size)

    def remove(self, spot: Place) -> None:
        """Delete a file, if it is there; the caller holds its lock."""
        with self._opened(spot.folder) as folder:
            size = entry_file.size_of(folder, spot.name) if folder is not None else None
            if folder is None or size is None:
                return
            # What was set aside has no lock, so that another process may be deleting it too.
            with suppress(FileNotFoundError):
                os.unlink(spot.name, dir_fd=folder)
        self._tally.replaced(size, None)

    @contextmanager
    def locked(self, shard: str) -> Iterator[None]:
        """Keep other threads and processes from changing a shard.

        Raises:
            TimeoutError: Another process held it for 5 seconds.
        """
        with self._threads[shard]:
            lock = self._lock_file(shard)
            try:
                _acquire(lock)
                yield
            finally:
                os.close(lock)

    def clear(self, namespace: str) -> None:
        """Delete all entries whose key begins with ``namespace:``, or all, and folders left empty.

        No other writer comes in between, so that a ``swap`` under way cannot bring an entry back.
        """
        with ExitStack() as locks:
            for shard in SHARDS:
                locks.enter_context(self.locked(shard))
            for folder in entry_file.folders(namespace) if namespace else self._folders():
                if ":" in namespace:
                    self._clear_folder(folder, namespace)
                else:
                    self._set_aside(folder)
        self._discard()

    def page(self, namespace: str, after: str | None, limit: int) -> RawPage:
        """Return a page of live keys, by folder and file name."""
        keys: list[str] = []
        prefix, now = f"{namespace}:" if namespace else "", self._now()
        for looked, (position, entry) in enumerate(self._heads(namespace, after or ""), start=1):
            if entry is not None and entry.end > now and entry.key.startswith(prefix):
                keys.append(entry.key)
            if len(keys) == limit or looked == limit + _PAGE:
                return RawPage(keys, position)
        return RawPage(keys, None)

    def _heads(self, namespace: str, after: str) -> Iterator[tuple[str, Entry | None]]:
        begin = after.partition("/")[0]
        for folder in sorted(entry_file.folders(namespace) if namespace else self._folders()):
            if folder < begin:
                continue
            with self._opened(folder) as opened:
                for name in sorted(_names(opened)):
                    position = f"{folder}/{name}"
                    if opened is not None and position > after:
                        yield position, entry_file.read_head(opened, name)

    def shrink(self, *, at_once: bool = False) -> None:
        """Keep the bounds: look at all files when it is time to, and delete the least recently used ones over them.

        The caller holds no lock.
        """
        if not (at_once or self._tally.due()) or not self._shrinking.acquire(blocking=False):
            return
        try:
            files = self._survey()
            if self._tally.counted(files):
                self._evict(sorted(files))
        finally:
            self._shrinking.release()

    def _evict(self, files: Iterable[File]) -> None:
        for file in files:
            if self._tally.roomy():
                return
            with self.locked(file.place.shard):
                if self._used(file.place) == file.used:
                    self.remove(file.place)

    def _used(self, spot: Place) -> float | None:
        with suppress(FileNotFoundError):
            return (self._path / spot.folder / spot.name).lstat().st_mtime
        return None

    def _survey(self) -> list[File]:
        self._discard()
        found: list[File] = []
        for folder in self._folders():
            before = len(found)
            with self._opened(folder) as opened:
                if opened is not None:
                    found += self._files(opened, folder)
            if len(found) == before:
                with self.locked(folder[-1]):
                    self._drop_empty(folder)
        return found

    def _files(self, opened: int, folder: str) -> Iterator[File]:
        with os.scandir(opened) as items:
            for item in items:
                # Another process may have deleted it meanwhile.
                with suppress(FileNotFoundError):
                    status = item.stat(follow_symlinks=False)
                    if entry_file.is_entry(item.name):
                        spot = Place(folder, item.name)
                        yield File(status.st_mtime, entry_file.cost(status.st_size), spot)
                    elif item.name.startswith(TEMPORARY) and self._now() - status.st_mtime > _ABANDONED:
                        os.unlink(item.name, dir_fd=opened)

    def _drop_empty(self, folder: str) -> None:
        with suppress(OSError):  # It is not empty, or already gone: both are fine.
            (self._path / folder).rmdir()

    def _clear_folder(self, folder: str, namespace: str) -> None:
        with self._opened(folder) as opened:
            for name in _names(opened):
                entry = entry_file.read_head(opened, name) if opened is not None else None
                if entry is not None and entry.key.startswith(f"{namespace}:"):
                    self.remove(Place(folder, name))
        self._drop_empty(folder)

    def _set_aside(self, folder: str) -> None:
        # Deleting many files takes long, and others wait for the locks.
        with suppress(FileNotFoundError):
            (self._path / folder).rename(self._path / f"{_ASIDE}{fresh_id()}")

    def _discard(self) -> None:
        for folder in self._listed(lambda name: name.startswith(_ASIDE)):
            with self._opened(folder) as opened:
                for file in list(self._files(opened, folder)) if opened is not None else []:
                    self.remove(file.place)
            self._drop_empty(folder)

    def _folders(self) -> list[str]:
        return self._listed(entry_file.is_folder)

    def _listed(self, wanted: Callable[[str], bool]) -> list[str]:
        with suppress(FileNotFoundError), os.scandir(self._path) as items:
            return [item.name for item in items if wanted(item.name)]
        return []

    @contextmanager
    def _opened(self, folder: str) -> Iterator[int | None]:
        found = entry_file.open_folder(f"{self._path}/{folder}")
        try:
            yield found
        finally:
            if found is not None:
                os.close(found)

    @contextmanager
    def _made(self, folder: str) -> Iterator[int]:
        with self._opened(folder) as found:
            if found is not None:
                yield found
                return
        with suppress(FileExistsError):
            (self._path / folder).mkdir(mode=0o700)
        with self._opened(folder) as found:
            if found is None:
                raise NotADirectoryError(f"{self._path / folder} is in the way of the cache; remove it")
            yield found

    def _lock_file(self, shard: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self._path / f"lock-{shard}", flags, 0o600)
        except FileNotFoundError:
            # Somebody emptied the cache by removing its folder.
            self.prepare()
            return os.open(self._path / f"lock-{shard}", flags, 0o600)


def _names(folder: int | None) -> list[str]:
    if folder is None:
        return []
    with os.scandir(folder) as items:
        return [item.name for item in items if entry_file.is_entry(item.name)]


def _acquire(lock: int) -> None:
    waited, pause = 0.0, 0.0005
    while True:
        try:
            # Not the waiting form: a process that was stopped while it holds the lock would hold this thread too.
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if waited > _PATIENCE:
                raise TimeoutError(f"another process has held a lock of the cache for {_PATIENCE} s") from error
        time.sleep(pause)
        waited, pause = waited + pause, min(pause * 2, 0.02)
