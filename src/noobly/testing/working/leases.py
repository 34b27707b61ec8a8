"""Leases: a worker that lives keeps its jobs, whatever its handlers do."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from noobly.testing import job_handlers
from noobly.testing.clock import eventually
from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import PATIENCE, Theme, recorded, running
from noobly.working import Jobs, events

_LEASE = 2.0


class LeasesTheme(Theme):
    """A job runs once, as long as its worker lives."""

    async def _once(self, jobs: Jobs, task: str, seconds: float) -> None:
        """Run a job while another worker waits for it to be lost."""
        async with running(jobs.work(concurrency=1, name="one")), running(jobs.work(concurrency=1, name="other")):
            handle = await jobs.enqueue(task, seconds)
            await handle.result(PATIENCE)
            job = await handle.job()
        assert (job.attempts, job.stalls) == (1, 0)

    async def test_a_handler_that_outlives_its_lease(self, harness: JobHarness) -> None:
        harness.flow()
        calls: list[float] = []
        async with harness.open(lease=_LEASE) as jobs:

            @jobs.task()
            async def slow(seconds: float) -> None:
                calls.append(seconds)
                await asyncio.sleep(seconds)

            await self._once(jobs, "slow", 2.5 * _LEASE)
        assert len(calls) == 1

    async def test_a_handler_that_holds_the_loop(self, harness: JobHarness, caplog: pytest.LogCaptureFixture) -> None:
        harness.flow()
        async with harness.open(lease=_LEASE) as jobs:
            blocked = recorded(jobs, events.Blocked)

            @jobs.task()
            async def rude(seconds: float) -> None:
                time.sleep(seconds)  # noqa: ASYNC251 - this is what it is about

            with caplog.at_level(logging.WARNING, "noobly.working"):
                if harness.apart:
                    await self._once(jobs, "rude", 2 * _LEASE)
                else:
                    async with jobs.working():
                        await (await jobs.enqueue(rude, 1.6)).result(PATIENCE)
                await eventually(lambda: blocked, timeout=PATIENCE)
        assert "'rude'" in caplog.text
        assert blocked[0].task == "rude"
        assert blocked[0].seconds >= 1

    async def test_a_handler_that_uses_a_processor(self, harness: JobHarness) -> None:
        harness.flow()
        async with harness.open(lease=_LEASE) as jobs:
            jobs.tasks.include(job_handlers.tasks)
            await self._once(jobs, "busy", 1.5 * _LEASE)

    async def test_a_job_whose_workers_vanish_fails_in_the_end(self, harness: JobHarness) -> None:
        harness.flow()
        async with harness.open(max_stalls=1) as jobs:
            calls: list[int] = []

            @jobs.task()
            async def killer(_: None) -> None:
                calls.append(1)

            handle = await jobs.enqueue(killer)
            for _ in range(2):
                await eventually(lambda: jobs.claim("default", "vanishing", lease=harness.tick), timeout=PATIENCE)
            async with jobs.working():
                job = await handle.wait(PATIENCE)
        assert (job.state.value, job.stalls, calls) == ("failed", 2, [])
        assert "2 times" in job.error
