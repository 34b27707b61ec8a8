"""History: ended jobs are kept for a while, and so many of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from noobly.testing.clock import eventually
from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import LONG, PATIENCE, Q, Theme, add, drained, look, one, settle, spec
from noobly.working import Jobs, State, Verdict
from noobly.working.driver import FINAL


async def _left(jobs: Jobs) -> list[object]:
    return sorted(job.args for job in await jobs.list_jobs(queue=Q, states=list(FINAL)))


class HistoryTheme(Theme):
    """Old jobs leave, and no others."""

    async def test_by_age(self, harness: JobHarness) -> None:
        tick = harness.tick
        async with harness.open(keep_succeeded=4 * tick, keep_others=12 * tick) as jobs:
            for number, verdict in enumerate((Verdict.SUCCEEDED, Verdict.FAILED, Verdict.CANCELLED, Verdict.EXPIRED)):
                await add(jobs, number)
                assert await settle(jobs, await one(jobs), verdict)
            await jobs.add([spec("queued"), spec("delayed", delay=LONG), spec("running", priority=9)])
            assert len(await look(jobs, most=1)) == 1
            assert await jobs.sweep(Q) == 0
            await harness.advance(5 * tick)
            assert await jobs.sweep(Q) == 1
            assert await _left(jobs) == [1, 2, 3]
            await harness.advance(8 * tick)
            assert await jobs.sweep(Q) == 3
            assert await _left(jobs) == []
            stats = await jobs.stats(Q)
            assert (stats.queued, stats.delayed, stats.running) == (1, 1, 1)

    async def test_by_count(self, harness: JobHarness) -> None:
        async with harness.open(keep_most=3) as jobs:
            await jobs.add([spec(number) for number in range(10)])
            for _ in range(8):
                assert await settle(jobs, await one(jobs))
                await harness.advance(harness.tick / 10)
            assert await jobs.sweep(Q) == 5
            assert await _left(jobs) == [5, 6, 7]
            assert await jobs.sweep(Q) == 0
            assert await drained(jobs) == [8, 9]

    async def test_by_count_succeeded_ones_leave_first(self, harness: JobHarness) -> None:
        async with harness.open(keep_most=3) as jobs:
            verdicts = [Verdict.FAILED, Verdict.CANCELLED, Verdict.SUCCEEDED, Verdict.EXPIRED, Verdict.SUCCEEDED]
            await self._ended(jobs, harness, verdicts)
            assert await jobs.sweep(Q) == 2
            assert await _left(jobs) == [0, 1, 3]
            await self._ended(jobs, harness, [Verdict.FAILED, Verdict.SUCCEEDED], first=5)
            assert await jobs.sweep(Q) == 2
            assert await _left(jobs) == [1, 3, 5]

    async def _ended(self, jobs: Jobs, harness: JobHarness, verdicts: Sequence[Verdict], *, first: int = 0) -> None:
        for number, verdict in enumerate(verdicts, first):
            await add(jobs, number)
            assert await settle(jobs, await one(jobs), verdict)
            await harness.advance(harness.tick / 10)

    @pytest.mark.parametrize("way", ["count", "age"])
    async def test_what_the_job_after_it_may_want_stays(self, harness: JobHarness, way: str) -> None:
        keep = {"keep_most": 1} if way == "count" else {"keep_succeeded": harness.tick}
        async with harness.open(**keep) as jobs:
            ticket = await add(jobs, "parent", queue="parents", after=[spec(number) for number in range(3)])
            for left in (2, 1, 0):
                assert await settle(jobs, await one(jobs))
                await harness.advance(2 * harness.tick)
                assert await jobs.sweep(Q) == 0
                assert (await jobs.get(ticket.id, queue="parents")).pending == left
            held = await one(jobs, "parents")
            assert await jobs.sweep(Q) == 0
            assert len(await jobs.children(ticket.id, queue="parents")) == 3
            assert await settle(jobs, held)
            assert await jobs.sweep(Q) == (2 if way == "count" else 3)

    async def test_none_at_all(self, harness: JobHarness) -> None:
        async with harness.open(keep_most=0) as jobs:
            await jobs.add([spec(number) for number in range(1200)])
            while held := await look(jobs):
                for each in held:
                    assert await settle(jobs, each)
            assert await jobs.sweep(Q) == 1200
            assert await jobs.list_jobs(queue=Q) == []

    async def test_what_runs_again_is_old_only_when_it_has_ended_again(self, harness: JobHarness) -> None:
        tick = harness.tick
        async with harness.open(keep_others=6 * tick) as jobs:
            ticket = await add(jobs, 1)
            await settle(jobs, await one(jobs), Verdict.FAILED)
            await harness.advance(5 * tick)
            assert await jobs.rerun(ticket.id, queue=Q)
            await harness.advance(2 * tick)
            assert await jobs.sweep(Q) == 0
            await settle(jobs, await one(jobs), Verdict.FAILED)
            assert await jobs.sweep(Q) == 0
            await harness.advance(7 * tick)
            assert await jobs.sweep(Q) == 1

    async def test_a_forgotten_job_leaves_nothing(self, harness: JobHarness) -> None:
        async with harness.open(keep_most=0) as jobs:
            await add(jobs, 1, id="a", unique="k", unique_for=LONG)
            await jobs.report("a", queue=Q, progress=1, lines=["line"])
            await settle(jobs, await one(jobs))
            assert await jobs.sweep(Q) == 1
            assert await jobs.logs("a", queue=Q) == []
            assert not (await add(jobs, 2, id="a")).duplicate
            assert (await jobs.get("a", queue=Q)).progress is None
            assert await jobs.logs("a", queue=Q) == []

    async def test_workers_sweep_by_themselves(self, harness: JobHarness) -> None:
        harness.flow()
        async with harness.open(keep_most=1, sweep_every=0.05) as jobs:

            @jobs.task(queue=Q)
            async def work(_: int) -> None:
                pass

            async with jobs.working():
                for number in range(5):
                    await jobs.enqueue(work, number)

                async def few() -> bool:
                    stats = await jobs.stats(Q)
                    return (stats.queued, stats.running, stats.succeeded) == (0, 0, 1)

                await eventually(few, timeout=PATIENCE)
            assert [job.state for job in await jobs.list_jobs(queue=Q)] == [State.SUCCEEDED]
