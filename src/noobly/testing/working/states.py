"""States: where a job stands, what the looks at it say, and how it is steered."""

from __future__ import annotations

import asyncio

import pytest

from noobly.core.errors import DeadlineExceeded, NotFound
from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import (
    LONG,
    PATIENCE,
    Pair,
    Q,
    Theme,
    add,
    comes,
    drained,
    look,
    one,
    settle,
    spec,
    state,
)
from noobly.working import Jobs, State, Verdict
from noobly.working.driver import FINAL


async def _one_of_each(jobs: Jobs) -> dict[State, str]:
    """Bring one job to each state; return their ids."""
    found: dict[State, str] = {}
    ends = (
        (Verdict.SUCCEEDED, State.SUCCEEDED),
        (Verdict.FAILED, State.FAILED),
        (Verdict.CANCELLED, State.CANCELLED),
        (Verdict.EXPIRED, State.EXPIRED),
        (Verdict.RETRY, State.RETRYING),
    )
    for verdict, last in ends:
        found[last] = (await add(jobs, last.value)).id
        await settle(jobs, await one(jobs), verdict, delay=LONG)
    found[State.RUNNING] = (await add(jobs, "running")).id
    await one(jobs)
    found[State.DELAYED] = (await add(jobs, "delayed", delay=LONG)).id
    found[State.QUEUED] = (await add(jobs, "queued")).id
    return found


