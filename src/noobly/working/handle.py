"""A handle on one job: what its adder keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar, cast

from noobly.core.clock import Seconds, pause
from noobly.core.codec import converted
from noobly.core.errors import DeadlineExceeded
from noobly.core.lifecycle import Handle
from noobly.core.waiting import awaited
from noobly.working.driver import State
from noobly.working.records import Job, JobFailed, Value

R_co = TypeVar("R_co", covariant=True)


class Askable(Protocol):
    """The public methods that a handle is made of."""

    slice: float

    async def get(self, id: str, *, queue: str) -> Job: ...
    async def wait(self, id: str, *, queue: str, within: Seconds) -> Job: ...
    async def cancel(self, id: str, *, queue: str) -> State: ...
    async def logs(self, id: str, *, queue: str) -> list[str]: ...
    async def children(self, id: str, *, queue: str) -> list[Job]: ...


class JobHandle(Handle, Generic[R_co]):
    """One job, by its id and queue; it may be made anew at any time with ``jobs.handle(id)``.

    Attributes:
        id: The job's id.
        queue: Its queue.
        duplicate: It was there before; nothing was added.
    """

    def __init__(
        self, jobs: Askable, id: str, queue: str, *, returns: type[object] = object, duplicate: bool = False
    ) -> None:
        self._jobs, self._returns = jobs, returns
        self.id = id
        self.queue = queue
        self.duplicate = duplicate

    def __repr__(self) -> str:
        return f"<JobHandle {self.id} of queue {self.queue!r}>"

    async def job(self) -> Job:
        """Return the job as it is.

        Raises:
            NotFound: It is not kept any longer.
        """
        return await self._jobs.get(self.id, queue=self.queue)

    async def status(self) -> State:
        """Return where the job stands."""
        return (await self.job()).state

    async def progress(self) -> Value:
        """Return what its handler reported last; None for nothing."""
        return (await self.job()).progress

    async def cancel(self) -> State:
        """Cancel it; see ``Jobs.cancel``."""
        return await self._jobs.cancel(self.id, queue=self.queue)

    async def logs(self) -> Sequence[str]:
        """Return the lines that its handler has logged."""
        return await self._jobs.logs(self.id, queue=self.queue)

    async def children(self) -> list[Job]:
        """Return the jobs that it runs after."""
        return await self._jobs.children(self.id, queue=self.queue)

    async def wait(self, timeout: Seconds | None = None) -> Job:
        """Return the job once it has ended.

        Args:
            timeout: Seconds to wait, 0 to look once; None for ever.

        Raises:
            DeadlineExceeded: It has not ended in that time.
            NotFound: It is not kept any longer.
        """
        limit = pause(timeout, "timeout") if timeout is not None else float("inf")
        job = await awaited(self._ended, limit, self._jobs.slice, enough=lambda found: found.state.final)
        if not job.state.final:
            raise DeadlineExceeded(f"job {self.id} of queue {self.queue!r} is {job.state.value} after {limit:g} s")
        return job

    async def _ended(self, within: float) -> Job:
        return await self._jobs.wait(self.id, queue=self.queue, within=within)

    async def result(self, timeout: Seconds | None = None) -> R_co:
        """Return what the job's handler returned, once it has succeeded.

        Args:
            timeout: Seconds to wait, 0 to look once; None for ever.

        Raises:
            JobFailed: It has failed, was cancelled, or has expired.
            DeadlineExceeded: It has not ended in that time.
            NotFound: It is not kept any longer.
        """
        job = await self.wait(timeout)
        if job.state is not State.SUCCEEDED:
            raise JobFailed(f"job {self.id} of queue {self.queue!r} {_ENDED[job.state]}: {job.error}", job=job)
        return cast(R_co, converted(job.result, self._returns, f"the result of job {self.id}"))


_ENDED = {State.FAILED: "has failed", State.CANCELLED: "was cancelled", State.EXPIRED: "has expired"}
