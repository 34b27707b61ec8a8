"""Lifespans: how they are declared, and what a worker opens before its first job and closes after its last one."""

from __future__ import annotations

import asyncio
import functools
import importlib
import sys
from contextlib import asynccontextmanager

import pytest

from noobly.core.errors import Closed, ConfigError
from noobly.settings import Settings
from noobly.sync import SyncNoobly
from noobly.testing import eventually
from noobly.working import State, Tasks

from .lifespans import PATIENCE, complaints, span, stopped, working


class TestOrder:
    async def test_they_are_around_all_jobs(self, jobs, seen):
        span(jobs, seen, "pool")
        span(jobs, seen, "model")
        handle = await jobs.enqueue(working(jobs, seen))
        async with jobs.working():
            await handle.wait(PATIENCE)
        assert seen == ["start pool", "start model", "work", "end model", "end pool"]

    async def test_no_job_is_claimed_before(self, jobs, seen):
        entered = asyncio.Event()

        @jobs.lifespan
        async def slow():
            seen.append("start")
            await entered.wait()
            yield

        handle = await jobs.enqueue(working(jobs, seen))
        async with jobs.working():
            await eventually(lambda: seen == ["start"], PATIENCE)
            assert await handle.status() is State.QUEUED
            entered.set()
            await handle.wait(PATIENCE)

    async def test_jobs_have_their_grace_before_the_end(self, jobs, seen):
        begun, go = asyncio.Event(), asyncio.Event()
        span(jobs, seen, "pool")

        @jobs.task()
        async def last():
            begun.set()
            await go.wait()
            seen.append("worked")

        handle = await jobs.enqueue(last)
        worker = asyncio.create_task(jobs.work())
        await begun.wait()
        worker.cancel()
        asyncio.get_running_loop().call_soon(go.set)
        await asyncio.wait([worker], timeout=PATIENCE)
        assert seen == ["start pool", "worked", "end pool"]
        assert await handle.status() is State.SUCCEEDED

    async def test_jobs_are_given_back_before_the_end(self, jobs, seen):
        begun = asyncio.Event()

        @jobs.lifespan
        async def pool():
            yield
            seen.append((await handle.job()).state)

        @jobs.task()
        async def endless():
            begun.set()
            await asyncio.Event().wait()

        handle = await jobs.enqueue(endless)
        worker = asyncio.create_task(jobs.work(grace=0))
        await begun.wait()
        await stopped(worker)
        assert seen == [State.QUEUED]

    async def test_each_worker_enters_its_own(self, jobs, seen):
        span(jobs, seen, "pool")
        working(jobs, seen)
        async with jobs.working(), jobs.working():
            await eventually(lambda: seen == ["start pool"] * 2, PATIENCE)
        async with jobs.working():
            await eventually(lambda: seen[4:] == ["start pool"], PATIENCE)
        assert seen[2:] == ["end pool", "end pool", "start pool", "end pool"]

    async def test_those_of_another_table_come_along_once(self, jobs, seen):
        table, parts = Tasks(), Tasks()
        pool = span(table, seen, "pool")
        parts.lifespan(pool)
        work = working(parts, seen)
        table.include(parts)
        jobs.tasks.include(table)
        async with jobs.working():
            await (await jobs.enqueue(work)).wait(PATIENCE)
        assert seen == ["start pool", "work", "end pool"]

    async def test_it_is_left_in_the_task_that_has_entered_it(self, jobs, seen):
        @jobs.lifespan
        async def refreshed():
            async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE):
                refreshing = group.create_task(asyncio.Event().wait())
                yield
                refreshing.cancel()
            seen.append("end")

        handle = await jobs.enqueue(working(jobs, seen))
        async with jobs.working():
            await handle.wait(PATIENCE)
        assert seen == ["work", "end"]

    async def test_a_context_manager_of_contextlib(self, jobs, seen):
        @jobs.lifespan
        @asynccontextmanager
        async def pool():
            seen.append("start")
            yield
            seen.append("end")

        handle = await jobs.enqueue(working(jobs, seen))
        async with jobs.working():
            await handle.wait(PATIENCE)
        assert seen == ["start", "work", "end"]

    def test_without_an_event_loop(self, seen):
        with SyncNoobly.open(settings=Settings()) as noobly:
            span(noobly.working, seen, "pool")

            @noobly.working.task()
            def work():
                seen.append("work")

            with noobly.working.working():
                noobly.working.enqueue(work).wait(PATIENCE)
        assert seen == ["start pool", "work", "end pool"]