class StatesTheme(Theme):
    """A job's state is the same however it is looked at."""

    async def test_each_state(self, jobs: Jobs) -> None:
        found = await _one_of_each(jobs)
        stats = await jobs.stats(Q)
        assert (stats.queue, stats.paused) == (Q, False)
        for last, id in found.items():
            assert await state(jobs, id) is last
            assert getattr(stats, last.value) == 1
            listed = await jobs.list_jobs(queue=Q, states=[last])
            assert [(job.id, job.args, job.state) for job in listed] == [(id, last.value, last)]
        assert {job.id for job in await jobs.list_jobs(queue=Q)} == set(found.values())
        ended = await jobs.list_jobs(queue=Q, states=list(FINAL))
        assert {job.id for job in ended} == {found[last] for last in FINAL}

    async def test_what_was_asked_for_by_name_is_what_was_listed(self, jobs: Jobs) -> None:
        for id in (await _one_of_each(jobs)).values():
            (listed,) = [job for job in await jobs.list_jobs(queue=Q) if job.id == id]
            assert listed == await jobs.get(id, queue=Q)

    async def test_a_queue_nobody_added_to(self, jobs: Jobs) -> None:
        assert await jobs.list_jobs(queue="nothing") == []
        stats = await jobs.stats("nothing")
        assert sum(getattr(stats, last.value) for last in State) == 0
        with pytest.raises(NotFound, match="nothing"):
            await jobs.get("id", queue="nothing")
        with pytest.raises(NotFound):
            await jobs.wait("id", queue="nothing")
        with pytest.raises(NotFound):
            await jobs.cancel("id", queue="nothing")
        assert await jobs.children("id", queue="nothing") == []
        assert await jobs.logs("id", queue="nothing") == []
        assert not await jobs.rerun("id", queue="nothing")
        assert not await jobs.remove("id", queue="nothing")
        assert not await jobs.report("id", queue="nothing", progress=1, lines=["line"])
        assert await jobs.sweep("nothing") == 0
        assert await jobs.logs("id", queue="nothing") == []
        assert await jobs.queues() == []

    async def test_the_names_of_queues(self, jobs: Jobs) -> None:
        tickets = await jobs.add([spec(queue=name) for name in ("b", "a", "c")])
        assert await jobs.queues() == ["a", "b", "c"]
        assert await jobs.remove(tickets[0].id, queue="b")
        assert [name for name in await jobs.queues() if name != "b"] == ["a", "c"]

    async def test_the_one_that_changed_last_comes_first(self, jobs: Jobs, harness: JobHarness) -> None:
        for number in range(6):
            await add(jobs, number)
        for verdict in (Verdict.SUCCEEDED, Verdict.FAILED, Verdict.SUCCEEDED):
            await harness.advance(harness.tick)
            await settle(jobs, await one(jobs), verdict)
        ended = await jobs.list_jobs(queue=Q, states=list(FINAL))
        assert [job.args for job in ended] == [2, 1, 0]
        good = await jobs.list_jobs(queue=Q, states=[State.SUCCEEDED])
        assert [job.args for job in good] == [2, 0]
        everything = await jobs.list_jobs(queue=Q)
        assert [job.args for job in everything][:3] == [2, 1, 0]
        assert sorted(job.args for job in everything) == list(range(6))

    async def test_page_by_page(self, jobs: Jobs) -> None:
        await jobs.add([spec(number) for number in range(25)])
        pages = [await jobs.list_jobs(queue=Q, max=10, skip=skip) for skip in (0, 10, 20, 30)]
        assert [len(page) for page in pages] == [10, 10, 5, 0]
        assert sorted(job.args for page in pages for job in page) == list(range(25))

    async def test_times(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs)
        created = (await jobs.get(ticket.id, queue=Q)).created_at
        await harness.advance(2 * harness.tick)
        held = await one(jobs)
        await harness.advance(2 * harness.tick)
        await settle(jobs, held, Verdict.RETRY)
        job = await jobs.get(ticket.id, queue=Q)
        assert job.created_at == pytest.approx(created, abs=0.002)
        assert job.started_at >= created + harness.tick
        assert job.finished_at == 0
        again = await one(jobs)
        assert again.job.started_at >= job.started_at + harness.tick
        await harness.advance(harness.tick)
        await settle(jobs, again)
        job = await jobs.get(ticket.id, queue=Q)
        assert job.finished_at >= job.started_at + harness.tick / 2
        assert job.created_at == pytest.approx(created, abs=0.002)

    async def test_progress_and_logs(self, jobs: Jobs) -> None:
        ticket = await add(jobs)
        assert await jobs.report(ticket.id, queue=Q, progress={"percent": 5}, lines=["one", "two\nlines", ""])
        assert await jobs.report(ticket.id, queue=Q, lines=["naïve 鍵 \x00"])
        assert await jobs.report(ticket.id, queue=Q)
        assert (await jobs.get(ticket.id, queue=Q)).progress == {"percent": 5}
        assert await jobs.report(ticket.id, queue=Q, progress=100)
        assert await jobs.logs(ticket.id, queue=Q) == ["one", "two\nlines", "", "naïve 鍵 \x00"]
        await settle(jobs, await one(jobs))
        assert (await jobs.get(ticket.id, queue=Q)).progress == 100
        assert len(await jobs.logs(ticket.id, queue=Q)) == 4

    @pytest.mark.parametrize("verdict", [Verdict.SUCCEEDED, Verdict.FAILED], ids=lambda it: it.value)
    async def test_nothing_is_reported_of_a_job_that_has_ended(self, jobs: Jobs, verdict: Verdict) -> None:
        ticket = await add(jobs)
        assert await jobs.report(ticket.id, queue=Q, progress=1, lines=["line"])
        await settle(jobs, await one(jobs), verdict)
        assert not await jobs.report(ticket.id, queue=Q, progress=2, lines=["late"])
        assert (await jobs.get(ticket.id, queue=Q)).progress == 1
        assert await jobs.logs(ticket.id, queue=Q) == ["line"]

    async def test_what_nobody_began_in_its_time_has_expired(self, jobs: Jobs, harness: JobHarness) -> None:
        short = 4 * harness.tick
        await add(jobs, "later", id="later", expires=LONG)
        assert await jobs.cancel("later", queue=Q) is State.CANCELLED
        await add(jobs, "retried", expires=short)
        await settle(jobs, await one(jobs), Verdict.RETRY, delay=LONG)
        await jobs.add([spec("parent", after=[spec("late", id="late", expires=short, lenient=True)])])
        await harness.advance(6 * harness.tick)
        job = await jobs.wait("late", queue=Q)
        assert (job.state, job.attempts) == (State.EXPIRED, 0)
        assert job.error
        assert job.finished_at > 0
        stats = await jobs.stats(Q)
        assert (stats.queued, stats.retrying, stats.expired, stats.cancelled) == (1, 1, 1, 1)
        assert await drained(jobs) == ["parent"]

    @pytest.mark.parametrize("way", ["released", "stalled"])
    async def test_what_was_begun_in_its_time_runs(self, jobs: Jobs, harness: JobHarness, way: str) -> None:
        tick = harness.tick
        ticket = await add(jobs, 1, expires=4 * tick)
        held = await one(jobs, lease=LONG if way == "released" else 3 * tick)
        if way == "released":
            assert await settle(jobs, held, Verdict.RELEASE)
        await harness.advance(6 * tick)
        assert await jobs.sweep(Q) == 0
        assert (await jobs.wait(ticket.id, queue=Q, within=0)).state in (State.QUEUED, State.RUNNING)
        again = await comes(harness, jobs, ticks=0)
        assert (again.job.id, again.job.attempts, again.fence > held.fence) == (ticket.id, 1, True)
        assert await settle(jobs, again, result=5)
        assert (await jobs.get(ticket.id, queue=Q)).result == 5

    async def test_the_time_of_a_delayed_job_begins_after_its_delay(self, jobs: Jobs, harness: JobHarness) -> None:
        tick = harness.tick
        ticket = await add(jobs, 1, delay=4 * tick, expires=8 * tick)
        expires_at = (await jobs.get(ticket.id, queue=Q)).expires_at
        await harness.advance(6 * tick)
        assert await jobs.sweep(Q) == 0
        held = await one(jobs)
        assert held.job.expires_at == pytest.approx(expires_at, abs=0.01)
        assert held.job.expires_at == pytest.approx(held.job.created_at + 12 * tick, abs=0.01)

    async def test_what_has_expired_runs_again_without_haste(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs, 1, expires=2 * harness.tick)
        await harness.advance(4 * harness.tick)
        assert await jobs.sweep(Q) == 0
        assert await jobs.rerun(ticket.id, queue=Q)
        assert await jobs.sweep(Q) == 0
        job = await jobs.wait(ticket.id, queue=Q, within=0)
        assert (job.state, job.expires_at) == (State.QUEUED, 0)
        assert await drained(jobs) == [1]

    async def test_a_sweep_lets_jobs_expire(self, jobs: Jobs, harness: JobHarness) -> None:
        await jobs.add([spec(number, expires=2 * harness.tick) for number in range(600)])
        await add(jobs, "later", expires=LONG)
        await harness.advance(4 * harness.tick)
        assert await jobs.sweep(Q) == 0
        stats = await jobs.stats(Q)
        assert (stats.queued, stats.expired) == (1, 600)
        assert await drained(jobs) == ["later"]

    async def test_a_thousand_lines_are_kept(self, jobs: Jobs) -> None:
        ticket = await add(jobs)
        for start in range(0, 1200, 400):
            lines = [str(number) for number in range(start, start + 400)]
            assert await jobs.report(ticket.id, queue=Q, lines=lines)
        assert await jobs.logs(ticket.id, queue=Q) == [str(number) for number in range(200, 1200)]

    async def test_waiting_for_an_end(self, jobs: Jobs) -> None:
        await self._waits(jobs, jobs)

    async def test_waiting_for_an_end_that_another_client_tells(self, pair: Pair) -> None:
        await self._waits(*pair)

    async def _waits(self, here: Jobs, there: Jobs) -> None:
        ticket = await add(here)
        assert (await here.wait(ticket.id, queue=Q, within=0.05)).state is State.QUEUED
        waiting = asyncio.create_task(here.wait(ticket.id, queue=Q, within=20))
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        await settle(there, await one(there), result=5)
        async with asyncio.timeout(PATIENCE):
            job = await waiting
        assert (job.state, job.result) == (State.SUCCEEDED, 5)
        assert (await here.wait(ticket.id, queue=Q, within=20)).result == 5

    async def test_waiting_goes_on_whatever_else_happens(self, pair: Pair) -> None:
        here, there = pair
        ticket = await add(here)
        waiting = asyncio.create_task(here.wait(ticket.id, queue=Q, within=20))
        for number in range(60):
            await add(there, number, queue="other")
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        await settle(there, await one(there))
        assert (await waiting).state is State.SUCCEEDED

    async def test_waiting_for_no_time_looks_once(self, jobs: Jobs) -> None:
        ticket = await add(jobs)
        handle = jobs.handle(ticket.id, queue=Q)
        assert (await jobs.wait(ticket.id, queue=Q, within=0)).state is State.QUEUED
        for look_once in (handle.wait, handle.result):
            with pytest.raises(DeadlineExceeded, match="queued"):
                await look_once(0)
        await settle(jobs, await one(jobs), result=5)
        assert (await handle.wait(0)).state is State.SUCCEEDED
        assert await handle.result(0) == 5

    @pytest.mark.parametrize("place", [State.QUEUED, State.DELAYED, State.RETRYING], ids=lambda it: it.value)
    async def test_cancelling_a_job_that_waits(self, jobs: Jobs, place: State) -> None:
        id = (await _one_of_each(jobs))[place]
        waiting = asyncio.create_task(jobs.wait(id, queue=Q, within=20))
        await asyncio.wait([waiting], timeout=0.05)
        assert await jobs.cancel(id, queue=Q) is State.CANCELLED
        job = await waiting
        assert (job.state, job.attempts) == (State.CANCELLED, 1 if place is State.RETRYING else 0)
        assert job.finished_at > 0
        assert job.error
        assert id not in [held.job.id for held in await look(jobs)]
        assert await jobs.cancel(id, queue=Q) is State.CANCELLED

    async def test_cancelling_a_job_that_runs(self, jobs: Jobs) -> None:
        ticket = await add(jobs)
        held = await one(jobs)
        for _ in range(2):
            assert await jobs.cancel(ticket.id, queue=Q) is State.RUNNING
        job = await jobs.get(ticket.id, queue=Q)
        assert (job.state, job.cancelling) == (State.RUNNING, True)
        assert await settle(jobs, held, Verdict.CANCELLED, error="asked")
        job = await jobs.get(ticket.id, queue=Q)
        assert (job.state, job.cancelling, job.error) == (State.CANCELLED, False, "asked")

    @pytest.mark.parametrize("last", [last for last in State if last.final], ids=lambda it: it.value)
    async def test_cancelling_a_job_that_has_ended(self, jobs: Jobs, last: State) -> None:
        id = (await _one_of_each(jobs))[last]
        assert await jobs.cancel(id, queue=Q) is last
        assert await state(jobs, id) is last

    async def test_running_again(self, jobs: Jobs) -> None:
        found = await _one_of_each(jobs)
        for place in (State.RUNNING, State.QUEUED, State.SUCCEEDED):
            assert not await jobs.rerun(found[place], queue=Q)
            assert await state(jobs, found[place]) is place
        assert await drained(jobs) == ["queued"]
        for place in (State.FAILED, State.CANCELLED, State.EXPIRED, State.DELAYED, State.RETRYING):
            assert await jobs.rerun(found[place], queue=Q)
            assert await state(jobs, found[place]) is State.QUEUED
            held = await one(jobs)
            assert held.job.id == found[place]
            assert held.job.attempts == (2 if place is State.RETRYING else 1)
            assert held.job.finished_at == 0
            assert await settle(jobs, held, result=place.value)
            assert (await jobs.get(found[place], queue=Q)).result == place.value

    async def test_what_runs_again_counts_anew(self, jobs: Jobs) -> None:
        ticket = await add(jobs, retries=1)
        await settle(jobs, await one(jobs), Verdict.RETRY)
        await settle(jobs, await one(jobs), Verdict.FAILED, error="bad")
        assert await jobs.rerun(ticket.id, queue=Q)
        assert (await jobs.get(ticket.id, queue=Q)).attempts == 0
        held = await one(jobs)
        assert (held.job.attempts, held.job.max_attempts) == (1, 2)

    async def test_the_fence_of_what_runs_again_goes_on(self, jobs: Jobs) -> None:
        ticket = await add(jobs, retries=1)
        fences = []
        for _ in range(3):
            for verdict in (Verdict.RETRY, Verdict.FAILED):
                held = await one(jobs)
                fences.append(held.fence)
                await settle(jobs, held, verdict)
            assert await jobs.rerun(ticket.id, queue=Q)
        assert fences == sorted(set(fences))

    async def test_forgetting(self, jobs: Jobs) -> None:
        found = await _one_of_each(jobs)
        for place, id in found.items():
            await jobs.report(id, queue=Q, lines=["line"])
            assert await jobs.remove(id, queue=Q) is (place is not State.RUNNING)
        assert [job.id for job in await jobs.list_jobs(queue=Q)] == [found[State.RUNNING]]
        assert await jobs.logs(found[State.FAILED], queue=Q) == []
        assert await look(jobs) == []
        stats = await jobs.stats(Q)
        assert sum(getattr(stats, last.value) for last in State) == 1
        assert not (await add(jobs, id=found[State.SUCCEEDED])).duplicate
        assert await jobs.logs(found[State.SUCCEEDED], queue=Q) == []
