"""Stopping: workers that end give their jobs time, then give them back, and lose nothing."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from noobly.core.errors import NooblyError
from noobly.testing.clock import eventually
from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import PATIENCE, LiveTheme, holds, running
from noobly.working import JobContext, Jobs, State, Verdict, events
from noobly.working.records import Settled


def _longer(found: list[int], than: int) -> bool:
    return len(found) > than


class StoppingTheme(LiveTheme):
    """A worker ends gracefully."""

    async def test_running_jobs_end_in_their_grace(self, live: Jobs) -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        @live.task()
        async def work(number: int) -> int:
            begun.set()
            await go.wait()
            return number

        first, second = [await live.enqueue(work, number) for number in range(2)]
        working = asyncio.create_task(live.work(concurrency=1, grace=PATIENCE))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        working.cancel()
        await asyncio.wait([working], timeout=0.1)
        assert not working.done()
        go.set()
        await asyncio.wait([working], timeout=PATIENCE)
        assert working.cancelled()
        assert (await first.job()).result == 0
        job = await second.job()
        assert (job.state, job.attempts) == (State.QUEUED, 0)

    async def test_the_others_are_given_back_uncounted(self, live: Jobs) -> None:
        begun, ended, attempts = asyncio.Event(), asyncio.Event(), list[int]()

        @live.task()
        async def work(_: None, job: JobContext) -> str:
            attempts.append(job.attempt)
            begun.set()
            if len(attempts) > 1:
                return "done"
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return "never"

        handle = await live.enqueue(work)
        async with running(live.work(grace=0.05)):
            await asyncio.wait_for(begun.wait(), PATIENCE)
        assert ended.is_set()
        job = await handle.job()
        assert (job.state, job.attempts, job.stalls) == (State.QUEUED, 0, 0)
        async with running(live.work()):
            assert await handle.result(PATIENCE) == "done"
        assert attempts == [1, 1]

    async def test_what_is_told_of_it(self, live: Jobs) -> None:
        begun = asyncio.Event()
        bus = live.scope.environment.bus
        seen: list[events.JobEvent] = []
        for kind in (events.Started, events.Ended):
            bus.subscribe(kind, seen.append)

        @live.task(retries=1, backoff=0.001)
        async def work(fails: bool) -> None:
            begun.set()
            if fails:
                raise ValueError
            await asyncio.Event().wait()

        async with running(live.work(grace=0)):
            handle = await live.enqueue(work, True)
            await handle.wait(PATIENCE)
            begun.clear()
            await live.enqueue(work, False)
            await asyncio.wait_for(begun.wait(), PATIENCE)
        told = [one.verdict if isinstance(one, events.Ended) else type(one).__name__ for one in seen]
        assert told == ["Started", "retry", "Started", "failed", "Started", "release"]
        assert {(one.task, one.queue) for one in seen} == {("work", "default")}

    async def test_jobs_of_a_worker_that_ended_run_on_the_next(self, live: Jobs) -> None:
        done: list[int] = []

        @live.task()
        async def work(number: int) -> None:
            done.append(number)
            await asyncio.sleep(0)

        handles = [await live.enqueue(work, number) for number in range(60)]
        while len(done) < 60:
            more = partial(_longer, done, len(done))
            async with running(live.work(concurrency=3)):
                await eventually(more, timeout=PATIENCE)
        for handle in handles:
            job = await handle.job()
            assert (job.state, job.attempts, job.stalls) == (State.SUCCEEDED, 1, 0)
        assert sorted(done) == list(range(60))

    async def test_a_job_that_was_asked_to_end_does_not_run_on_the_next(self, live: Jobs) -> None:
        calls: list[int] = []

        @live.task()
        async def work(number: int) -> None:
            calls.append(number)

        handle = await live.enqueue(work, 1)
        (held,) = await live.claim("default", "ending", lease=600)
        assert await handle.cancel() is State.RUNNING
        await live.settle("default", [Settled(id=held.job.id, token=held.token, verdict=Verdict.RELEASE)])
        async with running(live.work()):
            job = await handle.wait(PATIENCE)
        assert (job.state, calls) == (State.CANCELLED, [])

    async def test_a_thread_is_waited_for(self, live: Jobs) -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        @live.task()
        def work(_: None) -> str:
            loop.call_soon_threadsafe(begun.set)
            return "done"

        handle = await live.enqueue(work)
        async with running(live.work()):
            await asyncio.wait_for(begun.wait(), PATIENCE)
        assert (await handle.job()).result == "done"

    async def test_a_store_that_goes_down_and_comes_back(self, harness: JobHarness) -> None:
        if not harness.restartable:
            pytest.skip("there is no server of our own to restart")
        async with harness.open(timeout=1.0, attempts=2) as live:
            begun, go = asyncio.Event(), asyncio.Event()

            @live.task()
            async def work(number: int) -> int:
                begun.set()
                await go.wait()
                return number

            first = await live.enqueue(work, 1)
            async with running(live.work()) as working:
                await asyncio.wait_for(begun.wait(), PATIENCE)
                await harness.stop()
                go.set()
                await harness.elapse(2 * harness.tick)
                await harness.restart()
                found: list[object] = []

                async def back() -> bool:
                    try:
                        found.append(await (await live.enqueue(work, 2)).result(PATIENCE))
                    except NooblyError as error:
                        assert error.temporary, error
                        return False
                    return True

                assert await holds(harness, back)
                assert not working.done()
                if harness.durable:
                    assert await first.result(PATIENCE) == 1
            assert found == [2]
