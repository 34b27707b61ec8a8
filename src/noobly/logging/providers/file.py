"""The file provider: JSON lines in one file that several processes may share, rotated, compressed and searchable."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar, TypeVarTuple

import msgspec

from noobly.core.checks import Limits
from noobly.core.config import Config
from noobly.core.errors import NooblyError, Unavailable
from noobly.core.scope import Environment
from noobly.logging.driver import Count, Followed, Found, Line, Query
from noobly.logging.providers import _log_reading
from noobly.logging.providers._log_file import LogFile, Schedule
from noobly.logging.providers._log_upkeep import Retention, Upkeep, purge
from noobly.logging.providers._rotation import Period, zone

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READERS = 2
_ROUND = 600.0
"""Seconds after which the bounds are looked at even where nothing was rotated."""

Some = Annotated[int, msgspec.Meta(gt=0)]


class FileConfig(Config, frozen=True, kw_only=True):
    """The options of the file provider.

    Args:
        path: The file that lines are appended to; its folder is made where there is none.
        max_bytes: Bytes at which a new file is begun.
        rotate: When a new file is begun besides: ``never``, or with each ``hour``, ``day``, ``week`` or ``month``.
        zone: The zone of that calendar: ``UTC``, ``local``, or a name such as ``Europe/Berlin``.
        compress: Compress rotated files with gzip.
        keep_files: Rotated files that are kept at most.
        keep_days: Days after which a rotated file is deleted.
        keep_bytes: Bytes of disk that all files together may take.
    """

    url_parts: ClassVar[Mapping[str, str]] = {"path": "path"}

    path: Annotated[str, msgspec.Meta(min_length=1)]
    max_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 64 * 1024 * 1024
    rotate: Period = Period.DAY
    zone: str = "UTC"
    compress: bool = True
    keep_files: Some | None = None
    keep_days: Annotated[float, msgspec.Meta(gt=0)] | None = 30.0
    keep_bytes: Some | None = 10 * 1024 * 1024 * 1024


class FileLogs:
    """Lines in a file. A batch is acknowledged once the system has it, so it survives the end of this process.

    Each change takes a lock between processes (flock), which a network file system may not honour.
    """

    Config = FileConfig
    scheme = "file"
    # A local disk needs no deadline or retry, and a full one must not open a circuit through which reads still work.
    in_process = True

    def __init__(self, config: FileConfig, environment: Environment) -> None:
        self.limits = Limits()
        self._path = Path(config.path).absolute()
        self._now = environment.clock.time
        schedule = Schedule(config.max_bytes, config.rotate, zone(config.zone))
        self._log = LogFile(self._path, schedule, self._now)
        seconds = None if config.keep_days is None else config.keep_days * 86_400
        retention = Retention(config.keep_files, seconds, config.keep_bytes)
        self._upkeep = Upkeep(self._path, retention, compress=config.compress, now=self._now)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="noobly-log-writer")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="noobly-log-reader")
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="noobly-log-keeper")
        self._rotations, self._round = 0, 0.0

    async def start(self, stack: AsyncExitStack) -> None:
        """Open the file, or make it, and look after what is left of earlier ones.

        Raises:
            Unavailable: The file cannot be written to.
        """
        stack.callback(self._log.close)
        for threads in (self._writer, self._readers, self._keeper):
            stack.push_async_callback(asyncio.to_thread, threads.shutdown)
        try:
            await self._run(self._writer, self._log.check)
        except OSError as error:
            raise self._unavailable(error) from error
        self._look_after()

    async def append(self, batch: str, lines: Sequence[Line], /) -> None:
        """See the protocol; ids are remembered for the latest 2,048 batches at least, restarts included."""
        if lines:
            data = b"\n".join([*(line.data for line in lines), b""])
            await self._run(self._writer, self._log.append, batch, data)
        if self._rotations != self._log.rotations or self._now() - self._round > _ROUND:
            self._look_after()

    async def search(self, query: Query, after: str | None, limit: int, /) -> Found:
        """See the protocol; newest is what was appended last. A page may be short before the end."""
        return await self._run(self._readers, _log_reading.search, self._log, query, after, limit)

    async def follow(self, after: str | None, limit: int, /) -> Followed:
        """See the protocol; lines may be fewer than there are."""
        return await self._run(self._readers, _log_reading.follow, self._log, after, limit)

    async def counts(self, query: Query, bucket: int, /) -> list[Count]:
        """See the protocol."""
        return await self._run(self._readers, _log_reading.count, self._log, query, bucket)

    async def purge(self, before: int, /) -> int:
        """See the protocol; cursors into files that are written anew end."""
        return await self._run(self._keeper, purge, self._log, self._path, before)

    async def flush(self) -> None:
        """See the protocol; what was appended is on the disk then, so it survives the machine's end, too."""
        await self._run(self._writer, self._log.sync)

    async def health(self) -> None:
        """See the protocol; opens the file, and reports what rotating or compressing failed of."""
        await self._run(self._writer, self._log.check)
        trouble = self._log.trouble or self._upkeep.trouble
        if trouble is not None:
            raise self._unavailable(trouble) from trouble

    def classify(self, error: Exception) -> NooblyError | None:
        """Return the suite's error for one of the operating system."""
        return self._unavailable(error) if isinstance(error, OSError) else None

    def _unavailable(self, error: OSError) -> Unavailable:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            return Unavailable(f"the log {self._path} cannot grow, the batch was not stored: {reason}; free space")
        return Unavailable(f"the log {self._path} failed: {reason}; check its folder, owner and mode")

    def _look_after(self) -> None:
        self._rotations, self._round = self._log.rotations, self._now()
        self._keeper.submit(self._upkeep.round)

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[*Ts], T], *args: *Ts) -> T:
        # A caller that is cancelled stops waiting; the work, once begun, is finished by its thread.
        return await asyncio.get_running_loop().run_in_executor(threads, work, *args)
