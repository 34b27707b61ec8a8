"""Settling: each verdict, what it counts, and what becomes of the job."""

from __future__ import annotations

import pytest

from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import LONG, Q, Theme, add, comes, drained, look, one, settle, settled, spec, state
from noobly.working import Jobs, State, Verdict

_ENDS = (
    (Verdict.SUCCEEDED, State.SUCCEEDED),
    (Verdict.FAILED, State.FAILED),
    (Verdict.CANCELLED, State.CANCELLED),
    (Verdict.EXPIRED, State.EXPIRED),
)


class SettlingTheme(Theme):
    """An attempt ends as its worker says."""

    @pytest.mark.parametrize(("verdict", "last"), _ENDS, ids=lambda it: it.value)
    async def test_an_end(self, jobs: Jobs, harness: JobHarness, verdict: Verdict, last: State) -> None:
        ticket = await add(jobs, retries=5)
        held = await one(jobs)
        good = verdict is Verdict.SUCCEEDED
        assert await settle(jobs, held, verdict, result=[1] if good else None, error="" if good else "bad")
        job = await jobs.get(ticket.id, queue=Q)
        assert (job.state, job.result, job.error) == (last, [1] if good else None, "" if good else "bad")
        assert (job.attempts, job.stalls, job.cancelling) == (1, 0, False)
        assert held.job.started_at - 0.01 <= job.finished_at <= harness.now() + 5
        assert await look(jobs) == []
        assert not await settle(jobs, held, Verdict.RETRY)
        assert await state(jobs, ticket.id) is last

    async def test_a_retry_after_a_delay(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs, retries=5)
        held = await one(jobs)
        assert await settle(jobs, held, Verdict.RETRY, error="bad", delay=4 * harness.tick)
        job = await jobs.get(ticket.id, queue=Q)
        assert (job.state, job.attempts, job.error, job.result) == (State.RETRYING, 1, "bad", None)
        assert job.run_at == pytest.approx(harness.now() + 4 * harness.tick, abs=3 * harness.tick)
        assert await look(jobs) == []
        again = await comes(harness, jobs, ticks=4)
        assert (again.job.attempts, again.job.stalls, again.job.error) == (2, 0, "bad")
        assert again.fence > held.fence
        assert again.job.started_at >= job.run_at - 0.01
        assert await settle(jobs, again, result=1)
        job = await jobs.get(ticket.id, queue=Q)
        assert (job.state, job.attempts, job.result, job.error) == (State.SUCCEEDED, 2, 1, "")

    async def test_a_retry_at_once(self, jobs: Jobs) -> None:
        await add(jobs, retries=9)
        for attempt in range(1, 6):
            held = await one(jobs)
            assert held.job.attempts == attempt
            assert await settle(jobs, held, Verdict.RETRY, error=str(attempt))
        assert (await one(jobs)).job.error == "5"

    async def test_a_release_counts_no_attempt(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs, 1)
        for _ in range(3):
            held = await one(jobs)
            assert (held.job.args, held.job.attempts) == (1, 1)
            assert await settle(jobs, held, Verdict.RELEASE)
            job = await jobs.get(ticket.id, queue=Q)
            assert (job.state, job.attempts, job.stalls) == (State.QUEUED, 0, 0)
        held = await one(jobs)
        await add(jobs, 2)
        assert await settle(jobs, held, Verdict.RELEASE, delay=4 * harness.tick)
        assert await state(jobs, ticket.id) is State.DELAYED
        assert await drained(jobs) == [2]
        again = await comes(harness, jobs, ticks=4)
        assert (again.job.args, again.job.attempts) == (1, 1)

    async def test_a_release_after_a_failure_keeps_its_error(self, jobs: Jobs) -> None:
        ticket = await add(jobs, retries=3)
        assert await settle(jobs, await one(jobs), Verdict.RETRY, error="bad")
        assert await settle(jobs, await one(jobs), Verdict.RELEASE)
        job = await jobs.get(ticket.id, queue=Q)
        assert (job.attempts, job.error) == (1, "bad")
        assert (await one(jobs)).job.attempts == 2

    async def test_many_ends_at_once(self, jobs: Jobs) -> None:
        await jobs.add([spec(number) for number in range(6)])
        held = await look(jobs)
        verdicts = list(Verdict)
        told = [settled(each, verdict, delay=LONG) for each, verdict in zip(held, verdicts, strict=True)]
        told.append(told[0])
        assert await jobs.settle(Q, told) == [True] * 6 + [False]
        stats = await jobs.stats(Q)
        assert (stats.succeeded, stats.failed, stats.cancelled, stats.expired) == (1, 1, 1, 1)
        assert (stats.retrying, stats.delayed, stats.running, stats.queued) == (1, 1, 0, 0)
        assert await jobs.settle(Q, []) == []

    async def test_errors_are_cut_and_kept(self, jobs: Jobs) -> None:
        ticket = await add(jobs)
        await settle(jobs, await one(jobs), Verdict.FAILED, error="naïve 鍵 \n" + "x" * 10_000)
        job = await jobs.get(ticket.id, queue=Q)
        assert job.error.startswith("naïve 鍵 \n")
        assert 1000 <= len(job.error) < 10_000

    async def test_a_job_that_was_asked_to_end_may_end_otherwise(self, jobs: Jobs) -> None:
        ticket = await add(jobs)
        held = await one(jobs)
        assert await jobs.cancel(ticket.id, queue=Q) is State.RUNNING
        assert (await jobs.get(ticket.id, queue=Q)).cancelling
        assert await settle(jobs, held, result=1)
        job = await jobs.get(ticket.id, queue=Q)
        assert (job.state, job.result, job.cancelling) == (State.SUCCEEDED, 1, False)

    @pytest.mark.parametrize("delayed", [False, True], ids=["at once", "delayed"])
    @pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.RELEASE], ids=lambda it: it.value)
    async def test_a_job_that_was_asked_to_end_does_not_run_again(
        self, jobs: Jobs, verdict: Verdict, delayed: bool
    ) -> None:
        ticket = await add(jobs, retries=5)
        parent = await add(jobs, "parent", after=[spec("lenient", id="child", lenient=True, retries=5)])
        for held in await look(jobs):
            assert await jobs.cancel(held.job.id, queue=Q) is State.RUNNING
            error = "bad" if verdict is Verdict.RETRY else ""
            assert await settle(jobs, held, verdict, error=error, delay=LONG if delayed else 0.0)
            job = await jobs.get(held.job.id, queue=Q)
            assert (job.state, job.cancelling, job.attempts) == (State.CANCELLED, False, 1)
            assert job.error == error or (job.error and not error)
            assert job.finished_at > 0
        assert await state(jobs, parent.id) is State.QUEUED
        assert not (await jobs.wait(ticket.id, queue=Q)).cancelling
        assert await drained(jobs) == ["parent"]