class TestStarts:
    async def test_an_error_ends_the_worker_after_those_that_were_entered(self, jobs, seen, caplog):
        span(jobs, seen, "pool")
        span(jobs, seen, "model", start=OSError("no such model"))
        span(jobs, seen, "never")
        handle = await jobs.enqueue(working(jobs, seen))
        with pytest.raises(OSError, match="no such model"):
            await jobs.work()
        assert seen == ["start pool", "start model", "end pool"]
        assert await handle.status() is State.QUEUED
        assert complaints(caplog) == []

    async def test_it_ends_the_body_beside_it_as_well(self, jobs, seen):
        span(jobs, seen, "model", start=OSError("no such model"))
        working(jobs, seen)
        with pytest.raises(OSError, match="no such model"):
            async with jobs.working():
                await asyncio.Event().wait()

    async def test_a_group_of_errors_stays_one(self, jobs, seen):
        span(jobs, seen, "model", start=ExceptionGroup("both", [OSError("a"), OSError("b")]))
        working(jobs, seen)
        with pytest.raises(ExceptionGroup, match="both"):
            await jobs.work()

    @pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
    async def test_what_is_no_error_is_one_here(self, jobs, seen, error):
        span(jobs, seen, "model", start=error)
        working(jobs, seen)
        with pytest.raises(Closed, match="model has ended before its worker: " + type(error).__name__):
            await jobs.work()

    async def test_a_worker_that_is_cancelled_meanwhile(self, jobs, seen):
        span(jobs, seen, "pool")

        @jobs.lifespan
        async def slow():
            seen.append("waits")
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("cancelled")
            yield

        working(jobs, seen)
        worker = asyncio.create_task(jobs.work())
        await eventually(lambda: "waits" in seen, PATIENCE)
        await stopped(worker)
        assert seen == ["start pool", "waits", "cancelled", "end pool"]

    async def test_what_is_yielded_would_be_lost(self, jobs, seen):
        @jobs.lifespan
        async def pool():
            try:
                yield {"pool": 1}
            finally:
                seen.append("end")

        working(jobs, seen)
        with pytest.raises(ConfigError, match="yields a dict, which nobody gets"):
            await jobs.work()
        assert seen == ["end"]


class TestDeclaring:
    def test_it_is_an_async_generator_function(self):
        async def coroutine():
            pass

        def generator():
            yield

        class Pool:
            async def __aenter__(self):
                return self

            async def __aexit__(self, *error):
                pass

        for wrong in (coroutine, generator, Pool, Pool(), None, "pool"):
            with pytest.raises(ConfigError, match="no async generator function: write `async def`"):
                Tasks().lifespan(wrong)

    def test_it_takes_no_arguments(self):
        async def pool(url, *more, size=3):
            yield

        with pytest.raises(ConfigError, match="pool wants 'url'; a lifespan is called without arguments"):
            Tasks().lifespan(pool)
        tasks = Tasks()
        tasks.lifespan(functools.partial(pool, "db://"))
        assert len(tasks.lifespans) == 1

    def test_the_function_stays_what_it_was(self):
        async def pool():
            yield

        assert Tasks().lifespan(pool) is pool


PARTS = """
from noobly import Tasks

tasks, entered = Tasks(), []


@tasks.lifespan
async def pool():
    entered.append("pool")
    yield


@tasks.task(execution="process")
def seen():
    return entered
"""


async def test_processes_besides_do_not_enter_them(jobs, tmp_path, monkeypatch):
    (tmp_path / "spanned_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    parts = importlib.import_module("spanned_parts")
    monkeypatch.delitem(sys.modules, "spanned_parts")
    jobs.tasks.include(parts.tasks)
    async with jobs.working():
        assert await (await jobs.enqueue("seen")).result(PATIENCE) == []
    assert parts.entered == ["pool"]
