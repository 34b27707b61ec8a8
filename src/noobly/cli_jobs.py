"""``noobly jobs``: look at jobs, run them once more, and end them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from noobly.cli_reach import DEFAULT, Json, Place, reach, run
from noobly.cli_show import bar, plain, show, show_fields, show_json, show_table, write
from noobly.core.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from noobly.working import Job, Jobs

Id = Annotated[str, Parameter(help="The job's id.")]
Queue = Annotated[str, Parameter(help="The queue.")]
Of = Annotated[str, Parameter(help="The job's queue; a task with limits has one of its own.")]
Max = Annotated[int, Parameter(name="--max", help="How many at most.")]

_SHOWN = ("id", "task", "state", "attempts", "stalls", "error")
_PAGE = 1000

jobs_app = App(name="jobs", help="Look at jobs, run them once more, and end them.")


@jobs_app.command(name="list")
def list_jobs(
    queue: Queue = "default",
    /,
    *,
    state: Annotated[list[str] | None, Parameter(help="Only jobs in this state; may be repeated.")] = None,
    max: Max = 100,
    place: Place = DEFAULT,
    json: Json = False,
) -> None:
    """List the jobs of a queue, the one that changed last first."""

    async def work(jobs: Jobs) -> None:
        from noobly.working import State

        known = {one.value: one for one in State}
        for name in state or ():
            if name not in known:
                raise InvalidArgument(f"there is no state {name!r}; there are {', '.join(known)}")
        found = await jobs.list_jobs(queue=queue, states=[known[name] for name in state or ()], max=max)
        _show(found, json=json)

    run("working", reach("working", place), work)


@jobs_app.command(name="show")
def show_job(id: Id, /, *, queue: Of = "default", place: Place = DEFAULT, json: Json = False) -> None:
    """Show one job with what its handler has logged."""

    async def work(jobs: Jobs) -> None:
        job, lines = await jobs.get(id, queue=queue), await jobs.logs(id, queue=queue)
        if json:
            show_json({"job": job, "log": lines})
            return
        show_fields(job)
        for line in lines:
            write(f"| {plain(line)}")

    run("working", reach("working", place), work)


@jobs_app.command
def rerun(
    id: Annotated[str | None, Parameter(help="The job's id; without, --failed says which.")] = None,
    /,
    *,
    failed: Annotated[bool, Parameter(help="All jobs of the queue that have failed.")] = False,
    queue: Of = "default",
    max: Max = 1000,
    place: Place = DEFAULT,
) -> None:
    """Run a job now that waits for its time, or once more one that did not succeed."""
    if failed == (id is not None):
        raise InvalidArgument("name one job, or all that have failed with --failed")

    async def work(jobs: Jobs) -> None:
        if id is not None:
            await jobs.get(id, queue=queue)
            again = await jobs.rerun(id, queue=queue)
            write(f"Job {id} is queued." if again else f"Job {id} runs, or has succeeded, and stays as it is.")
            return
        write(f"Queued {await _rerun_failed(jobs, queue, max)} failed jobs of queue {queue!r}.")

    run("working", reach("working", place), work)


@jobs_app.command
def cancel(id: Id, /, *, queue: Of = "default", place: Place = DEFAULT) -> None:
    """Cancel a job; one that runs is asked to end."""

    async def work(jobs: Jobs) -> None:
        write(f"Job {id} is {(await jobs.cancel(id, queue=queue)).value}.")

    run("working", reach("working", place), work)


@jobs_app.command
def remove(id: Id, /, *, queue: Of = "default", place: Place = DEFAULT) -> None:
    """Forget a job that is not running."""

    async def work(jobs: Jobs) -> None:
        if not await jobs.remove(id, queue=queue):
            raise NotFound(f"queue {queue!r} has no job {id!r} that could be removed; one that runs stays")
        write(f"Removed job {id}.")

    run("working", reach("working", place), work)


@jobs_app.command
def stats(
    queue: Annotated[str | None, Parameter(help="The queue; by default all that have jobs.")] = None,
    /,
    *,
    place: Place = DEFAULT,
    json: Json = False,
) -> None:
    """Show how many jobs are in each state."""

    async def work(jobs: Jobs) -> None:
        names = [queue] if queue is not None else await jobs.queues()
        show([await jobs.stats(name) for name in names], json=json)

    run("working", reach("working", place), work)


@jobs_app.command
def pause(queue: Queue = "default", /, *, place: Place = DEFAULT) -> None:
    """Begin no more jobs of a queue on any worker; running ones go on."""

    async def work(jobs: Jobs) -> None:
        await jobs.pause(queue)
        write(f"Queue {queue!r} is held back; `noobly jobs resume` lets it go on.")

    run("working", reach("working", place), work)


@jobs_app.command
def resume(queue: Queue = "default", /, *, place: Place = DEFAULT) -> None:
    """Begin jobs of a queue again."""

    async def work(jobs: Jobs) -> None:
        await jobs.resume(queue)
        write(f"Queue {queue!r} goes on.")

    run("working", reach("working", place), work)


async def _rerun_failed(jobs: Jobs, queue: str, most: int) -> int:
    """Queue the failed jobs of a queue; those that fail again meanwhile are not taken up twice."""
    from noobly.working import State

    found: list[str] = []
    while len(found) < most:
        page = await jobs.list_jobs(
            queue=queue, states=[State.FAILED], max=min(_PAGE, most - len(found)), skip=len(found)
        )
        found += [job.id for job in page]
        if len(page) < _PAGE:
            break
    queued = 0
    with bar(f"queueing {queue}", len(found)) as advance:
        for id in found:
            queued += await jobs.rerun(id, queue=queue)
            advance()
    return queued


def _show(found: list[Job], *, json: bool) -> None:
    if json:
        show_json(found)
    elif found:
        rows = [[job.id, job.task, job.state.value, job.attempts, job.stalls, job.error] for job in found]
        show_table(_SHOWN, rows)
