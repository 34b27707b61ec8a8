"""Following: a job carries on what its request began, and its handler runs within that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context, propagate

from noobly.core.correlation import correlated, correlation_id
from noobly.core.following import origin
from noobly.testing import job_handlers
from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import PATIENCE, LiveTheme, Q, add, one, settle, spec
from noobly.working import Job, JobContext, Jobs, Verdict

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST = ("request-7", PARENT)


@contextmanager
def requested() -> Iterator[None]:
    """Be a request in a trace."""
    with correlated(REQUEST[0]):
        token = context.attach(propagate.extract({"traceparent": PARENT}))
        try:
            yield
        finally:
            context.detach(token)


def carried(job: Job) -> tuple[str, str]:
    """Return what a job carries."""
    return job.correlation_id, job.traceparent


class FollowingTheme(LiveTheme):
    """What a request has begun goes on in the jobs it has added."""

    async def test_a_job_keeps_what_it_was_added_in(self, jobs: Jobs) -> None:
        with requested():
            parent = await add(jobs, queue="parents", after=[spec(1), spec(2, delay=0.001)])
        for job in await jobs.list_jobs(queue=Q):
            assert carried(job) == carried(await jobs.get(job.id, queue=Q)) == REQUEST
        assert [carried(job) for job in await jobs.children(parent.id, queue="parents")] == [REQUEST] * 2
        assert carried(await jobs.wait(parent.id, queue="parents", within=0)) == REQUEST

    async def test_in_each_attempt(self, jobs: Jobs) -> None:
        with requested():
            ticket = await add(jobs)
        for verdict in (Verdict.RETRY, Verdict.RELEASE, Verdict.FAILED):
            held = await one(jobs)
            assert carried(held.job) == REQUEST
            await settle(jobs, held, verdict)
        assert carried(await jobs.get(ticket.id, queue=Q)) == REQUEST
        with correlated("another"):
            assert await jobs.rerun(ticket.id, queue=Q)
        assert carried((await one(jobs)).job) == REQUEST

    async def test_a_duplicate_changes_nothing(self, jobs: Jobs) -> None:
        with requested():
            ticket = await add(jobs, unique="k")
        with correlated("another"):
            assert (await add(jobs, unique="k")).duplicate
        assert carried(await jobs.get(ticket.id, queue=Q)) == REQUEST

    async def test_nothing_is_carried_where_there_is_nothing(self, jobs: Jobs, harness: JobHarness) -> None:
        await add(jobs)
        identity, traceparent = carried((await one(jobs)).job)
        assert traceparent == ""
        assert identity == "" or not harness.direct  # A request to a server has an id in any case.

    async def test_an_async_handler_goes_on_with_it(self, live: Jobs) -> None:
        @live.task()
        async def look(_: None, job: JobContext) -> list[str]:
            await live.enqueue("next", id=f"after {job.id}", queue="others")
            return list(origin())

        async with live.working(concurrency=1):
            with requested():
                handle = await live.enqueue(look, id="first")
            other = await live.enqueue(look, id="second")
            assert await handle.result(PATIENCE) == list(REQUEST)
            assert REQUEST[0] not in await other.result(PATIENCE)
            assert PARENT not in await other.result(PATIENCE)
        assert carried(await live.get("after first", queue="others")) == REQUEST
        assert carried(await live.get("after second", queue="others"))[1] == ""
        assert correlation_id() == ""

    async def test_so_does_each_attempt_of_one_that_fails(self, live: Jobs) -> None:
        seen: list[tuple[str, str]] = []

        @live.task(retries=2, backoff=0.001)
        async def look(_: None, job: JobContext) -> None:
            await asyncio.sleep(0)
            seen.append(origin())
            if not job.last:
                raise ValueError("again")

        async with live.working():
            with requested():
                handle = await live.enqueue(look)
            await handle.result(PATIENCE)
        assert seen == [REQUEST] * 3

    async def test_so_does_one_in_a_thread(self, live: Jobs) -> None:
        @live.task()
        def look() -> list[str]:
            return list(origin())

        async with live.working():
            with requested():
                handle = await live.enqueue(look)
            assert await handle.result(PATIENCE) == list(REQUEST)

    async def test_so_do_those_in_processes(self, live: Jobs) -> None:
        live.tasks.include(job_handlers.tasks)
        async with live.working(concurrency=1):
            with requested():
                handles = [await live.enqueue(task) for task in (job_handlers.origins, job_handlers.origins_later)]
            last = await live.enqueue(job_handlers.origins)
            assert [await handle.result(PATIENCE) for handle in handles] == [list(REQUEST)] * 2
            assert PARENT not in await last.result(PATIENCE)
