"""Bringing what was spilled back into the store, once it works again: each line once and whole, whoever dies meanwhile.

The spill file is renamed, so that nobody appends to it any more, to a name that says how far it was stored. A batch's
id follows from that name: one that was stored by a process that died before it could say so is known to the store.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar, TypeVarTuple

from noobly.core.clock import fresh_id
from noobly.core.errors import InvalidArgument, NooblyError, TooLarge
from noobly.core.lifecycle import Tasks
from noobly.logging.driver import Line
from noobly.logging.formats import decode, micros, moment
from noobly.logging.spill import held, mend, to_stderr

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_CHUNK = 64 * 1024
"""Bytes of one chunk; no option, for the ids of batches hold only for chunks that every process cuts alike."""
_TAKEN = re.compile(r"([0-9a-f]{32})-(\d+)")

Once = Callable[[str, Sequence[Line]], Awaitable[NooblyError | None]]
"""Stores a batch under its id; returns what it failed with."""


class Chunk(NamedTuple):
    """Lines that were spilled, the id under which they are stored, and where the next ones begin."""

    batch: str
    lines: list[Line]
    end: int


class Taken:
    """A spill file that was taken away to be stored; belongs to one process at a time. Blocking.

    Args:
        path: The spill file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = self._file = -1
        self._name, self._position = "", 0

    def open(self) -> bool:
        """Take up what was left, or take the spill file away; return whether there is anything, and it is ours.

        Raises:
            OSError: The folder cannot be used.
        """
        if not self._anything() or not self._alone():
            return False
        left = self._left()
        if not left and not self._path.exists():
            self.close()
            return False
        self._name, self._position = left[0] if left else self._take()
        self._file = os.open(self._at(self._position), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        return True

    def chunk(self) -> Chunk | None:
        """Return the next lines, or None at the end; what is no record goes to standard error."""
        data = os.pread(self._file, _CHUNK, self._position)
        while data and b"\n" not in data:
            more = os.pread(self._file, _CHUNK, self._position + len(data))
            data = data + more if more else b""
        whole = data[: data.rfind(b"\n") + 1]
        if not whole:
            return None
        lines = [line for text in whole.splitlines() if (line := _line(text)) is not None]
        return Chunk(f"{self._name}-{self._position}", lines, self._position + len(whole))

    def stored(self, chunk: Chunk) -> None:
        """Write down that all before a chunk's end is stored."""
        self._at(self._position).rename(self._at(chunk.end))
        self._position = chunk.end

    def remove(self) -> None:
        """Delete the file, all of which is stored."""
        self._at(self._position).unlink()

    def close(self) -> None:
        """Leave what is not stored to others."""
        for file in (self._file, self._lock):
            if file >= 0:
                os.close(file)
        self._file = self._lock = -1

    def _alone(self) -> bool:
        self._lock = os.open(
            self._path.with_name(f"{self._path.name}.lock"),
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            return False
        return True

    def _anything(self) -> bool:
        return self._path.exists() or (self._path.parent.is_dir() and bool(self._left()))

    def _left(self) -> list[tuple[str, int]]:
        start = f"{self._path.name}."
        names = [file.name.removeprefix(start) for file in self._path.parent.iterdir() if file.name.startswith(start)]
        return [(match[1], int(match[2])) for match in map(_TAKEN.fullmatch, sorted(names)) if match is not None]

    def _take(self) -> tuple[str, int]:
        with held(self._path, os.O_RDWR) as file:
            mend(file)
            self._name = fresh_id()
            self._path.rename(self._at(0))
        return self._name, 0

    def _at(self, position: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{self._name}-{position}")


class Returns:
    """Stores what was spilled, while the store works, beside what is logged meanwhile.

    Args:
        path: The spill file; None for none.
        once: Stores a batch.
        told: Is given the lines that were stored.
    """

    def __init__(self, path: Path | None, once: Once, told: Callable[[Sequence[Line]], None]) -> None:
        self._path = path
        self._once = once
        self._told = told
        self._tasks = Tasks()
        self._running: asyncio.Task[None] | None = None
        self.due = True
        """There may be something: an earlier process may have left it."""

    @property
    def busy(self) -> bool:
        """Whether it is under way."""
        return self._running is not None and not self._running.done()

    def soon(self) -> None:
        """Begin, unless there is nothing; the store has just taken a batch."""
        if self.due and self._path is not None and not self.busy:
            self._running = self._tasks.spawn(self._return(self._path), "noobly-log-spill")

    async def close(self) -> None:
        """Stop; what is not stored stays in its file for the next process."""
        await self._tasks.close()

    async def _return(self, path: Path) -> None:
        while self.due:
            self.due = False
            if not await self._emptied(path):
                self.due = True
                return

    async def _emptied(self, path: Path) -> bool:
        taken = Taken(path)
        try:
            while await _off_loop(taken.open):
                if not await self._all(taken):
                    return False
                await _off_loop(taken.remove)
                taken.close()
        except OSError as error:
            to_stderr(f"noobly: what was spilled to {path} cannot be stored: {error}\n".encode())
            return False
        finally:
            taken.close()
        return True

    async def _all(self, taken: Taken) -> bool:
        while (chunk := await _off_loop(taken.chunk)) is not None:
            if not await self._stored(chunk.batch, chunk.lines):
                return False
            await _off_loop(taken.stored, chunk)
        return True

    async def _stored(self, batch: str, lines: Sequence[Line]) -> bool:
        failure = await self._once(batch, lines) if lines else None
        if failure is None:
            self._told(lines)
            return True
        if not isinstance(failure, TooLarge | InvalidArgument):
            return False
        if len(lines) == 1:
            # It would be refused again and again, and keep all that follows from being stored.
            to_stderr(lines[0].data + b"\n")
            return True
        half = len(lines) // 2
        return await self._stored(f"{batch}0", lines[:half]) and await self._stored(f"{batch}1", lines[half:])


async def _off_loop(work: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run work in a thread, to its end also when the caller is cancelled: it uses files that are closed then."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def _line(data: bytes) -> Line | None:
    try:
        record = decode(data)
        return Line(micros(moment(record.timestamp)), min(24, max(1, record.severity_number)), data)
    except InvalidArgument:
        to_stderr(data + b"\n")
        return None
