"""The working routes of nooblyjs-core: scripts of the activities folder, by path."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from noobly.app import Noobly
from noobly.core.errors import InvalidArgument, NotFound, Unavailable
from noobly.server.legacy.shapes import endpoint, iso, json, json_body, ok
from noobly.server.routes import Access, Endpoint, Open
from noobly.working import Job, Jobs, JobStats, State
from noobly.working.scripts import QUEUE

READ, WRITE, ADMIN = (Access("working", permission) for permission in ("read", "write", "admin"))

_ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED)
_STATUS = {State.RUNNING: "running", State.SUCCEEDED: "completed", **dict.fromkeys(_ENDED[1:], "error")}
_HISTORY, _MOST = 100, 1000
_LIMIT = re.compile(r"\s*\+?0*([0-9]{1,9})")
_PATIENCE = 2.5
"""Seconds that a client waits for a task's end; those of the original give up after five."""

_LATEST = 10


class Accepted(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of ``run``."""

    task_id: str
    message: str = "Task queued successfully"


class Shown(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One task as the original shows it: the result of one that failed is its error."""

    task_id: str
    script_path: str
    status: str
    queued_at: str
    result: object = msgspec.UNSET
    error: str = ""
    started_at: str = ""
    completed_at: str = ""


class Sizes(msgspec.Struct, frozen=True):
    """How many tasks wait, and how many ended well and badly."""

    incoming: int
    complete: int
    error: int


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of ``status``."""

    is_running: bool
    max_threads: int
    active_workers: int
    queues: Sizes
    completed_tasks: int


class Shares(msgspec.Struct, frozen=True):
    """Ended and running tasks, as counts or as percentages."""

    completed: float
    errors: float
    active: float


class Stats(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of ``stats``."""

    total: int
    counts: Shares
    percentages: Shares
    last_run: str | None


def endpoints(noobly: Noobly) -> Iterator[Endpoint]:
    """Yield run, stop, start, status, history, task and stats over the default jobs.

    The original stops for good, and by GET; here it is POST, and ``start`` undoes it.
    """
    yield from _changes(noobly.working)
    yield from _looks(noobly.working)


def _changes(jobs: Jobs) -> Iterator[Endpoint]:
    async def run(request: Request, texts: tuple[str, ...]) -> Response:
        sent = await json_body(request)
        path = sent.get("scriptPath") if isinstance(sent, dict) else None
        if not isinstance(path, str) or not path:
            raise InvalidArgument("Missing scriptPath")
        if (await jobs.stats(QUEUE)).paused:
            raise Unavailable("the worker manager is stopped; POST start lets it go on")
        ticket = await jobs.run_script(path, sent.get("data") if isinstance(sent, dict) else None)
        return json(Accepted(ticket.id))

    async def stop(request: Request, texts: tuple[str, ...]) -> Response:
        await jobs.pause(QUEUE)
        return ok()

    async def start(request: Request, texts: tuple[str, ...]) -> Response:
        await jobs.resume(QUEUE)
        return ok()

    yield endpoint("working", "POST", "run", WRITE, run)
    yield endpoint("working", "POST", "stop", ADMIN, stop)
    yield endpoint("working", "POST", "start", ADMIN, start)


def _looks(jobs: Jobs) -> Iterator[Endpoint]:
    async def status(request: Request, texts: tuple[str, ...]) -> Response:
        return json(_status(await jobs.stats(QUEUE), jobs.options.script_workers))

    async def history(request: Request, texts: tuple[str, ...]) -> Response:
        found = await jobs.list_jobs(queue=QUEUE, states=_ENDED, max=_limit(request))
        return json([_shown(job) for job in found])

    async def task(request: Request, texts: tuple[str, ...]) -> Response:
        # The original knows no task before it has ended, so its clients ask until then: they are kept waiting a little.
        try:
            return json(_shown(await jobs.wait(texts[0], queue=QUEUE, within=_PATIENCE)))
        except InvalidArgument as error:
            raise NotFound(f"there is no task of that id: {error.message}") from error

    async def stats(request: Request, texts: tuple[str, ...]) -> Response:
        return json(await _stats(jobs))

    yield endpoint("working", "GET", "status", Open.EVERYBODY, status)
    yield endpoint("working", "GET", "history", READ, history)
    yield endpoint("working", "GET", "task", READ, task, segments=1)
    yield endpoint("working", "GET", "stats", READ, stats)


def _limit(request: Request) -> int:
    """Return how many tasks are asked for, read as JavaScript's ``parseInt`` reads a number."""
    given = next(iter(request.query_params.getlist("limit")), "")
    read = _LIMIT.match(given)
    return min(_MOST, int(read[1])) or _HISTORY if read else _HISTORY


def _status(stats: JobStats, workers: int) -> Status:
    errors = stats.failed + stats.cancelled + stats.expired
    return Status(
        is_running=not stats.paused,
        max_threads=workers,
        active_workers=stats.running,
        queues=Sizes(stats.queued + stats.delayed + stats.retrying, stats.succeeded, errors),
        completed_tasks=stats.succeeded + errors,
    )


async def _stats(jobs: Jobs) -> Stats:
    found = await jobs.stats(QUEUE)
    latest = await jobs.list_jobs(queue=QUEUE, states=(*_ENDED, State.RUNNING), max=_LATEST)
    errors = found.failed + found.cancelled + found.expired
    total = found.succeeded + errors + found.running
    counts = Shares(found.succeeded, errors, found.running)
    shares = [round(100 * part / total, 2) if total else 0.0 for part in (found.succeeded, errors, found.running)]
    last = max((job.started_at for job in latest), default=0.0)
    return Stats(total, counts, Shares(*shares), iso(last) if last else None)


def _shown(job: Job) -> Shown:
    args = job.args if isinstance(job.args, dict) else {}
    return Shown(
        task_id=job.id,
        script_path=str(args.get("path", "")),
        status=_STATUS.get(job.state, "queued"),
        queued_at=iso(job.created_at),
        result=_result(job),
        error=job.error,
        started_at=iso(job.started_at) if job.started_at else "",
        completed_at=iso(job.finished_at) if job.finished_at else "",
    )


def _result(job: Job) -> object:
    if not job.state.final:
        return msgspec.UNSET
    return job.result if job.state is State.SUCCEEDED else job.error
