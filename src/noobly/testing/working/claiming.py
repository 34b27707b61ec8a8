"""Claiming: who is next, under a lease that ends, with a token that counts once, and without delay."""

from __future__ import annotations

import asyncio
import time

import pytest

from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import (
    LONG,
    Pair,
    Q,
    Theme,
    add,
    comes,
    drained,
    holds,
    look,
    one,
    settle,
    settled,
    spec,
    state,
)
from noobly.working import Can, Jobs, State, Verdict
from noobly.working.driver import Beat, Hold
from noobly.working.records import Held

_SOON = 1.5
"""Seconds within which a claim must wake that would wait for 2; it takes a hundredth."""


def _hold(held: Held) -> Hold:
    return Hold(held.job.id, held.token)


class ClaimingTheme(Theme):
    """A job is handed out to one worker at a time."""

    async def test_first_in_first_out(self, jobs: Jobs) -> None:
        for number in range(30):
            await add(jobs, number)
        held = await look(jobs, most=10)
        assert [each.job.args for each in held] == list(range(10))
        assert await drained(jobs) == list(range(10, 30))

    async def test_so_it_is_for_those_added_together(self, jobs: Jobs) -> None:
        await jobs.add([spec(number) for number in range(30)])
        assert [each.job.args for each in await look(jobs)] == list(range(30))

    async def test_by_priority_then_in_turn(self, jobs: Jobs) -> None:
        await jobs.add([spec([priority, turn], priority=priority) for turn in range(3) for priority in range(10)])
        expected = [[priority, turn] for priority in reversed(range(10)) for turn in range(3)]
        assert [each.job.args for each in await look(jobs, most=7)] == expected[:7]
        assert await drained(jobs) == expected[7:]

    async def test_a_priority_outlives_a_delay_and_a_retry(self, jobs: Jobs, harness: JobHarness) -> None:
        await jobs.add([spec("low"), spec("high", priority=9, delay=2 * harness.tick)])
        assert (await look(jobs))[0].job.args == "low"
        await jobs.add([spec("low again"), spec("middle", priority=5)])
        await harness.advance(3 * harness.tick)
        held = await one(jobs)
        assert held.job.args == "high"
        await settle(jobs, held, Verdict.RELEASE)
        assert await drained(jobs) == ["high", "middle", "low again"]

    async def test_what_a_claim_says(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs, {"a": 1}, retries=2, backoff=3.0, backoff_cap=50.0, timeout=7.0, priority=4)
        before = harness.now()
        held = (await jobs.claim(Q, "host:1", lease=LONG))[0]
        assert (held.job.id, held.job.args, held.job.state) == (ticket.id, {"a": 1}, State.RUNNING)
        assert (held.job.attempts, held.job.max_attempts, held.job.stalls) == (1, 3, 0)
        assert (held.job.timeout, held.job.priority, held.job.worker) == (7.0, 4, "host:1")
        assert before - 5 <= held.job.started_at <= harness.now() + 5
        assert (held.retrying.attempts, held.retrying.base, held.retrying.cap) == (3, 3.0, 50.0)
        assert held.fence >= 1
        assert held.token
        job = await jobs.get(ticket.id, queue=Q)
        assert (job.state, job.worker, job.attempts) == (State.RUNNING, "host:1", 1)

    async def test_nothing_to_claim(self, jobs: Jobs) -> None:
        assert await look(jobs, "nobody has added to this") == []
        assert await jobs.queues() == []
        await add(jobs)
        assert len(await look(jobs)) == 1
        assert await look(jobs) == []

    async def test_a_lease_that_ends(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs)
        first = await one(jobs, lease=3 * harness.tick)
        second = await comes(harness, jobs, ticks=4)
        assert (second.job.id, second.job.attempts, second.job.stalls) == (ticket.id, 1, 1)
        assert second.fence > first.fence
        assert second.token != first.token
        assert await settle(jobs, second)
        assert await state(jobs, ticket.id) is State.SUCCEEDED

    async def test_the_token_of_an_old_claim_counts_no_more(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs)
        first = await one(jobs, lease=3 * harness.tick)
        second = await comes(harness, jobs, ticks=4)
        for verdict in Verdict:
            assert not await settle(jobs, first, verdict, result="old", error="old")
        assert await jobs.beat(Q, [_hold(first), _hold(second)], LONG) == [Beat.LOST, Beat.KEPT]
        job = await jobs.get(ticket.id, queue=Q)
        assert (job.state, job.result, job.error) == (State.RUNNING, None, "")
        stats = await jobs.stats(Q)
        assert (stats.running, stats.retrying, stats.cancelled, stats.expired, stats.failed) == (1, 0, 0, 0, 0)
        assert await settle(jobs, second, result="new")
        assert not await settle(jobs, second, result="newer")
        assert (await jobs.get(ticket.id, queue=Q)).result == "new"

    async def test_nor_does_that_of_a_job_nobody_has_claimed_since(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs)
        held = await one(jobs, lease=2 * harness.tick)

        async def lost() -> bool:
            return await jobs.beat(Q, [_hold(held)], harness.tick / 50) == [Beat.LOST]

        assert await holds(harness, lost, ticks=3)
        assert not await settle(jobs, held, result=1)
        assert (await jobs.get(ticket.id, queue=Q)).result is None

    @pytest.mark.parametrize("token", ["", "x", "1", "7.7", "9" * 400, "x" * 1000, "naïve 鍵"], ids=lambda it: it[:8])
    async def test_a_token_that_is_none(self, jobs: Jobs, token: str) -> None:
        ticket = await add(jobs)
        await one(jobs)
        assert await jobs.beat(Q, [Hold(ticket.id, token), Hold("nobody", token)], LONG) == [Beat.LOST, Beat.LOST]
        assert not await settle(jobs, (await self._forged(jobs, ticket.id, token)))
        assert await state(jobs, ticket.id) is State.RUNNING

    async def _forged(self, jobs: Jobs, id: str, token: str) -> Held:
        job = await jobs.get(id, queue=Q)
        await add(jobs, queue="other")
        real = await one(jobs, "other")
        return Held(job=job, retrying=real.retrying, token=token, fence=1)

    async def test_stalls_and_fences_grow(self, jobs: Jobs, harness: JobHarness) -> None:
        await add(jobs)
        held = await one(jobs, lease=2 * harness.tick)
        again = [await comes(harness, jobs, ticks=3, lease=2 * harness.tick) for _ in range(3)]
        seen = [held, *again]
        assert [each.job.stalls for each in seen] == [0, 1, 2, 3]
        assert {each.job.attempts for each in seen} == {1}
        fences = [each.fence for each in seen]
        assert fences == sorted(set(fences))

    async def test_beats_keep_a_claim(self, jobs: Jobs, harness: JobHarness) -> None:
        await add(jobs)
        held = await one(jobs, lease=4 * harness.tick)
        for _ in range(5):
            await harness.advance(2 * harness.tick)
            assert await jobs.beat(Q, [_hold(held)], 4 * harness.tick) == [Beat.KEPT]
            assert await look(jobs) == []
        again = await comes(harness, jobs, ticks=5)
        assert again.job.stalls == 1

    async def test_beats_of_many(self, jobs: Jobs) -> None:
        await jobs.add([spec(number) for number in range(4)])
        held = await look(jobs)
        await settle(jobs, held[1])
        await jobs.cancel(held[2].job.id, queue=Q)
        answers = await jobs.beat(Q, [*map(_hold, held), Hold("nobody", held[0].token)], LONG)
        assert answers == [Beat.KEPT, Beat.LOST, Beat.CANCELLED, Beat.KEPT, Beat.LOST]
        assert await jobs.beat(Q, [], LONG) == []
        assert await jobs.beat("nothing", [_hold(held[0])], LONG) == [Beat.LOST]

    async def test_a_waiting_claim_wakes_for_an_add(self, jobs: Jobs) -> None:
        await self._wakes(jobs, jobs)

    async def test_also_for_that_of_another_client(self, pair: Pair) -> None:
        await self._wakes(*pair)

    async def _wakes(self, here: Jobs, there: Jobs) -> None:
        """Let a claim begin to wait before a job is added; the best of some tries is what the store does."""
        took = []
        for _ in range(5):
            waiting = asyncio.create_task(here.claim(Q, "worker", wait=2, lease=LONG))
            await asyncio.wait([waiting], timeout=0.1)
            began = time.perf_counter()
            await add(there)
            held = await waiting or await look(here)
            took.append(time.perf_counter() - began)
            assert await settle(here, held[0])
            if took[-1] < _SOON:
                return
        raise AssertionError(f"a claim woke only after {took} s")

    async def test_each_waiting_claim_gets_its_job(self, jobs: Jobs) -> None:
        waiting = [asyncio.create_task(one(jobs)) for _ in range(5)]
        await asyncio.wait(waiting, timeout=0.1)
        await jobs.add([spec(number) for number in range(5)])
        assert sorted([(await each).job.args for each in waiting]) == list(range(5))

    async def test_a_waiting_claim_wakes_for_a_release(self, jobs: Jobs) -> None:
        await add(jobs)
        held = await one(jobs)
        waiting = asyncio.create_task(one(jobs))
        await asyncio.wait([waiting], timeout=0.1)
        assert await settle(jobs, held, Verdict.RELEASE)
        assert (await waiting).job.id == held.job.id

    async def test_a_claim_waits_for_the_end_of_a_delay(self, harness: JobHarness) -> None:
        harness.flow()
        async with harness.open() as jobs:
            await add(jobs, delay=0.4)
            held = await one(jobs)
            assert held.job.started_at >= held.job.run_at - 0.01

    async def test_a_cancelled_claim_holds_nothing(self, jobs: Jobs) -> None:
        waiting = asyncio.create_task(jobs.claim(Q, "worker", wait=2, lease=LONG))
        await asyncio.wait([waiting], timeout=0.1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await add(jobs, 1)
        assert (await one(jobs)).job.args == 1

    async def test_a_paused_queue_hands_out_nothing(self, jobs: Jobs, harness: JobHarness) -> None:
        if Can.PAUSE not in harness.capabilities:
            pytest.skip("the provider does not claim pause")
        await jobs.add([spec(1), spec(2)])
        held = (await look(jobs, most=1))[0]
        await jobs.pause(Q)
        assert (await jobs.stats(Q)).paused
        await add(jobs, 3, priority=9)
        assert await look(jobs) == []
        await add(jobs, 4, queue="other")
        assert await drained(jobs, "other") == [4]
        assert await settle(jobs, held)
        await jobs.pause(Q)
        waiting = asyncio.create_task(one(jobs))
        await asyncio.wait([waiting], timeout=0.1)
        await jobs.resume(Q)
        assert (await waiting).job.args == 3
        assert not (await jobs.stats(Q)).paused
        assert await drained(jobs) == [2]

    async def test_a_pause_before_anything_is_added(self, jobs: Jobs, harness: JobHarness) -> None:
        if Can.PAUSE not in harness.capabilities:
            pytest.skip("the provider does not claim pause")
        await jobs.pause(Q)
        await add(jobs, 1)
        assert await look(jobs) == []
        assert (await jobs.stats(Q)).queued == 1
        await jobs.resume(Q)
        assert await drained(jobs) == [1]

    async def test_two_clients_share_what_there_is(self, pair: Pair) -> None:
        await pair[0].add([spec(number) for number in range(100)])
        found: list[int] = []

        async def work(jobs: Jobs) -> None:
            while held := await look(jobs, most=3):
                found.extend(each.job.args for each in held)
                assert all(await jobs.settle(Q, [settled(each) for each in held]))

        await asyncio.gather(*(work(jobs) for jobs in (*pair, *pair)))
        assert sorted(found) == list(range(100))
