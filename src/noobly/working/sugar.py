"""What jobs offer on top of their public methods; written only in terms of them, so the remote client has it too."""

from __future__ import annotations

import asyncio
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from typing import ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

import msgspec

from noobly.core.checks import whole
from noobly.core.clock import Seconds, fresh_id, seconds
from noobly.core.codec import canonical
from noobly.core.config import Config
from noobly.core.errors import ConfigError
from noobly.core.lifecycle import Portable
from noobly.core.lifecycle import Tasks as Background
from noobly.core.scope import Scope
from noobly.core.waiting import slice_of
from noobly.working import scripts
from noobly.working.adding import key_of
from noobly.working.driver import Beat, Bounds, Hold, State, Verdict
from noobly.working.executing import Executor
from noobly.working.handle import JobHandle
from noobly.working.heart import Beating, Twin
from noobly.working.options import JobOptions
from noobly.working.records import Held, Job, JobSpec, Settled, Ticket, Value
from noobly.working.stats import Attempts
from noobly.working.tasks import DEFAULT_QUEUE, Execution, Rules, Task, Tasks
from noobly.working.worker import Plan, Worker

P = ParamSpec("P")
R = TypeVar("R")

_LATE = 0.25
"""Seconds that a claim has to bring what it has taken when its worker ends; longer ones only wait for a job."""


class Adding(TypedDict, total=False):
    """How a job is added; what is not said comes from its task."""

    queue: str
    delay: Seconds
    priority: int
    id: str
    retries: int
    backoff: Seconds
    timeout: Seconds
    expires: Seconds
    unique: str
    after: Sequence[JobSpec]
    lenient: bool


