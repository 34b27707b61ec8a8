"""What a handler knows of its job, and how it reports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from noobly.core.codec import storable
from noobly.core.errors import Closed
from noobly.working.records import Value


class JobInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A job, as its handler sees it.

    Args:
        id: The job's id.
        queue: Its queue.
        task: Its task.
        attempt: Which attempt this is, from 1.
        last: No attempt follows.
        fence: A number that is greater with each claim of the job: give it to stores that refuse older writers.
        key: The same in every attempt: the key for making an effect happen once.
    """

    id: str
    queue: str
    task: str
    attempt: int
    last: bool
    fence: int
    key: str


class Report(Protocol):
    """Stores progress and log lines of a job."""

    def __call__(self, id: str, *, queue: str, progress: Value = None, lines: Sequence[str] = ()) -> Awaitable[bool]:
        """See ``Jobs.report``."""
        ...


class _OfJob:
    """What every kind of context tells of its job.

    Attributes:
        info: The job.
    """

    def __init__(self, info: JobInfo) -> None:
        self.info = info

    @property
    def id(self) -> str:
        """The job's id."""
        return self.info.id

    @property
    def key(self) -> str:
        """The same in every attempt: the key for making an effect happen once."""
        return self.info.key

    @property
    def fence(self) -> int:
        """A number that is greater with each claim of the job."""
        return self.info.fence

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.info.attempt

    @property
    def queue(self) -> str:
        """The job's queue."""
        return self.info.queue

    @property
    def task(self) -> str:
        """The job's task."""
        return self.info.task

    @property
    def last(self) -> bool:
        """No attempt follows."""
        return self.info.last


class JobContext(_OfJob):
    """The job of an async handler."""

    def __init__(self, info: JobInfo, report: Report) -> None:
        super().__init__(info)
        self._report = report

    async def progress(self, progress: Value) -> None:
        """Say how far it is: a number, a text, or anything else that JSON carries."""
        await self._report(self.info.id, queue=self.info.queue, progress=progress)

    async def log(self, *lines: str) -> None:
        """Add lines to the job's log."""
        await self._report(self.info.id, queue=self.info.queue, lines=_kept(lines))


class ThreadContext(_OfJob):
    """The job of a handler that runs in a thread: as ``JobContext``, with plain methods.

    Attributes:
        cancelled: Somebody has asked for the job's end, or its time is over; a handler that looks can end early.
    """

    def __init__(self, info: JobInfo, report: Report, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(info)
        self.cancelled = False
        self._report = report
        self._loop = loop

    def progress(self, progress: Value) -> None:
        """Say how far it is; see ``JobContext.progress``."""
        self._wait(lambda: self._report(self.info.id, queue=self.info.queue, progress=progress))

    def log(self, *lines: str) -> None:
        """Add lines to the job's log."""
        self._wait(lambda: self._report(self.info.id, queue=self.info.queue, lines=_kept(lines)))

    def _wait(self, report: Callable[[], Awaitable[bool]]) -> None:
        async def reporting() -> None:
            await report()

        coroutine = reporting()
        try:
            stored = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError as error:
            coroutine.close()
            raise Closed(f"job {self.info.id} reports to a worker whose loop has ended") from error
        stored.result()


class ProcessContext(_OfJob):
    """The job of a handler that runs in a process: as ``ThreadContext``.

    Attributes:
        cancelled: Always False, for where the job is to end, its process is killed.
    """

    cancelled = False

    def __init__(self, info: JobInfo, report: Callable[[Value, Sequence[str]], None]) -> None:
        super().__init__(info)
        self._report = report

    def progress(self, progress: Value) -> None:
        """Say how far it is; see ``JobContext.progress``."""
        self._report(progress, ())

    def log(self, *lines: str) -> None:
        """Add lines to the job's log."""
        self._report(None, _kept(lines))


def _kept(lines: Sequence[str]) -> list[str]:
    return [storable(str(line)) for line in lines]
