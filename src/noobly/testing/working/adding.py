"""Adding: a job is kept as it was added, under any name, once for each id and key, alone or many at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
import pytest

from noobly.core.errors import InvalidArgument, NotFound, TooLarge
from noobly.testing.awkward import NAMES, VALUES
from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import (
    LONG,
    Pair,
    Q,
    Theme,
    add,
    comes,
    drained,
    look,
    one,
    settle,
    settled,
    spec,
    state,
)
from noobly.working import Jobs, State, Verdict


class Order(msgspec.Struct):
    """A struct to be carried."""

    number: int
    lines: list[str]


@dataclass
class Point:
    """A dataclass to be carried."""

    x: int
    y: float


class AddingTheme(Theme):
    """A job is kept as it was added."""

    @pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:24])
    async def test_an_argument_keeps_value_and_type(self, jobs: Jobs, value: object) -> None:
        ticket = await add(jobs, value)
        for job in (await jobs.get(ticket.id, queue=Q), (await one(jobs)).job):
            assert job.args == value
            assert type(job.args) is type(value)

    @pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:24])
    async def test_so_do_results_and_progress(self, jobs: Jobs, value: object) -> None:
        ticket = await add(jobs)
        held = await one(jobs)
        assert await jobs.report(ticket.id, queue=Q, progress=value)
        assert await settle(jobs, held, result=value)
        job = await jobs.get(ticket.id, queue=Q)
        for found in (job.progress, job.result):
            assert found == value
            assert type(found) is type(value)

    async def test_structs_and_dataclasses(self, jobs: Jobs) -> None:
        for given, kept in ((Order(5, ["tea"]), {"number": 5, "lines": ["tea"]}), (Point(1, 2.5), {"x": 1, "y": 2.5})):
            await add(jobs, given)
            held = await one(jobs)
            assert held.job.args == kept
            assert await settle(jobs, held, result=given)
            assert (await jobs.get(held.job.id, queue=Q)).result == kept

    async def test_what_a_fresh_job_says(self, jobs: Jobs, harness: JobHarness) -> None:
        before = harness.now()
        ticket = await add(jobs, {"a": 1}, priority=3, retries=4, timeout=5.0, expires=LONG)
        assert (ticket.queue, ticket.duplicate) == (Q, False)
        job = await jobs.get(ticket.id, queue=Q)
        assert (job.id, job.queue, job.task, job.args) == (ticket.id, Q, "task", {"a": 1})
        assert (job.state, job.priority, job.timeout) == (State.QUEUED, 3, 5.0)
        assert (job.attempts, job.max_attempts, job.stalls, job.pending) == (0, 5, 0, 0)
        assert before - 5 <= job.created_at <= harness.now() + 5
        assert job.run_at == pytest.approx(job.created_at, abs=0.01)
        assert job.expires_at == pytest.approx(job.created_at + LONG, abs=0.01)
        assert (job.started_at, job.finished_at, job.worker) == (0.0, 0.0, "")
        assert (job.progress, job.result, job.error, job.cancelling) == (None, None, "", False)

    async def test_the_adder_keeps_no_hand_on_it(self, jobs: Jobs) -> None:
        mine = {"list": [1]}
        ticket = await add(jobs, mine)
        mine["list"].append(2)
        job = await jobs.get(ticket.id, queue=Q)
        assert job.args == {"list": [1]}
        job.args["list"].append(3)
        assert (await one(jobs)).job.args == {"list": [1]}

    async def test_big_and_empty_arguments(self, jobs: Jobs) -> None:
        values: tuple[object, ...] = ("", {}, "é" * (512 * 1024 - 1), list(range(100_000)))
        for value in values:
            await add(jobs, value)
            held = await one(jobs)
            assert held.job.args == value
            await settle(jobs, held, result=value)
            assert (await jobs.get(held.job.id, queue=Q)).result == value

    async def test_what_is_over_the_limit(self, harness: JobHarness) -> None:
        async with harness.open(data_bytes=1000) as jobs:
            with pytest.raises(TooLarge, match="1000"):
                await jobs.add([spec(1), spec("x" * 999)])
            assert await look(jobs) == []
            await add(jobs, "x" * 998)
            held = await one(jobs)
            with pytest.raises(TooLarge):
                await settle(jobs, held, result="x" * 999)
            with pytest.raises(TooLarge):
                await jobs.report(held.job.id, queue=Q, progress="x" * 999)
            assert await settle(jobs, held, result="x" * 998)

    @pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:24])
    async def test_any_text_names_a_queue_a_task_an_id_and_a_key(self, jobs: Jobs, name: str) -> None:
        assert await jobs.list_jobs(queue=name) == []
        ticket = await add(jobs, name, queue=name, task=name, id=name, unique=name)
        assert (ticket.id, ticket.queue, ticket.duplicate) == (name, name, False)
        assert await jobs.queues() == [name]
        assert (await add(jobs, queue=name, unique=name)).id == name
        held = await one(jobs, name)
        assert (held.job.id, held.job.queue, held.job.task, held.job.args) == (name, name, name, name)
        assert await jobs.report(name, queue=name, progress=name, lines=[name])
        assert await settle(jobs, held, Verdict.FAILED, error=name)
        job = await jobs.get(name, queue=name)
        assert (job.state, job.progress, job.error) == (State.FAILED, name, name)
        assert await jobs.logs(name, queue=name) == [name]
        assert await jobs.rerun(name, queue=name)
        assert await jobs.cancel(name, queue=name) is State.CANCELLED
        assert await jobs.remove(name, queue=name)
        with pytest.raises(NotFound):
            await jobs.get(name, queue=name)

    async def test_no_two_names_are_the_same(self, jobs: Jobs) -> None:
        await jobs.add([spec(number, queue=name) for number, name in enumerate(NAMES)])
        tickets = await jobs.add([spec(number, id=name, unique=name) for number, name in enumerate(NAMES)])
        assert [(each.id, each.duplicate) for each in tickets] == [(name, False) for name in NAMES]
        assert await jobs.queues() == sorted([*NAMES, Q])
        for number, name in enumerate(NAMES):
            assert await drained(jobs, name) == [number]
            assert (await jobs.get(name, queue=Q)).args == number

    async def test_ids_that_a_store_might_use_itself(self, jobs: Jobs) -> None:
        numbers, words = ("0", "1", "2", "007", "42"), ("wait", "active", "meta", "id", "events", "repeat", "pc")
        ids = [*numbers, *words, "noobly-rate", "%00", "%001", "%3A", "a:b:c", "repeat:a:1"]
        tickets = await jobs.add([spec(id, id=id) for id in ids])
        assert [(each.id, each.duplicate) for each in tickets] == [(id, False) for id in ids]
        assert (await jobs.stats(Q)).queued == len(ids)
        assert await drained(jobs) == ids
        assert [(await jobs.get(id, queue=Q)).args for id in ids] == ids
        assert [(await add(jobs, id=id)).duplicate for id in ids] == [True] * len(ids)
        assert [await jobs.remove(id, queue=Q) for id in ids] == [True] * len(ids)

    async def test_an_id_is_added_once(self, jobs: Jobs) -> None:
        assert not (await add(jobs, 1, id="a")).duplicate
        again = await add(jobs, 2, id="a")
        assert (again.id, again.duplicate) == ("a", True)
        assert not (await add(jobs, 3, id="a", queue="other")).duplicate
        held = await one(jobs)
        assert held.job.args == 1
        assert (await add(jobs, 4, id="a")).duplicate
        await settle(jobs, held)
        assert (await add(jobs, 5, id="a")).duplicate
        assert await look(jobs) == []
        assert await jobs.remove("a", queue=Q)
        assert not (await add(jobs, 6, id="a")).duplicate
        assert (await one(jobs)).job.args == 6

    async def test_an_id_of_a_forgotten_job_begins_anew(self, jobs: Jobs, harness: JobHarness) -> None:
        await add(jobs, 1, id="a")
        assert await jobs.remove("a", queue=Q)
        await add(jobs, 2, id="a", delay=6 * harness.tick)
        assert await look(jobs) == []
        await harness.advance(7 * harness.tick)
        assert await drained(jobs) == [2]

    async def test_an_id_twice_in_one_call(self, jobs: Jobs) -> None:
        tickets = await jobs.add([spec(1, id="a"), spec(2, id="a"), spec(3, unique="k"), spec(4, unique="k")])
        assert [each.duplicate for each in tickets] == [False, True, False, True]
        assert tickets[3].id == tickets[2].id
        assert await drained(jobs) == [1, 3]

    async def test_a_key_counts_until_its_job_has_ended(self, jobs: Jobs) -> None:
        first = await add(jobs, 1, unique="k")
        again = await add(jobs, 2, unique="k")
        assert (again.id, again.duplicate) == (first.id, True)
        assert not (await add(jobs, 3, unique="k", queue="other")).duplicate
        held = await one(jobs)
        assert (await add(jobs, 4, unique="k")).id == first.id
        await settle(jobs, held, Verdict.RETRY, delay=LONG)
        assert (await add(jobs, 5, unique="k")).id == first.id
        assert await jobs.cancel(first.id, queue=Q) is State.CANCELLED
        second = await add(jobs, 6, unique="k")
        assert not second.duplicate
        await settle(jobs, await one(jobs))
        assert not (await add(jobs, 7, unique="k")).duplicate

    async def test_what_runs_again_takes_its_key_again(self, jobs: Jobs) -> None:
        first = await add(jobs, 1, unique="k")
        await settle(jobs, await one(jobs), Verdict.FAILED)
        assert await jobs.rerun(first.id, queue=Q)
        assert (await add(jobs, 2, unique="k")).id == first.id
        await settle(jobs, await one(jobs), Verdict.FAILED)
        second = await add(jobs, 3, unique="k")
        assert not second.duplicate

    async def test_what_lost_its_key_does_not_run_again(self, jobs: Jobs) -> None:
        first = await add(jobs, 1, unique="k")
        await settle(jobs, await one(jobs), Verdict.FAILED)
        second = await add(jobs, 2, unique="k")
        assert not await jobs.rerun(first.id, queue=Q)
        assert await state(jobs, first.id) is State.FAILED
        assert (await add(jobs, 3, unique="k")).id == second.id
        assert await drained(jobs) == [2]
        assert await jobs.rerun(first.id, queue=Q)
        assert await drained(jobs) == [1]

    async def test_a_key_of_a_forgotten_job_is_free(self, jobs: Jobs) -> None:
        first = await add(jobs, 1, unique="k")
        assert await jobs.remove(first.id, queue=Q)
        assert not (await add(jobs, 2, unique="k")).duplicate

    async def test_a_key_counts_for_a_while(self, jobs: Jobs, harness: JobHarness) -> None:
        window = 6 * harness.tick
        first = await add(jobs, 1, unique="k", unique_for=window)
        await settle(jobs, await one(jobs))
        again = await add(jobs, 2, unique="k", unique_for=window)
        assert (again.id, again.duplicate) == (first.id, True)
        await harness.advance(window + harness.tick)
        later = await add(jobs, 3, unique="k", unique_for=window)
        assert not later.duplicate
        assert (await one(jobs)).job.args == 3

    async def test_a_delay(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs, 1, delay=4 * harness.tick)
        await add(jobs, 2)
        job = await jobs.get(ticket.id, queue=Q)
        assert job.state is State.DELAYED
        assert job.run_at == pytest.approx(job.created_at + 4 * harness.tick, abs=0.01)
        assert await drained(jobs) == [2]
        held = await comes(harness, jobs, ticks=4)
        assert held.job.args == 1
        assert held.job.started_at >= job.run_at - 0.01

    async def test_many_at_once(self, jobs: Jobs) -> None:
        assert await jobs.add([]) == []
        tickets = await jobs.add([spec(number) for number in range(1000)])
        assert len({each.id for each in tickets}) == 1000
        found: dict[object, str] = {}
        while held := await look(jobs):
            found |= {each.job.args: each.job.id for each in held}
            assert all(await jobs.settle(Q, [settled(each) for each in held]))
        assert [found[number] for number in range(1000)] == [each.id for each in tickets]

    async def test_ten_thousand_are_the_most(self, jobs: Jobs) -> None:
        with pytest.raises(TooLarge, match="10000"):
            await jobs.add([spec(1)] * 10_001)
        with pytest.raises(TooLarge, match="10000"):
            await jobs.add([spec(1, after=[spec(2)] * 10_000)])
        assert await jobs.queues() == []

    async def test_one_bad_job_refuses_all(self, jobs: Jobs) -> None:
        with pytest.raises(InvalidArgument):
            await jobs.add([spec(1), spec(2, after=[spec(3, priority=10)])])
        assert await jobs.queues() == []

    async def test_queues_stay_apart(self, jobs: Jobs) -> None:
        await jobs.add([spec(1, id="same", queue="one"), spec(2, id="same", queue="other")])
        held = await one(jobs, "one")
        assert held.job.args == 1
        assert await jobs.settle("other", [settled(held)]) == [False]
        with pytest.raises(NotFound):
            await jobs.get("same", queue="third")
        assert await settle(jobs, held)
        assert await state(jobs, "same", "one") is State.SUCCEEDED
        assert await state(jobs, "same", "other") is State.QUEUED

    async def test_what_one_client_adds_another_claims(self, pair: Pair) -> None:
        here, there = pair
        await asyncio.gather(*(add(here, number) for number in range(20)))
        assert sorted(await drained(there)) == list(range(20))
        assert (await here.stats(Q)).succeeded == 20
