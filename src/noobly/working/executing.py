"""Running one attempt: on the event loop, in a thread, or in a process of its own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import msgspec
from anyio import CapacityLimiter, to_process

from noobly.core.codec import converted
from noobly.core.errors import ConfigError, NooblyError
from noobly.working import child
from noobly.working.child import Ending
from noobly.working.context import JobContext, JobInfo, Report, ThreadContext
from noobly.working.records import Held, Value
from noobly.working.tasks import Execution, Task

_decode_ending = msgspec.json.Decoder(Ending).decode


class Failed(NooblyError):
    """A handler in a process of its own has failed.

    Args:
        message: Its error.
        final: Trying again is useless.
        retry_after: Seconds to wait before that.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, final: bool = False) -> None:
        super().__init__(message, retry_after=retry_after)
        self.final = final


class Executor:
    """Runs attempts for one worker.

    Args:
        concurrency: Threads and processes at once.
        report: Stores what handlers report.
    """

    def __init__(self, concurrency: int, report: Report) -> None:
        self._report = report
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="noobly-job")
        self._processes = CapacityLimiter(concurrency)

    def close(self) -> None:
        """Let threads end by themselves, for nothing can stop them."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, task: Task[..., object], args: Value, held: Held) -> object:
        """Run a task's function and return what it returns.

        Args:
            task: The task.
            args: Its argument, as JSON had it.
            held: The job.

        Raises:
            InvalidArgument: The argument is not what the task takes.
            Exception: What the function raises; of one in a process, ``Failed``.
        """
        if task.rules.execution is Execution.PROCESS:
            return await self._in_process(task, args, info(held))
        argument = converted(args, task.argument, f"job {held.job.id}")
        if task.rules.execution is Execution.THREAD:
            return await self._in_thread(task, argument, info(held))
        if not task.wants_job:  # Most do not, and a context has its price.
            return await cast(Awaitable[object], task.function(argument) if task.wants_data else task.function())
        return await cast(Awaitable[object], task.function(argument, JobContext(info(held), self._report)))

    async def _in_thread(self, task: Task[..., object], argument: object, info: JobInfo) -> object:
        """Run in a thread; where this is cancelled, the place is kept until the thread has ended."""
        loop = asyncio.get_running_loop()
        context = ThreadContext(info, self._report, loop)
        given = (argument, context)[: task.wants_data + task.wants_job]
        call = contextvars.copy_context().run
        running = loop.run_in_executor(self._threads, call, task.function, *given)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            context.cancelled = True
            running.add_done_callback(_forget)
            raise

    async def _in_process(self, task: Task[..., object], args: Value, info: JobInfo) -> object:
        """Run in a process, which is killed where this is cancelled."""
        if "<locals>" in task.function.__qualname__:
            raise ConfigError(f"task {task.name!r} runs in a process, so it must stand at the top of a module")
        ending = _decode_ending(
            await to_process.run_sync(
                child.attempt,
                task.function.__module__,
                task.function.__qualname__,
                msgspec.json.encode(args),
                msgspec.json.encode(info),
                cancellable=True,
                limiter=self._processes,
            )
        )
        if ending.error:
            raise Failed(ending.error, retry_after=ending.retry_after or None, final=ending.final)
        return msgspec.json.decode(ending.result) if ending.result else None


def info(held: Held) -> JobInfo:
    """Return what a handler may know of its job."""
    job = held.job
    return JobInfo(
        id=job.id,
        queue=job.queue,
        task=job.task,
        attempt=job.attempts,
        last=job.attempts >= held.retrying.attempts,
        fence=held.fence,
        key=f"{job.queue}:{job.id}",
    )


def _forget(running: asyncio.Future[object]) -> None:
    """Take an error that nobody waits for any more."""
    if not running.cancelled():
        running.exception()


def error_text(error: BaseException) -> str:
    """Return what is kept of an error."""
    return error.message if isinstance(error, Failed) else child.error_text(error)
