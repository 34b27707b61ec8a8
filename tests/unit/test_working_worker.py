"""The worker: its places over several queues, its end, and stores that answer with errors."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from contextlib import asynccontextmanager, suppress

import pytest

from noobly.core.errors import Internal, PermissionDenied, RateLimited, Unavailable
from noobly.testing import eventually
from noobly.working import JobFailed, State, Verdict, events, heart, open_jobs, patience, settling, worker
from noobly.working.driver import Beat
from noobly.working.records import Settled

PATIENCE = 20.0


@asynccontextmanager
async def running(work):
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Shops:
    """Tasks in queues of their own, whose handlers are counted while they run."""

    def __init__(self, jobs, queues):
        self.now = self.most = 0
        self.order = []
        self.go = asyncio.Event()
        self.tasks = [self._task(jobs, number) for number in range(queues)]

    def _task(self, jobs, number):
        @jobs.task(name=f"task {number}", queue=f"queue {number}")
        async def work(turns):
            self.order.append(number)
            self.now += 1
            self.most = max(self.most, self.now)
            if turns is None:
                await self.go.wait()
            for _ in range(turns or 0):
                await asyncio.sleep(0)
            self.now -= 1

        return work


class TestPlaces:
    @pytest.mark.parametrize("seed", range(12))
    async def test_all_queues_together_run_no_more_than_there_are_places(self, seed):
        chance = random.Random(seed)
        concurrency, queues = chance.choice([1, 2, 3, 7]), chance.choice([2, 3, 5])
        async with open_jobs() as jobs:
            shops = Shops(jobs, queues)
            handles = []
            async with jobs.working(concurrency=concurrency):
                for _ in range(chance.randrange(10, 120)):
                    task = chance.choice(shops.tasks)
                    handles.append(await jobs.enqueue(task, chance.randrange(6)))
                    for _ in range(chance.randrange(8)):
                        await asyncio.sleep(0)
                ended = [await handle.wait(PATIENCE) for handle in handles]
            assert {(job.state, job.attempts, job.stalls) for job in ended} == {(State.SUCCEEDED, 1, 0)}
            assert shops.most <= concurrency

    async def test_an_idle_worker_of_one_place_hears_of_every_queue(self, jobs):
        shops, late = Shops(jobs, 5), []
        loop = asyncio.get_running_loop()
        async with jobs.working(concurrency=1):
            for _ in range(3):
                for task in shops.tasks:
                    began = loop.time()
                    await (await jobs.enqueue(task, 0)).wait(PATIENCE)
                    late.append(loop.time() - began)
        assert max(late) < jobs.slice / 2
        assert shops.most == 1

    async def test_one_queue_may_have_all_places_while_the_others_are_empty(self, jobs):
        shops = Shops(jobs, 5)
        async with jobs.working(concurrency=10):
            handles = [await jobs.enqueue(shops.tasks[0], None) for _ in range(12)]
            await eventually(lambda: shops.now == 10, PATIENCE)
            shops.go.set()
            for handle in handles:
                await handle.wait(PATIENCE)
        assert shops.most == 10

    async def test_full_queues_take_turns(self, jobs):
        shops = Shops(jobs, 3)
        handles = [await jobs.enqueue(task, 0) for task in shops.tasks for _ in range(30)]
        async with jobs.working(concurrency=1):
            for handle in handles:
                await handle.wait(PATIENCE)
        first = Counter(shops.order[:45])
        assert min(first[number] for number in range(3)) >= 10

    async def test_what_comes_while_all_places_are_taken_waits_for_one(self, jobs, monkeypatch):
        shops = Shops(jobs, 2)
        waiting = _waiting(jobs, monkeypatch)
        async with jobs.working(concurrency=1):
            await eventually(lambda: waiting == {"queue 0", "queue 1"}, PATIENCE)
            first = await jobs.enqueue(shops.tasks[0], None)
            await eventually(lambda: shops.now == 1, PATIENCE)
            second = await jobs.enqueue(shops.tasks[1], 0)
            await eventually(lambda: _is(second, State.RUNNING), PATIENCE)
            assert shops.order == [0]
            shops.go.set()
            await first.wait(PATIENCE)
            job = await second.wait(PATIENCE)
        assert (job.state, job.attempts, shops.most) == (State.SUCCEEDED, 1, 1)

    async def test_others_may_have_what_waits_too_long(self, jobs, monkeypatch):
        monkeypatch.setattr(worker, "_SURPLUS", 0.01)
        shops = Shops(jobs, 2)
        waiting = _waiting(jobs, monkeypatch)
        async with jobs.working(concurrency=1):
            await eventually(lambda: waiting == {"queue 0", "queue 1"}, PATIENCE)
            await jobs.enqueue(shops.tasks[0], None)
            await eventually(lambda: shops.now == 1, PATIENCE)
            second = await jobs.enqueue(shops.tasks[1], 0)
            await eventually(lambda: _is(second, State.QUEUED), PATIENCE)
            (held,) = await jobs.claim("queue 1", "another", wait=2)
            assert (held.job.id, held.job.attempts, held.job.stalls) == (second.id, 1, 0)
            shops.go.set()


def _waiting(jobs, monkeypatch):
    """Return the queues of which a job is waited for, as they come."""
    claim, found = jobs.claim, set()

    async def noted(queue, *args, wait=None, **how):
        if wait:
            found.add(queue)
        return await claim(queue, *args, wait=wait, **how)

    monkeypatch.setattr(jobs, "claim", noted)
    return found


async def _is(handle, state):
    return await handle.status() is state


class TestEnding:
    @pytest.mark.parametrize("turns", [1, 20])
    async def test_a_second_cancellation_takes_the_grace_away(self, jobs, turns):
        begun, ended = asyncio.Event(), asyncio.Event()

        @jobs.task()
        async def slow():
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        handle = await jobs.enqueue(slow)
        working = asyncio.create_task(jobs.work(grace=600))
        await begun.wait()
        working.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.wait([working], timeout=PATIENCE)
        assert working.cancelled()
        assert ended.is_set()
        job = await handle.job()
        assert (job.state, job.attempts, job.stalls) == (State.QUEUED, 0, 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_a_handler_that_does_not_end_is_not_waited_for(self, jobs, monkeypatch, caplog):
        monkeypatch.setattr(worker, "_STUBBORN", 0.05)
        begun, go = asyncio.Event(), asyncio.Event()
        mine = []

        @jobs.task()
        async def stubborn():
            mine.append(asyncio.current_task())
            begun.set()
            while not go.is_set():
                with suppress(asyncio.CancelledError):
                    await go.wait()

        handle = await jobs.enqueue(stubborn)
        async with running(jobs.work(grace=0)):
            await begun.wait()
        job = await handle.job()
        assert (job.state, job.attempts, job.stalls) == (State.QUEUED, 0, 0)
        assert "does not end" in caplog.text
        go.set()
        await asyncio.wait(mine, timeout=PATIENCE)
        assert await handle.status() is State.QUEUED

    async def test_a_store_that_is_down_is_not_waited_for(self, jobs, monkeypatch, caplog):
        monkeypatch.setattr(worker, "_LAST", 0.05)
        monkeypatch.setattr(settling, "_SPARE", 0.05)
        done = asyncio.Event()

        async def down(queue, attempts):
            raise Unavailable("down")

        async def silent(queue, attempts):
            await asyncio.Event().wait()

        for settle in (down, silent):
            done.clear()
            monkeypatch.setattr(jobs, "settle", settle)

            @jobs.task(name=settle.__name__)
            async def work():
                done.set()

            await jobs.enqueue(work)
            async with asyncio.timeout(PATIENCE), running(jobs.work(grace=0)):
                await done.wait()
        assert "could not be settled" in caplog.text


class TestErrors:
    async def test_a_store_that_fails_by_itself_is_asked_again(self, jobs, monkeypatch, caplog):
        monkeypatch.setattr(worker, "pause", lambda error, failures: 0.01)
        claim, failures = jobs.claim, [Internal("a 500"), Internal("a 500")]

        async def sometimes(*args, **kwargs):
            if failures:
                raise failures.pop()
            return await claim(*args, **kwargs)

        @jobs.task()
        async def work():
            return "done"

        monkeypatch.setattr(jobs, "claim", sometimes)
        async with jobs.working():
            assert await (await jobs.enqueue(work)).result(PATIENCE) == "done"
        assert [one.levelno for one in caplog.records if "cannot be claimed" in one.message] == [logging.ERROR] * 2

    async def test_a_store_that_refuses_for_good_ends_the_worker_and_the_body_beside_it(self, jobs, monkeypatch):
        async def refused(*args, **kwargs):
            raise PermissionDenied("not you")

        @jobs.task()
        async def work():
            pass

        monkeypatch.setattr(jobs, "claim", refused)
        with pytest.raises(PermissionDenied, match="not you"):
            await jobs.work()
        with pytest.raises(PermissionDenied, match="not you"):
            async with jobs.working():
                await asyncio.Event().wait()

    async def test_a_body_and_a_worker_that_fail_both_are_a_group(self, jobs, monkeypatch):
        async def refused(*args, **kwargs):
            raise PermissionDenied("not you")

        @jobs.task()
        async def work():
            pass

        async def body():
            async with jobs.working():
                try:
                    await asyncio.Event().wait()
                finally:
                    raise KeyError("body")

        monkeypatch.setattr(jobs, "claim", refused)
        with pytest.raises(BaseExceptionGroup) as group:
            await body()
        assert {type(one) for one in group.value.exceptions} == {PermissionDenied, KeyError}

    async def test_what_a_body_raises_is_raised_as_it_was(self, jobs):
        @jobs.task()
        async def bad():
            raise ValueError("no luck")

        with pytest.raises(JobFailed, match="no luck") as failure:
            async with jobs.working():
                await (await jobs.enqueue(bad)).result(PATIENCE)
        assert failure.value.__context__ is None

    def test_pauses(self):
        down = Unavailable("down")
        assert [patience.pause(down, failures) for failures in (0, 1, 2, 20)] == [0.05, 0.1, 0.2, 5.0]
        assert patience.pause(Internal("a 500"), 0) == 5.0
        assert patience.pause(RateLimited("slow", retry_after=7), 0) == 7.0
        assert patience.pause(RateLimited("slow", retry_after=1e9), 0) == 300.0

    async def test_a_result_that_a_failing_store_did_not_take_is_told_again(self, jobs, monkeypatch):
        monkeypatch.setattr(settling, "_LONGEST_PAUSE", 0.01)
        settle, failures = jobs.settle, [Internal("a 500")]

        async def sometimes(queue, attempts):
            if failures:
                raise failures.pop()
            return await settle(queue, attempts)

        @jobs.task()
        async def work():
            return "done"

        monkeypatch.setattr(jobs, "settle", sometimes)
        async with jobs.working():
            assert await (await jobs.enqueue(work)).result(PATIENCE) == "done"


class TestTelling:
    async def test_an_attempt_whose_claim_was_lost(self, jobs, monkeypatch):
        monkeypatch.setattr(heart, "_LONGEST_PAUSE", 0.02)
        seen, begun = [], asyncio.Event()
        jobs.scope.environment.bus.subscribe(events.Ended, seen.append)

        async def lost(queue, holds, lease=None):
            return [Beat.LOST] * len(holds)

        @jobs.task()
        async def work(waits):
            if waits:
                begun.set()
                await asyncio.Event().wait()

        async def gone(queue, attempts):
            return [False] * len(attempts)

        monkeypatch.setattr(jobs, "settle", gone)
        async with jobs.working():
            await jobs.enqueue(work, False)
            await eventually(lambda: len(seen) == 1, PATIENCE)
            monkeypatch.setattr(jobs, "beat", lost)
            await jobs.enqueue(work, True)
            await begun.wait()
            await eventually(lambda: len(seen) == 2, PATIENCE)
        assert [one.verdict for one in seen] == ["lost", "lost"]


class TestMisplaced:
    async def test_a_queue_that_no_task_uses(self, jobs, caplog):
        @jobs.task(queue="mail")
        async def mail():
            pass

        async with running(jobs.work(queues=["mail", "post"])):
            await (await jobs.enqueue(mail)).wait(PATIENCE)
        assert [one.message for one in caplog.records if one.name == "noobly.working"] == [
            "no task of this worker uses queue 'post'; the tasks use mail"
        ]

    async def test_a_job_that_its_limits_do_not_reach(self, jobs, caplog):
        @jobs.task(rate_limit="100/s")
        async def bank():
            pass

        @jobs.task()
        async def other():
            pass

        async with jobs.working():
            for _ in range(3):
                await (await jobs.enqueue(bank, queue="default")).wait(PATIENCE)
            await (await jobs.enqueue(bank)).wait(PATIENCE)
        assert caplog.text.count("without the limits of its task, which hold in queue 'bank'") == 1


async def test_a_job_that_was_begun_in_its_time_runs_again_later(jobs):
    @jobs.task()
    async def work():
        return "done"

    handle = await jobs.enqueue(work, expires=0.05)
    (held,) = await jobs.claim("default", "one that stops")
    await jobs.settle("default", [Settled(id=held.job.id, token=held.token, verdict=Verdict.RELEASE, delay=0.1)])
    async with jobs.working():
        assert await handle.result(PATIENCE) == "done"
