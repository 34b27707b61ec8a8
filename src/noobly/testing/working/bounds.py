"""Bounds: how fast a queue is worked on, by all workers together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import PATIENCE, Pair, Q, Theme, add, holds, look, settle, settled, spec
from noobly.working import Bounds, Jobs, State, Verdict

_JOBS = 12
_RATE = Bounds(starts=4, period=1.0)
_SHORTEST = (_JOBS - _RATE.starts) * _RATE.period / _RATE.starts
_LONGEST = _SHORTEST + 0.6
_ROUNDS = 3
"""A loaded machine may be late, but never early; so the best of some rounds is what the store does."""


class BoundsTheme(Theme):
    """No worker begins more than all together may."""

    async def test_a_rate_on_one_worker(self, harness: JobHarness) -> None:
        harness.flow()
        async with harness.open() as jobs:
            await self._timed([jobs])

    async def test_a_rate_on_two_workers(self, harness: JobHarness) -> None:
        if not harness.shared:
            pytest.skip("two instances of this provider share nothing")
        harness.flow()
        async with harness.open() as one, harness.open() as other:
            await self._timed([one, other])

    async def _timed(self, clients: Sequence[Jobs]) -> None:
        took = []
        for number in range(_ROUNDS):
            queue = f"round {number}"
            await clients[0].add([spec(queue=queue) for _ in range(_JOBS)])
            began = await self._begun(clients, queue)
            took.append(began[-1] - began[0])
            assert took[-1] >= _SHORTEST - 0.02
            for place, time in enumerate(began):
                assert time - began[0] >= (place - _RATE.starts + 1) * _RATE.period / _RATE.starts - 0.02
            if took[-1] <= _LONGEST:
                return
        raise AssertionError(f"{_JOBS} jobs at {_RATE.starts}/s took {took} s")

    async def _begun(self, clients: Sequence[Jobs], queue: str) -> list[float]:
        """Work until all jobs have begun; return when they did, by the store."""
        began: list[float] = []

        async def work(jobs: Jobs) -> None:
            while len(began) < _JOBS:
                held = await jobs.claim(queue, "worker", max=5, wait=1, lease=60, bounds=_RATE)
                began.extend(each.job.started_at for each in held)
                await jobs.settle(queue, [settled(each) for each in held])

        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*map(work, clients))
        return sorted(began)

    async def test_a_rate_to_the_job(self, jobs: Jobs, harness: JobHarness) -> None:
        if harness.real_time:
            pytest.skip("the store has a clock of its own")
        await jobs.add([spec(number) for number in range(30)])
        bounds = Bounds(starts=5, period=10.0)
        begun = []
        for seconds in (0, 0, 1.9, 0.1, 2, 1, 1, 6, 100):
            await harness.advance(seconds)
            begun.append(len(await look(jobs, bounds=bounds)))
        assert begun == [5, 0, 0, 1, 1, 0, 1, 3, 5]

    async def test_a_rate_counts_for_its_queue_alone(self, jobs: Jobs) -> None:
        bounds = Bounds(starts=1, period=600.0)
        for queue in ("one", "other"):
            await jobs.add([spec(queue=queue) for _ in range(3)])
            assert len(await look(jobs, queue, bounds=bounds)) == 1
            assert await look(jobs, queue, bounds=bounds) == []

    async def test_nothing_to_do_costs_nothing_of_the_rate(self, jobs: Jobs) -> None:
        bounds = Bounds(starts=3, period=600.0)
        await add(jobs)
        for _ in range(10):
            await look(jobs, bounds=bounds)
        await jobs.add([spec(number) for number in range(5)])
        assert len(await look(jobs, bounds=bounds)) == 2
        assert await look(jobs, bounds=bounds) == []

    async def test_so_many_run_at_once(self, jobs: Jobs) -> None:
        bounds = Bounds(running=2)
        await jobs.add([spec(number) for number in range(5)])
        held = await look(jobs, bounds=bounds)
        assert len(held) == 2
        assert await look(jobs, bounds=bounds) == []
        assert await settle(jobs, held[0])
        (third,) = await look(jobs, bounds=bounds)
        assert await settle(jobs, held[1], Verdict.RETRY, delay=600)
        assert await settle(jobs, third, Verdict.RELEASE)
        assert len(await look(jobs, bounds=bounds)) == 2
        assert (await jobs.stats(Q)).running == 2

    async def test_so_many_at_once_on_two_workers(self, pair: Pair) -> None:
        bounds = Bounds(running=3)
        await pair[0].add([spec(number) for number in range(30)])
        most = done = 0

        async def work(jobs: Jobs) -> None:
            nonlocal most, done
            while done < 30:
                held = await jobs.claim(Q, "worker", max=5, wait=1, lease=60, bounds=bounds)
                stats = await jobs.stats(Q)
                stood = await jobs.settle(Q, [settled(each) for each in held])
                most, done = max(most, stats.running), done + sum(stood)

        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(work(jobs) for jobs in (*pair, *pair)))
        assert most <= 3
        assert (await pair[0].stats(Q)).succeeded == 30

    async def test_a_place_is_free_again_when_a_lease_ends(self, jobs: Jobs, harness: JobHarness) -> None:
        bounds = Bounds(running=1)
        await jobs.add([spec(1), spec(2)])
        await look(jobs, bounds=bounds, lease=2 * harness.tick)
        assert await look(jobs, bounds=bounds) == []
        assert await holds(harness, lambda: look(jobs, bounds=bounds), ticks=3)
        assert (await jobs.list_jobs(queue=Q, states=[State.RUNNING]))[0].stalls == 1
