"""Lifecycle: crowds, cancellation in the middle, closing, opening again, servers that come back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from noobly.core.errors import Closed, NooblyError, Unavailable
from noobly.core.events import OperationFinished
from noobly.testing.clock import eventually
from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import (
    LONG,
    PATIENCE,
    LiveTheme,
    Pair,
    Q,
    Theme,
    add,
    drained,
    holds,
    look,
    one,
    recorded,
    running,
    settle,
    settled,
    spec,
)
from noobly.working import Jobs, State, Verdict, events
from noobly.working.driver import Hold
from noobly.working.records import Held

_CALLS: tuple[Callable[[Jobs], Awaitable[object]], ...] = (
    lambda jobs: jobs.add([spec(1)]),
    lambda jobs: jobs.enqueue("task"),
    lambda jobs: jobs.get("id", queue=Q),
    lambda jobs: jobs.wait("id", queue=Q),
    lambda jobs: jobs.list_jobs(queue=Q),
    lambda jobs: jobs.children("id", queue=Q),
    lambda jobs: jobs.logs("id", queue=Q),
    lambda jobs: jobs.stats(Q),
    lambda jobs: jobs.queues(),
    lambda jobs: jobs.cancel("id", queue=Q),
    lambda jobs: jobs.rerun("id", queue=Q),
    lambda jobs: jobs.remove("id", queue=Q),
    lambda jobs: jobs.claim(Q, "worker"),
    lambda jobs: jobs.claim(Q, "worker", wait=2),
    lambda jobs: jobs.beat(Q, [Hold("id", "token")]),
    lambda jobs: jobs.settle(Q, []),
    lambda jobs: jobs.report("id", queue=Q, progress=1),
    lambda jobs: jobs.sweep(Q),
    lambda jobs: jobs.batch([spec(1)], "task"),
    lambda jobs: jobs.handle("id").result(5),
)


class LifecycleTheme(Theme):
    """Nothing is lost, and nothing runs twice, whatever callers do."""

    async def test_a_hundred_tasks_at_once(self, jobs: Jobs) -> None:
        await self._crowd((jobs,))

    async def test_two_clients_at_once(self, pair: Pair) -> None:
        await self._crowd(pair)

    async def _crowd(self, clients: tuple[Jobs, ...]) -> None:
        found: list[int] = []

        async def produce(number: int) -> None:
            for turn in range(6):
                await add(clients[number % len(clients)], number * 10 + turn)

        async def consume(number: int) -> None:
            client = clients[number // 2 % len(clients)]
            while len(found) < 300:
                held = await client.claim(Q, f"worker {number}", max=3, wait=0.5, lease=LONG)
                found.extend(each.job.args for each in held)
                assert all(await client.settle(Q, [settled(each, result=each.job.args) for each in held]))

        async with asyncio.timeout(3 * PATIENCE):
            await asyncio.gather(*map(produce, range(50)), *map(consume, range(50)))
        assert sorted(found) == sorted(number * 10 + turn for number in range(50) for turn in range(6))
        stats = await clients[0].stats(Q)
        assert (stats.queued, stats.running, stats.succeeded) == (0, 0, 300)

    async def test_cancelled_calls_lose_nothing(self, harness: JobHarness) -> None:
        chance = random.Random(11)
        async with harness.open() as jobs:
            added: set[str] = set()
            done: set[str] = set()

            async def work(number: int) -> None:
                for turn in range(5):
                    await add(jobs, f"{number} {turn}")
                    added.add(f"{number} {turn}")
                    await asyncio.sleep(0)
                    held = await jobs.claim(Q, "worker", max=2, wait=0.01, lease=4 * harness.tick)
                    good = await jobs.settle(Q, [settled(each) for each in held])
                    done.update(each.job.args for each, stood in zip(held, good, strict=True) if stood)

            tasks = [asyncio.create_task(work(number)) for number in range(60)]
            for step in range(120):
                await asyncio.sleep(0)
                if step % 2:
                    chance.choice(tasks).cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(each is None or isinstance(each, asyncio.CancelledError) for each in ended)
            assert any(isinstance(each, asyncio.CancelledError) for each in ended)

            async def quiet() -> bool:
                done.update(await drained(jobs))
                return (await jobs.stats(Q)).running == 0

            assert await holds(harness, quiet, ticks=6)
            missing = added - done
            # A settlement whose caller was cancelled may be done without anybody having counted it.
            assert len(missing) <= 2 * len([each for each in ended if each is not None])
            stats = await jobs.stats(Q)
            assert stats.queued == 0
            assert stats.succeeded >= len(added)

    async def test_a_cancelled_claim_gives_back_what_it_brought(self, jobs: Jobs, harness: JobHarness) -> None:
        if not harness.direct:
            pytest.skip("an answer that nobody waits for any more is lost on its way")
        chance = random.Random(11)
        await jobs.add([spec(number) for number in range(5)])
        for _ in range(100):
            claiming = asyncio.create_task(jobs.claim(Q, "worker", max=2, wait=0.5, lease=LONG))
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
            claiming.cancel()
            (found,) = await asyncio.gather(claiming, return_exceptions=True)
            if isinstance(found, list):
                await jobs.settle(Q, [settled(each, Verdict.RELEASE) for each in found])
        held: list[Held] = []

        async def all_there() -> bool:
            held.extend(await look(jobs))
            return len(held) == 5

        await eventually(all_there, timeout=PATIENCE)
        counted = sorted((each.job.args, each.job.attempts, each.job.stalls) for each in held)
        assert counted == [(number, 1, 0) for number in range(5)]

    async def test_closed_jobs_refuse_every_call(self, harness: JobHarness) -> None:
        async with harness.open() as jobs:
            await add(jobs)
        for call in _CALLS:
            with pytest.raises(Closed):
                await call(jobs)

    async def test_closing_twice_does_no_harm(self, harness: JobHarness) -> None:
        async with harness.open() as jobs:
            await jobs.close()

    async def test_closing_while_somebody_waits(self, harness: JobHarness) -> None:
        async with harness.open() as jobs:
            task = asyncio.create_task(jobs.claim(Q, "worker", wait=2, lease=LONG))
            await harness.elapse(2 * harness.tick)
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.done()
        assert task.cancelled() or task.exception() is not None or task.result() == []

    async def test_what_was_added_is_there_again(self, harness: JobHarness) -> None:
        if not harness.durable:
            pytest.skip("nothing outlives closing")
        async with harness.open() as jobs:
            await jobs.add([spec(number, priority=number % 3) for number in range(6)])
            held = await one(jobs)
            failed = await one(jobs)
            await settle(jobs, failed, Verdict.FAILED, error="bad")
            await jobs.report(held.job.id, queue=Q, progress=5, lines=["line"])
            parent = await add(jobs, "parent", queue="other", after=[spec("child", queue="other")])
            await add(jobs, "late", delay=LONG, id="late", unique="k")
        async with harness.open() as jobs:
            stats = await jobs.stats(Q)
            assert (stats.queued, stats.running, stats.failed, stats.delayed) == (4, 1, 1, 1)
            assert await jobs.queues() == ["other", Q]
            assert (await jobs.get(held.job.id, queue=Q)).progress == 5
            assert await jobs.logs(held.job.id, queue=Q) == ["line"]
            assert (await jobs.get(failed.job.id, queue=Q)).error == "bad"
            assert await settle(jobs, held, result="kept")
            assert (await jobs.get(held.job.id, queue=Q)).result == "kept"
            assert (await add(jobs, unique="k")).id == "late"
            assert await drained(jobs) == [1, 4, 0, 3]
            assert (await jobs.get(parent.id, queue="other")).pending == 1
            assert await drained(jobs, "other") == ["child", "parent"]

    async def test_every_call_is_counted(self, jobs: Jobs) -> None:
        done = recorded(jobs, OperationFinished)
        await add(jobs)
        await settle(jobs, await one(jobs))
        assert {each.outcome for each in done} == {"ok"}
        assert len(done) >= 3

    async def test_what_is_added_is_told(self, jobs: Jobs, harness: JobHarness) -> None:
        if not harness.direct:
            pytest.skip("events stay where the store is")
        seen = recorded(jobs, events.Enqueued)
        ticket = await add(jobs, "secret", id="a", after=[spec(1, task="child", queue="other")])
        await add(jobs, id="a")
        assert [(each.queue, each.task) for each in seen] == [("other", "child"), (Q, "task")]
        assert seen[1].job == ticket.id
        assert "secret" not in repr(seen)

    async def test_a_server_that_cannot_be_reached(self, harness: JobHarness) -> None:
        if not harness.restartable:
            pytest.skip("there is no server of our own to stop")
        async with harness.open(timeout=1.0, attempts=2) as jobs:
            await add(jobs)
            await harness.stop()
            for call in (add(jobs), look(jobs), jobs.stats(Q), jobs.get("id", queue=Q)):
                with pytest.raises(NooblyError) as failure:
                    await call
                assert failure.value.temporary
            with pytest.raises(Unavailable):
                await jobs.stats(Q)
            await harness.restart()


class CrowdTheme(LiveTheme):
    """Workers in a crowd run each job once."""

    async def test_two_workers_share_five_hundred_jobs(self, live: Jobs) -> None:
        await self._shared((live, live))

    async def test_two_workers_on_two_clients(self, live_pair: Pair) -> None:
        await self._shared(live_pair)

    async def _shared(self, clients: tuple[Jobs, Jobs]) -> None:
        calls: Counter[int] = Counter()

        async def work(number: int) -> int:
            calls[number] += 1
            await asyncio.sleep(0)
            return number

        for jobs in dict.fromkeys(clients):
            jobs.task()(work)
        here, there = clients
        async with running(here.work(concurrency=8, name="one")), running(there.work(concurrency=8, name="other")):
            tickets = await here.add([here.spec("work", number) for number in range(250)])
            handles = await asyncio.gather(*(there.enqueue("work", number) for number in range(250, 500)))
            ids = [*(each.id for each in tickets), *(each.id for each in handles)]
            for number, id in enumerate(ids):
                assert await here.handle(id).result(PATIENCE) == number
        assert calls == Counter(range(500))
        stats = await here.stats()
        assert (stats.succeeded, stats.queued, stats.running) == (500, 0, 0)
        assert {job.attempts for job in await here.list_jobs(max=1000)} == {1}

    async def test_closing_while_a_worker_runs(self, harness: JobHarness) -> None:
        async with harness.open() as live:
            begun = asyncio.Event()

            @live.task()
            async def work(_: None) -> None:
                begun.set()
                await asyncio.Event().wait()

            await live.enqueue(work)
            working = asyncio.create_task(live.work(grace=0))
            await asyncio.wait_for(begun.wait(), PATIENCE)
        await asyncio.wait([working], timeout=PATIENCE)
        assert working.done()
        with suppress(asyncio.CancelledError, NooblyError, BaseExceptionGroup):
            await working

    async def test_a_body_that_fails_ends_its_worker_and_raises_its_own_error(self, live: Jobs) -> None:
        @live.task()
        async def work(_: None) -> None:
            pass

        with pytest.raises(KeyError, match="body"):
            async with live.working():
                raise KeyError("body")
        handle = await live.enqueue(work)
        assert await handle.status() is State.QUEUED
