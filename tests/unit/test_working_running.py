"""Attempts: what handlers raise, where it is told, and when their time begins."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading

import pytest

from noobly.core.codec import storable
from noobly.core.failure import LONGEST, error_text, trace_text, wanted_pause
from noobly.testing import eventually
from noobly.working import Job, JobContext, State, Tasks, ThreadContext, heart
from noobly.working.driver import Retrying
from noobly.working.executing import Executor
from noobly.working.records import Held

PATIENCE = 20.0


class Unspoken(Exception):
    def __str__(self):
        raise KeyboardInterrupt


class Own(BaseException):
    pass


class TestFailures:
    def test_texts(self):
        assert error_text(ValueError("no luck")) == "ValueError: no luck"
        assert error_text(ValueError("\udc80 ä")) == "ValueError: \\udc80 ä"
        assert error_text(Unspoken()) == "Unspoken, whose text cannot be had"
        assert len(error_text(ValueError("\udc80" * LONGEST))) == LONGEST
        assert storable("ä\ud800") == "ä\\ud800"

    def test_traces(self):
        assert trace_text(Own("x" * 2 * LONGEST)) == "x" * LONGEST
        assert "Unspoken" in trace_text(Unspoken())

    @pytest.mark.parametrize(
        ("after", "pause"),
        [(7, 7.0), (0.5, 0.5), (-1, 0.0), ("120", 0.0), (float("nan"), 0.0), (1e9, 0.0), (None, 0.0)],
    )
    def test_pauses(self, after, pause):
        error = ValueError()
        error.retry_after = after
        assert wanted_pause(error) == pause


def raising(error):
    raise error


_ODD = [
    (SystemExit(3), "SystemExit: 3"),
    (KeyboardInterrupt(), "KeyboardInterrupt: "),
    (Own("mine"), "Own: mine"),
    (GeneratorExit(), "GeneratorExit: "),
    (BaseExceptionGroup("all", [KeyboardInterrupt()]), "BaseExceptionGroup: all (1 sub-exception)"),
    (ValueError("bad \udc80"), "ValueError: bad \\udc80"),
    (Unspoken(), "Unspoken, whose text cannot be had"),
]


class TestOddErrors:
    @pytest.mark.parametrize(("error", "text"), _ODD, ids=[type(error).__name__ for error, _ in _ODD])
    @pytest.mark.parametrize("where", ["loop", "thread"])
    async def test_they_fail_the_attempt_and_nothing_else(self, jobs, where, error, text):
        @jobs.task(name="loop", retries=1, backoff=0.001)
        async def on_the_loop(_):
            raise error

        jobs.task(name="thread", retries=1, backoff=0.001)(lambda _: raising(error))

        @jobs.task()
        async def good(_):
            return "done"

        async with jobs.working():
            job = await (await jobs.enqueue(where)).wait(PATIENCE)
            assert await (await jobs.enqueue(good)).result(PATIENCE) == "done"
        assert (job.state, job.error, job.attempts, job.stalls) == (State.FAILED, text, 2, 0)

    async def test_what_no_future_takes(self, jobs):
        @jobs.task(retries=3, no_retry_on=[StopIteration])
        def exhausted(_):
            return next(iter([]))

        async with jobs.working():
            job = await (await jobs.enqueue(exhausted)).wait(PATIENCE)
        assert (job.state, job.error, job.attempts) == (State.FAILED, "StopIteration: ", 1)

    async def test_a_script_of_another_kind_of_end(self, jobs):
        jobs.task(name="leave", retries=3, no_retry_on=[SystemExit])(lambda _: sys.exit(1))
        async with jobs.working():
            job = await (await jobs.enqueue("leave")).wait(PATIENCE)
        assert (job.error, job.attempts) == ("SystemExit: 1", 1)

    async def test_log_lines_that_are_no_unicode(self, jobs):
        @jobs.task()
        async def work(_, job: JobContext):
            await job.log("a\udc80")

        async with jobs.working():
            handle = await jobs.enqueue(work)
            await handle.result(PATIENCE)
        assert await handle.logs() == ["a\\udc80"]


class TestTraces:
    async def test_each_failed_attempt_is_logged_once(self, jobs, caplog):
        @jobs.task(retries=1, backoff=0.001)
        async def bad(_):
            raise ValueError("no luck")

        with caplog.at_level(logging.WARNING, "noobly.working"):
            async with jobs.working():
                handle = await jobs.enqueue(bad, id="j")
                job = await handle.wait(PATIENCE)
        first, second = [one for one in caplog.records if one.name == "noobly.working"]
        assert [first.levelname, second.levelname] == ["WARNING", "ERROR"]
        for record in (first, second):
            assert "job j of queue 'default', task 'bad'" in record.getMessage()
            assert record.exc_info[0] is ValueError
        traces = await handle.logs()
        assert len(traces) == 2
        assert 'raise ValueError("no luck")' in traces[0]
        assert job.error == "ValueError: no luck"

    async def test_what_is_cancelled_is_no_failure(self, jobs, monkeypatch, caplog):
        monkeypatch.setattr(heart, "_LONGEST_PAUSE", 0.02)
        begun = asyncio.Event()

        @jobs.task()
        async def long(_):
            begun.set()
            await asyncio.Event().wait()

        async with jobs.working():
            handle = await jobs.enqueue(long)
            await asyncio.wait_for(begun.wait(), PATIENCE)
            await handle.cancel()
            await handle.wait(PATIENCE)
        assert [one for one in caplog.records if one.name == "noobly.working"] == []


class TestThreadPlaces:
    async def test_time_begins_with_the_function(self, jobs):
        """Threads that are busy with what was stopped keep their places, and take no time from those that wait."""
        go, ran = threading.Event(), []

        @jobs.task(timeout=0.05)
        def stuck(_, job: ThreadContext):
            go.wait(PATIENCE)
            ran.append(job.cancelled)

        @jobs.task(timeout=0.05)
        def quick(number):
            ran.append(number)

        async with jobs.working(concurrency=1):
            late = await (await jobs.enqueue(stuck)).wait(PATIENCE)
            assert "it took over 0.05 s" in late.error
            waiting = [await jobs.enqueue(quick, number) for number in range(3)]
            await asyncio.sleep(0.2)
            assert [await one.status() for one in waiting] == [State.QUEUED] * 3
            go.set()
            for handle in waiting:
                await handle.result(PATIENCE)
        assert ran == [True, 0, 1, 2]

    async def test_what_was_stopped_before_it_began_never_runs(self):
        async def report(*_, **__):
            return True

        go, ran, begun, tasks = threading.Event(), [], [], Tasks()
        stuck = tasks.task(name="stuck")(lambda _: go.wait(PATIENCE))
        never = tasks.task(name="never")(ran.append)
        executor = Executor(1, report)
        first = asyncio.ensure_future(executor.run(stuck, None, held("a"), lambda: begun.append("a")))
        second = asyncio.ensure_future(executor.run(never, 1, held("b"), lambda: begun.append("b")))
        await eventually(lambda: begun, timeout=PATIENCE)
        second.cancel()
        await asyncio.wait([second])
        assert (second.cancelled(), executor.lingering) == (True, 0)
        first.cancel()
        await asyncio.wait([first])
        assert executor.lingering == 1
        go.set()
        await eventually(lambda: not executor.lingering, timeout=PATIENCE)
        await executor.close()
        assert (begun, ran) == (["a"], [])


def held(id):
    job = Job(id=id, queue="q", task="t", args=None, state=State.RUNNING)
    return Held(job=job, retrying=Retrying(), token="t", fence=1)
