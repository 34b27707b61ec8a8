"""Lifespans that end: with their worker, not at all, or too early."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from noobly.core.errors import Closed, PermissionDenied
from noobly.testing import eventually
from noobly.working import lifespans

from .lifespans import PATIENCE, complaints, span, working


class TestEnds:
    async def test_an_error_is_logged_and_the_others_are_left(self, jobs, seen, caplog):
        span(jobs, seen, "pool")
        span(jobs, seen, "client", end=ValueError("no luck"))
        span(jobs, seen, "model", end=OSError("gone"))
        handle = await jobs.enqueue(working(jobs, seen))
        async with jobs.working():
            await handle.wait(PATIENCE)
        assert seen[-3:] == ["end model", "end client", "end pool"]
        assert [one.rpartition(".")[2] for one in complaints(caplog)] == [
            "model failed at its end: OSError: gone",
            "client failed at its end: ValueError: no luck",
        ]
        assert "in noted\n    raise end\nValueError: no luck" in caplog.text

    async def test_a_worker_that_fails_still_leaves_them(self, jobs, seen, monkeypatch, caplog):
        async def refused(*args, **kwargs):
            raise PermissionDenied("not you")

        monkeypatch.setattr(jobs, "claim", refused)
        span(jobs, seen, "pool", end=OSError("gone"))
        working(jobs, seen)
        with pytest.raises(PermissionDenied, match="not you"):
            await jobs.work()
        assert seen == ["start pool", "end pool"]
        assert "pool failed at its end" in caplog.text

    async def test_one_that_hangs_is_cancelled_and_named(self, jobs, seen, monkeypatch, caplog):
        monkeypatch.setattr(lifespans, "_LAST", 0.05)
        span(jobs, seen, "pool")

        @jobs.lifespan
        async def hanging():
            yield
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("cancelled")

        handle = await jobs.enqueue(working(jobs, seen))
        async with jobs.working():
            await handle.wait(PATIENCE)
        assert seen == ["start pool", "work", "cancelled", "end pool"]
        assert [one.partition("hanging ")[2] for one in complaints(caplog)] == [
            "does not end within 0.05 s, and is cancelled"
        ]

    async def test_one_that_never_ends_is_left_behind(self, jobs, seen, monkeypatch, caplog):
        monkeypatch.setattr(lifespans, "_LAST", 0.05)
        monkeypatch.setattr(lifespans, "_STUBBORN", 0.05)
        go, mine = asyncio.Event(), []
        span(jobs, seen, "pool")

        @jobs.lifespan
        async def stubborn():
            mine.append(asyncio.current_task())
            yield
            while not go.is_set():
                with suppress(asyncio.CancelledError):
                    await go.wait()

        handle = await jobs.enqueue(working(jobs, seen))
        async with jobs.working():
            await handle.wait(PATIENCE)
        assert seen[-1] == "end pool"
        assert "stubborn does not end when cancelled either, and is left behind" in caplog.text
        go.set()
        await asyncio.wait(mine, timeout=PATIENCE)

    async def test_further_cancellations_do_not_cut_it_short(self, jobs, seen):
        ending, go = asyncio.Event(), asyncio.Event()
        span(jobs, seen, "pool")

        @jobs.lifespan
        async def flushed():
            seen.append("start")
            yield
            ending.set()
            await go.wait()
            seen.append("end")

        working(jobs, seen)
        worker = asyncio.create_task(jobs.work())
        await eventually(lambda: "start" in seen, PATIENCE)
        worker.cancel()
        await ending.wait()
        for _ in range(20):
            worker.cancel()
            await asyncio.sleep(0)
        assert not worker.done()
        go.set()
        await asyncio.wait([worker], timeout=PATIENCE)
        assert (worker.cancelled(), seen) == (True, ["start pool", "start", "end", "end pool"])
        assert asyncio.all_tasks() == {asyncio.current_task()}


class TestBreaking:
    async def test_its_error_ends_the_worker_when_the_jobs_are_settled(self, jobs, seen, caplog):
        begun, breaks = asyncio.Event(), asyncio.Event()

        async def refresh():
            await breaks.wait()
            raise OSError("the pool is gone")

        @jobs.lifespan
        async def pool():
            async with asyncio.TaskGroup() as group:
                group.create_task(refresh())
                yield

        @jobs.task()
        async def work():
            begun.set()
            await breaks.wait()
            return "done"

        span(jobs, seen, "model")
        handle = await jobs.enqueue(work)
        worker = asyncio.create_task(jobs.work())
        await begun.wait()
        breaks.set()
        with pytest.raises(ExceptionGroup) as group:
            await asyncio.wait_for(worker, PATIENCE)
        assert [str(one) for one in group.value.exceptions] == ["the pool is gone"]
        assert await handle.result(0) == "done"
        assert seen == ["start model", "end model"]
        assert complaints(caplog) == []

    async def test_one_that_ends_without_an_error(self, jobs, seen):
        @jobs.lifespan
        async def short():
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    yield

        working(jobs, seen)
        with pytest.raises(Closed, match=r"short has ended before its worker$"):
            await jobs.work()
