"""The working routes of nooblyjs-core: scripts of the activities folder, by path."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from noobly.app import Noobly
from noobly.core.errors import InvalidArgument
from noobly.server.legacy.shapes import endpoint, iso, json, json_body, ok
from noobly.server.routes import Access, Endpoint, Open
from noobly.working import Job, Jobs, JobStats, State
from noobly.working.scripts import QUEUE

READ, WRITE = Access("working", "read"), Access("working", "write")

_ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED)
_STATUS = {State.RUNNING: "running", State.SUCCEEDED: "completed", **dict.fromkeys(_ENDED[1:], "error")}
_HISTORY, _MOST = 100, 1000
_PATIENCE = 5.0


class Accepted(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of ``run``."""

    task_id: str
    message: str = "Task queued successfully"


class Shown(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One task as the original shows it."""

    task_id: str
    script_path: str
    status: str
    queued_at: str
    result: object = None
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
        ticket = await jobs.run_script(path, sent.get("data") if isinstance(sent, dict) else None)
        return json(Accepted(ticket.id))

    async def stop(request: Request, texts: tuple[str, ...]) -> Response:
        await jobs.pause(QUEUE)
        return ok()

    async def start(request: Request, texts: tuple[str, ...]) -> Response:
        await jobs.resume(QUEUE)
        return ok()

    yield endpoint("working", "POST", "run", WRITE, run)
    yield endpoint("working", "POST", "stop", WRITE, stop)
    yield endpoint("working", "POST", "start", WRITE, start)


def _looks(jobs: Jobs) -> Iterator[Endpoint]:
    async def status(request: Request, texts: tuple[str, ...]) -> Response:
        return json(_status(await jobs.stats(QUEUE), jobs.options.script_workers))

    async def history(request: Request, texts: tuple[str, ...]) -> Response:
        found = await jobs.list_jobs(queue=QUEUE, states=_ENDED, max=_limit(request))
        return json([_shown(job) for job in found])

    async def task(request: Request, texts: tuple[str, ...]) -> Response:
        # The original knows no task before it has ended, so its clients ask until then: they are kept waiting a little.
        return json(_shown(await jobs.wait(texts[0], queue=QUEUE, within=_PATIENCE)))

    async def stats(request: Request, texts: tuple[str, ...]) -> Response:
        return json(await _stats(jobs))

    yield endpoint("working", "GET", "status", Open.EVERYBODY, status)
    yield endpoint("working", "GET", "history", READ, history)
    yield endpoint("working", "GET", "task", READ, task, segments=1)
    yield endpoint("working", "GET", "stats", READ, stats)


def _limit(request: Request) -> int:
    given = request.query_params.get("limit", "")
    return min(_MOST, int(given)) if given.isascii() and given.isdigit() and int(given[:9]) > 0 else _HISTORY


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
    latest = await jobs.list_jobs(queue=QUEUE, states=_ENDED, max=1)
    errors = found.failed + found.cancelled + found.expired
    total = found.succeeded + errors + found.running
    counts = Shares(found.succeeded, errors, found.running)
    shares = [round(100 * part / total, 2) if total else 0.0 for part in (found.succeeded, errors, found.running)]
    return Stats(total, counts, Shares(*shares), iso(latest[0].finished_at) if latest else None)


def _shown(job: Job) -> Shown:
    args = job.args if isinstance(job.args, dict) else {}
    return Shown(
        task_id=job.id,
        script_path=str(args.get("path", "")),
        status=_STATUS.get(job.state, "queued"),
        queued_at=iso(job.created_at),
        result=job.result,
        error=job.error,
        started_at=iso(job.started_at) if job.started_at else "",
        completed_at=iso(job.finished_at) if job.finished_at else "",
    )