class JobSugar(Portable, ABC):
    """Tasks, adding with their rules, handles, batches and workers."""

    def _begin(self, scope: Scope, options: Config) -> None:
        super()._begin(scope, options)
        self.options = cast(JobOptions, options)
        self.slice = slice_of(scope.policy)
        self.late = _LATE
        self.attempts = Attempts(scope)
        self.tasks = Tasks()
        self.task = self.tasks.task
        self.lifespan = self.tasks.lifespan
        self.twin: Twin = _unopened
        self._background = Background()
        self._scripts: asyncio.Task[None] | None = None

    async def _end(self) -> None:
        await self._background.close()

    @abstractmethod
    async def add(self, jobs: Sequence[JobSpec]) -> list[Ticket]: ...
    @abstractmethod
    async def get(self, id: str, *, queue: str = DEFAULT_QUEUE) -> Job: ...
    @abstractmethod
    async def wait(self, id: str, *, queue: str = DEFAULT_QUEUE, within: Seconds = 2.0) -> Job: ...
    @abstractmethod
    async def cancel(self, id: str, *, queue: str = DEFAULT_QUEUE) -> State: ...
    @abstractmethod
    async def logs(self, id: str, *, queue: str = DEFAULT_QUEUE) -> list[str]: ...
    @abstractmethod
    async def children(self, id: str, *, queue: str = DEFAULT_QUEUE) -> list[Job]: ...
    @abstractmethod
    async def claim(
        self,
        queue: str,
        worker: str,
        *,
        max: int = 1,
        wait: Seconds | None = None,
        lease: Seconds | None = None,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    ) -> list[Held]: ...
    @abstractmethod
    async def beat(self, queue: str, holds: Sequence[Hold], lease: Seconds | None = None) -> list[Beat]: ...
    @abstractmethod
    async def settle(self, queue: str, attempts: Sequence[Settled]) -> list[bool]: ...
    @abstractmethod
    async def report(
        self, id: str, *, queue: str = DEFAULT_QUEUE, progress: Value = None, lines: Sequence[str] = ()
    ) -> bool: ...
    @abstractmethod
    async def sweep(self, queue: str = DEFAULT_QUEUE) -> int: ...

    @overload
    async def enqueue(
        self, task: Task[P, Coroutine[object, object, R]], args: Value = None, **how: Unpack[Adding]
    ) -> JobHandle[R]: ...
    @overload
    async def enqueue(self, task: Task[P, R], args: Value = None, **how: Unpack[Adding]) -> JobHandle[R]: ...
    @overload
    async def enqueue(self, task: str, args: Value = None, **how: Unpack[Adding]) -> JobHandle[Value]: ...
    async def enqueue(
        self, task: Task[..., Value] | str, args: Value = None, **how: Unpack[Adding]
    ) -> JobHandle[Value]:
        """Add a job and return a handle on it.

        Args:
            task: The task, or its name; a name that ``tasks`` knows brings its rules along.
            args: What its function gets: anything that JSON carries.
            **how: ``queue``, ``delay``, ``priority``, ``id``, ``retries``, ``backoff``, ``timeout``, ``expires``,
                ``unique``, ``after`` and ``lenient``, as in ``JobSpec``; by default what the task says.

        Raises:
            InvalidArgument: An argument is bad.
            TooLarge: The argument is over the limit.
        """
        spec = self.spec(task, args, **how)
        (ticket,) = await self.add([spec])
        known = task if isinstance(task, Task) else self._known(task)
        returns = known.returns if known is not None else object
        return JobHandle(self, ticket.id, ticket.queue, returns=returns, duplicate=ticket.duplicate)

    def spec(self, task: Task[..., Value] | str, args: Value = None, **how: Unpack[Adding]) -> JobSpec:
        """Return a job to be added with others, for ``add``, ``batch`` and ``after``; see ``enqueue``."""
        found = task if isinstance(task, Task) else self._known(task)
        rules = found.rules if found is not None else Rules()
        name = task.name if isinstance(task, Task) else task
        chosen = {key: value for key, value in how.items() if value is not None}
        for key in ("delay", "backoff", "timeout", "expires"):
            if key in chosen:
                chosen[key] = _length(chosen[key], key)
        if rules.unique and "unique" not in chosen:
            chosen |= {"unique": key_of(name, canonical(args, name)), "unique_for": rules.unique_for}
        if "after" in chosen:
            chosen["after"] = list(cast("Sequence[JobSpec]", chosen["after"]))
        plain = JobSpec(
            task=name,
            args=args,
            queue=rules.queue,
            priority=rules.priority,
            retries=rules.retrying.attempts - 1,
            backoff=rules.retrying.base,
            backoff_cap=rules.retrying.cap,
            timeout=rules.timeout or None,
        )
        return msgspec.structs.replace(plain, **chosen)

    def _known(self, name: str) -> Task[..., object] | None:
        return self.tasks.find(name) if name in self.tasks else None

    def handle(self, id: str, *, queue: str = DEFAULT_QUEUE) -> JobHandle[Value]:
        """Return a handle on a job, by its id; whether there is one shows when it is asked."""
        return JobHandle(self, id, queue)

    async def batch(
        self, jobs: Sequence[JobSpec], then: Task[..., Value] | str, args: Value = None, **how: Unpack[Adding]
    ) -> JobHandle[Value]:
        """Add jobs, and one that runs once all of them have ended, whether they succeeded or not.

        Args:
            jobs: The jobs; see ``spec``.
            then: The task that runs at the end; its handler finds the others by ``handle(id).children()``.
            args: What its function gets.
            **how: How it is added.

        Returns:
            A handle on the last job, which tells by ``pending`` how many others are left.
        """
        lenient = [msgspec.structs.replace(job, lenient=True) for job in jobs]
        how["after"] = lenient
        return await self.enqueue(cast(str, then), args, **how)

    async def work(
        self,
        *,
        queues: Sequence[str] | None = None,
        concurrency: int = 10,
        grace: Seconds = 30.0,
        tasks: Tasks | None = None,
        name: str | None = None,
    ) -> None:
        """Run jobs until cancelled; then give running ones their grace, and the rest back uncounted.

        Args:
            queues: The queues to serve; by default those of all tasks.
            concurrency: Jobs that run at once.
            grace: Seconds that running jobs have at the end.
            tasks: What is to be done; ``self.tasks`` by default.
            name: The worker's name, which jobs show.

        Raises:
            ConfigError: There is no task, or a figure is bad.
        """
        await self._worker(tasks or self.tasks, queues, concurrency, grace, name).run()

    @asynccontextmanager
    async def working(
        self, *, queues: Sequence[str] | None = None, concurrency: int = 10, grace: Seconds = 30.0
    ) -> AsyncIterator[None]:
        """Run jobs beside the body of an ``async with``; see ``work``. A worker that breaks cancels the body.

        Raises:
            Exception: What the body raises, or what the worker broke of; a group only where both have failed.
        """
        worker = self._worker(self.tasks, queues, concurrency, grace, None)
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(worker.run(), name="noobly worker")
                try:
                    yield
                finally:
                    running.cancel()
        except BaseExceptionGroup as errors:
            if len(errors.exceptions) > 1:
                raise
            (failure,) = errors.exceptions
        else:
            return
        raise failure  # Not in the ``except``, where the group would become its context.

    def _worker(
        self,
        tasks: Tasks,
        queues: Sequence[str] | None,
        concurrency: int,
        grace: Seconds,
        name: str | None,
        executor: Executor | None = None,
    ) -> Worker:
        whole(concurrency, "concurrency", 1, 1000, error=ConfigError)
        options = self.options
        plan = Plan(
            name=name or f"{socket.gethostname()}:{os.getpid()}:{fresh_id()[:8]}",
            queues=tuple(queues) if queues is not None else tasks.queues(),
            concurrency=concurrency,
            lease=options.lease,
            grace=_length(grace, "grace"),
            max_stalls=options.max_stalls,
            sweep_every=options.sweep_every,
        )
        return Worker(self, tasks, plan, twin=self.twin, executor=executor)

    async def unclaimed(self, found: Sequence[Held]) -> None:
        """Give back jobs that did not reach the worker that asked for them; these attempts do not count."""
        released = [Settled(id=one.job.id, token=one.token, verdict=Verdict.RELEASE) for one in found]
        if released:
            await self.settle(found[0].job.queue, released)

    def _serve_scripts(self) -> None:
        """Run scripts in this process from now on, if the options want that."""
        count = self.options.script_workers
        if not count or (self._scripts is not None and not self._scripts.done()):
            return
        # Not in the context of the request that begins it, which it outlives.
        self._scripts = Context().run(self._script_worker, count)

    def _script_worker(self, count: int) -> asyncio.Task[None]:
        found = Tasks()
        rules = Rules(queue=scripts.QUEUE, execution=Execution.PROCESS, timeout=self.options.script_timeout)
        found.add(Task(scripts.TASK, scripts.run, rules))
        executor = scripts.ScriptExecutor(count, self.report, self.options.activities)
        worker = self._worker(found, None, count, 1.0, None, executor)
        return self._background.spawn(worker.run(), "noobly scripts")


def _length(value: object, name: str) -> float:
    return 0.0 if value == 0 and value is not False else seconds(cast(Seconds, value), name) or 0.0


def _unopened() -> AbstractAsyncContextManager[Beating]:
    raise ConfigError("these jobs were made by hand; `open_jobs` gives those that a worker can run")
