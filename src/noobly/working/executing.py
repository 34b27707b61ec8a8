"""Running one attempt: on the event loop, in a thread, or in a process besides."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

import msgspec

from noobly.core.codec import converted
from noobly.core.errors import ConfigError, NooblyError
from noobly.core.failure import error_text, trace_text
from noobly.core.following import origin
from noobly.layers.spans import tracing
from noobly.working.child import Reported, Start
from noobly.working.context import JobContext, JobInfo, Report, ThreadContext
from noobly.working.processes import Failed, Processes
from noobly.working.records import Held, Value
from noobly.working.tasks import Execution, Task

_log = logging.getLogger("noobly.working")

Begun = Callable[[], None]
"""Learns, on the loop, that a task's function begins."""


class Elsewhere(Exception):
    """Where in a process a handler has failed: the traceback there, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Executor:
    """Runs attempts for one worker.

    Attributes:
        lingering: Threads whose attempts have been stopped, and that run on; each takes the place of another job.
        freed: Called on the loop when one of them has ended.
        traced: Spans are recorded, so that each attempt is to have one.

    Args:
        concurrency: Threads and processes at once.
        report: Stores what handlers report.
    """

    def __init__(self, concurrency: int, report: Report) -> None:
        self._report = report
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="noobly-job")
        self._processes = Processes(concurrency)
        self.lingering = 0
        self.freed: Callable[[], None] = _nothing
        self.traced = tracing()
        self._outside = contextvars.copy_context()

    async def close(self) -> None:
        """End the processes, and let threads end by themselves, for nothing can stop them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._processes.close()

    async def run(self, task: Task[..., object], args: Value, held: Held, begun: Begun) -> object:
        """Run a task's function and return what it returns.

        Args:
            task: The task.
            args: Its argument, as JSON had it.
            held: The job.
            begun: Called when the function begins.

        Raises:
            InvalidArgument: The argument is not what the task takes.
            BaseException: What the function raises; of one in a process, ``Failed``.
        """
        if task.rules.execution is Execution.PROCESS:
            return await self._in_process(task, args, info(held), begun)
        argument = converted(args, task.argument, f"job {held.job.id}")
        if task.rules.execution is Execution.THREAD:
            return await self._in_thread(task, argument, info(held), begun)
        begun()
        if not task.wants_job:  # Most do not, and a context has its price.
            return await cast(Awaitable[object], task.function(argument) if task.wants_data else task.function())
        return await cast(Awaitable[object], task.function(argument, JobContext(info(held), self._report)))

    async def note(self, held: Held, lines: Sequence[str]) -> None:
        """Add lines to a job's log, where its store can be reached."""
        try:
            await self._report(held.job.id, queue=held.job.queue, lines=lines)
        except NooblyError as error:
            _log.warning("the log of job %s of queue %r could not be written: %s", held.job.id, held.job.queue, error)

    async def _in_thread(self, task: Task[..., object], argument: object, info: JobInfo, begun: Begun) -> object:
        """Run in a thread; where this is cancelled before it has begun, it never does."""
        loop = asyncio.get_running_loop()
        context = ThreadContext(info, self._report, loop)
        given = (argument, context)[: task.wants_data + task.wants_job]
        call = partial(contextvars.copy_context().run, task.function, *given)
        running = self._threads.submit(_outcome, partial(loop.call_soon_threadsafe, begun), call)
        waiting = asyncio.wrap_future(running)
        try:
            value, error = await asyncio.shield(waiting)
        except asyncio.CancelledError:
            context.cancelled = True
            if not running.cancel():
                self._keep(waiting, info)
            raise
        if isinstance(error, StopIteration):  # A coroutine may not raise it.
            final = isinstance(error, task.rules.no_retry_on)
            raise Failed(error_text(error), final=final, trace=trace_text(error)) from error
        if error is not None:
            raise error
        return value

    def _keep(self, waiting: asyncio.Future[Outcome], info: JobInfo) -> None:
        """Keep the place of a thread that runs on."""
        _log.warning("a thread of job %s, task %r, runs on, and keeps its place until it ends", info.id, info.task)
        self.lingering += 1
        # Not in this job's context, for another job may begin then.
        waiting.add_done_callback(self._let_go, context=self._outside)

    def _let_go(self, _: asyncio.Future[Outcome]) -> None:
        self.lingering -= 1
        self.freed()

    async def _in_process(self, task: Task[..., object], args: Value, info: JobInfo, begun: Begun) -> object:
        """Run in a process, which is killed where this is cancelled."""
        module, file = _place(task)
        data = msgspec.Raw(msgspec.json.encode(args))
        identity, traceparent = origin()
        start = Start(
            module=module,
            name=task.function.__qualname__,
            file=file,
            data=data,
            info=info,
            correlation_id=identity,
            traceparent=traceparent,
        )
        ending = await self._processes.run(start, begun, partial(self._store, info))
        if ending.error:
            after, trace = ending.retry_after or None, ending.trace
            raise Failed(ending.error, retry_after=after, final=ending.final, trace=trace) from Elsewhere(trace)
        found: object = msgspec.json.decode(ending.result)
        return found

    def _store(self, info: JobInfo, reported: Reported) -> Awaitable[bool]:
        progress = msgspec.json.decode(reported.progress)
        return self._report(info.id, queue=info.queue, progress=progress, lines=reported.lines)


Outcome = tuple[object, BaseException | None]
"""What a function has returned, and what it has raised, as data: a future has its own use for some exceptions."""


def _outcome(begun: Callable[[], object], call: Callable[[], object]) -> Outcome:
    try:
        begun()
        return call(), None
    except BaseException as error:  # noqa: BLE001 - a handler is anybody's code
        return None, error


def _place(task: Task[..., object]) -> tuple[str, str]:
    """Return the module in which a process finds a task and, where that is the program itself, its file.

    Raises:
        ConfigError: A process cannot find it.
    """
    if "<locals>" in task.function.__qualname__:
        raise ConfigError(f"task {task.name!r} runs in a process, so it must stand at the top of a module")
    module = task.function.__module__
    if module != "__main__":
        return module, ""
    program = sys.modules[module]
    if program.__spec__ is not None:  # Begun as `python -m`, so it is a module of its own name, too.
        return program.__spec__.name, ""
    file = getattr(program, "__file__", None)
    if file is None:
        raise ConfigError(f"task {task.name!r} runs in a process, so it must stand in a file")
    return module, str(file)


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


def _nothing() -> None:
    """Do nothing."""
