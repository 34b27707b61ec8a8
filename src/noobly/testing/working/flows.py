"""Flows: jobs that run after others, and what becomes of them when those end."""

from __future__ import annotations

import pytest

from noobly.core.errors import InvalidArgument
from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import (
    LONG,
    PATIENCE,
    LiveTheme,
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
from noobly.working import Bounds, JobContext, Jobs, State, Verdict
from noobly.working.records import JobSpec

_BAD = (Verdict.FAILED, Verdict.CANCELLED, Verdict.EXPIRED)


class FlowsTheme(Theme):
    """A job runs after all it waits for."""

    async def test_after_all_of_them(self, jobs: Jobs) -> None:
        ticket = await add(jobs, "parent", after=[spec(number) for number in range(3)])
        job = await jobs.get(ticket.id, queue=Q)
        assert (job.state, job.pending) == (State.DELAYED, 3)
        for left in (2, 1, 0):
            held = await one(jobs)
            assert held.job.args == 2 - left
            assert await settle(jobs, held)
            assert (await jobs.get(ticket.id, queue=Q)).pending == left
        assert await state(jobs, ticket.id) is State.QUEUED
        assert await drained(jobs) == ["parent"]

    async def test_one_ticket_for_each_that_was_asked_for(self, jobs: Jobs) -> None:
        tickets = await jobs.add([spec("a", id="a", after=[spec("b")]), spec("c", id="c")])
        assert [each.id for each in tickets] == ["a", "c"]
        assert (await jobs.stats(Q)).queued == 2

    async def test_its_children(self, jobs: Jobs) -> None:
        after = [spec(1, id="b"), spec(2, id="a", queue="other"), spec(3, id="c")]
        ticket = await add(jobs, after=after)
        assert [(job.id, job.queue) for job in await jobs.children(ticket.id, queue=Q)] == [
            ("b", Q), ("a", "other"), ("c", Q),
        ]  # fmt: skip
        for queue in (Q, Q, "other"):
            held = await one(jobs, queue)
            await settle(jobs, held, result=held.job.args)
        children = await jobs.children(ticket.id, queue=Q)
        assert [(job.id, job.state, job.result) for job in children] == [
            ("b", State.SUCCEEDED, 1), ("a", State.SUCCEEDED, 2), ("c", State.SUCCEEDED, 3),
        ]  # fmt: skip
        await settle(jobs, await one(jobs))
        assert len(await jobs.children(ticket.id, queue=Q)) == 3
        assert await jobs.remove("b", queue=Q)
        assert [job.id for job in await jobs.children(ticket.id, queue=Q)] == ["a", "c"]
        assert await jobs.children("a", queue="other") == []

    async def test_flows_of_flows(self, jobs: Jobs) -> None:
        leaf = [spec("leaf", queue="leaves", id=f"leaf {number}") for number in range(2)]
        tree = spec("root", id="root", after=[spec("left", id="left", after=leaf), spec("right", id="right")])
        await jobs.add([tree])
        assert await drained(jobs) == ["right"]
        assert await drained(jobs, "leaves") == ["leaf", "leaf"]
        assert await drained(jobs) == ["left", "root"]

    async def test_a_deep_flow(self, jobs: Jobs) -> None:
        tree = spec(0)
        for depth in range(1, 50):
            tree = spec(depth, after=[tree])
        await jobs.add([tree])
        assert await drained(jobs) == list(range(50))
        for depth in range(50, 60):
            tree = spec(depth, after=[tree])
        with pytest.raises(InvalidArgument, match="deep"):
            await jobs.add([tree])

    @pytest.mark.parametrize("verdict", _BAD, ids=lambda it: it.value)
    async def test_a_failure_fails_the_parent(self, jobs: Jobs, harness: JobHarness, verdict: Verdict) -> None:
        ticket = await add(jobs, "parent", id="parent", after=[spec(1, id="child"), spec(2)])
        await settle(jobs, await one(jobs), verdict, error="bad")
        await self._failed(jobs, harness, ticket.id)
        job = await jobs.get(ticket.id, queue=Q)
        assert "child" in job.error
        assert job.attempts == 0
        assert await drained(jobs) == [2]
        assert await state(jobs, ticket.id) is State.FAILED

    async def _failed(self, jobs: Jobs, harness: JobHarness, id: str, queue: str = Q) -> None:
        """Let a parent fail, which some stores do only when a worker comes to it."""
        for _ in range(10):
            if await state(jobs, id, queue) is State.FAILED:
                return
            for held in await look(jobs, queue, most=1):
                assert held.job.id != id
                assert await settle(jobs, held, Verdict.RELEASE)
            await harness.advance(harness.tick)
        raise AssertionError(f"job {id} is {await state(jobs, id, queue)}")

    async def test_a_retry_is_no_end(self, jobs: Jobs) -> None:
        ticket = await add(jobs, "parent", after=[spec(1, retries=1)])
        await settle(jobs, await one(jobs), Verdict.RETRY)
        assert await state(jobs, ticket.id) is State.DELAYED
        assert await drained(jobs) == [1, "parent"]

    @pytest.mark.parametrize("verdict", _BAD, ids=lambda it: it.value)
    async def test_a_lenient_one_may_fail(self, jobs: Jobs, verdict: Verdict) -> None:
        ticket = await add(jobs, "parent", after=[spec(1, lenient=True), spec(2)])
        await settle(jobs, await one(jobs), verdict, error="bad")
        assert await drained(jobs) == [2, "parent"]
        children = await jobs.children(ticket.id, queue=Q)
        assert [job.args for job in children] == [1, 2]
        assert children[0].error == "bad"

    async def test_a_failure_goes_all_the_way_up(self, jobs: Jobs, harness: JobHarness) -> None:
        tree = spec("root", id="root", after=[spec("middle", id="middle", after=[spec("leaf", queue="leaves")])])
        await jobs.add([tree])
        await settle(jobs, await one(jobs, "leaves"), Verdict.FAILED, error="bad")
        await self._failed(jobs, harness, "middle")
        await self._failed(jobs, harness, "root")
        assert await look(jobs) == []

    async def test_a_parent_that_was_failed_by_its_child_tells_its_own(self, jobs: Jobs, harness: JobHarness) -> None:
        tree = spec("root", after=[spec("middle", id="middle", lenient=True, after=[spec("leaf", queue="leaves")])])
        await jobs.add([tree])
        await settle(jobs, await one(jobs, "leaves"), Verdict.FAILED, error="bad")
        await self._failed(jobs, harness, "middle")
        assert await drained(jobs) == ["root"]

    async def test_cancelling_a_child_that_waits(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs, "parent", after=[spec(1, id="child", delay=LONG)])
        assert await jobs.cancel("child", queue=Q) is State.CANCELLED
        await self._failed(jobs, harness, ticket.id)

    async def test_cancelling_the_parent(self, jobs: Jobs) -> None:
        ticket = await add(jobs, "parent", after=[spec(1)])
        assert await jobs.cancel(ticket.id, queue=Q) is State.CANCELLED
        assert await drained(jobs) == [1]
        assert await state(jobs, ticket.id) is State.CANCELLED

    async def test_a_parent_with_a_delay(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs, "parent", delay=6 * harness.tick, after=[spec(1)])
        assert await drained(jobs) == [1]
        assert await state(jobs, ticket.id) is State.DELAYED
        assert (await comes(harness, jobs, ticks=6)).job.id == ticket.id

    async def test_a_parent_that_waits_is_not_run_by_force(self, jobs: Jobs) -> None:
        ticket = await add(jobs, "parent", after=[spec(1)])
        assert not await jobs.rerun(ticket.id, queue=Q)
        assert await drained(jobs) == [1, "parent"]

    async def test_a_child_that_is_there_already(self, jobs: Jobs) -> None:
        await add(jobs, "early", id="child")
        ticket = await add(jobs, "parent", after=[spec("late", id="child"), spec("other")])
        assert await drained(jobs) == ["early", "other", "parent"]
        assert await state(jobs, ticket.id) is State.SUCCEEDED

    async def test_a_child_that_has_succeeded_already(self, jobs: Jobs) -> None:
        await add(jobs, "early", id="child")
        assert await drained(jobs) == ["early"]
        await add(jobs, "parent", after=[spec("late", id="child")])
        assert await drained(jobs) == ["parent"]

    async def test_a_flow_that_is_there_already(self, jobs: Jobs) -> None:
        tree = [spec("parent", id="parent", after=[spec("child", id="child")])]
        assert not (await jobs.add(tree))[0].duplicate
        assert (await jobs.add(tree))[0].duplicate
        held = await one(jobs)
        assert (await jobs.add(tree))[0].duplicate
        await settle(jobs, held)
        assert (await jobs.add(tree))[0].duplicate
        held = await one(jobs)
        assert held.job.args == "parent"
        assert (await jobs.add(tree))[0].duplicate
        assert await look(jobs) == []
        await settle(jobs, held)
        assert (await jobs.add(tree))[0].duplicate
        assert await look(jobs) == []

    async def test_nothing_is_added_before_a_parent_that_is_there(self, jobs: Jobs) -> None:
        parent = spec("parent", id="parent", after=[spec("child", after=[spec("leaf")])])
        assert not (await jobs.add([parent]))[0].duplicate
        (again,) = await jobs.add([parent])
        assert (again.id, again.duplicate) == ("parent", True)
        assert await drained(jobs) == ["leaf", "child", "parent"]

    async def test_a_child_of_a_key_that_is_taken(self, jobs: Jobs) -> None:
        await add(jobs, "early", unique="k")
        await add(jobs, "parent", after=[spec("late", unique="k"), spec("twice", unique="k")])
        assert await drained(jobs) == ["early", "parent"]

    @pytest.mark.parametrize("name", ["id", "unique"])
    async def test_no_job_runs_before_two_others(self, jobs: Jobs, name: str) -> None:
        base = spec("base", **{name: "base"})
        sides = [spec("left", after=[base]), spec("right", after=[base])]
        with pytest.raises(InvalidArgument, match=r"'base'.*two jobs"):
            await add(jobs, "top", after=sides)
        with pytest.raises(InvalidArgument, match="two jobs"):
            await jobs.add(sides)
        with pytest.raises(InvalidArgument, match=r"'p'.*twice"):
            await jobs.add([spec("p", after=[spec(each)], **{name: "p"}) for each in (1, 2)])
        assert await jobs.queues() == []
        await jobs.add([spec("left", after=[base, base]), base])
        assert await drained(jobs) == ["base", "left"]

    async def test_forgetting_a_child_that_waits(self, jobs: Jobs) -> None:
        await add(jobs, "parent", after=[spec(1, id="a"), spec(2, id="b")])
        assert await jobs.remove("a", queue=Q)
        assert await drained(jobs) == [2, "parent"]

    async def test_forgetting_a_child_that_has_ended(self, jobs: Jobs) -> None:
        ticket = await add(jobs, "parent", after=[spec(1, id="a"), spec(2, id="b")])
        assert await settle(jobs, await one(jobs))
        assert await jobs.remove("a", queue=Q)
        assert await state(jobs, ticket.id) is State.DELAYED
        assert await drained(jobs) == [2, "parent"]

    async def test_a_child_that_ends_twice_counts_once(self, jobs: Jobs) -> None:
        ticket = await add(jobs, "parent", after=[spec(1, id="a", lenient=True), spec(2, id="b", delay=LONG)])
        for _ in range(2):
            assert await jobs.cancel("a", queue=Q) is State.CANCELLED
        assert await jobs.rerun("a", queue=Q)
        assert await drained(jobs) == [1]
        assert await state(jobs, ticket.id) is State.DELAYED
        assert await jobs.rerun("b", queue=Q)
        assert await drained(jobs) == [2, "parent"]

    async def test_a_parent_that_failed_may_run_all_the_same(self, jobs: Jobs, harness: JobHarness) -> None:
        ticket = await add(jobs, "parent", after=[spec(1, id="a"), spec(2, id="b")])
        await settle(jobs, await one(jobs), Verdict.FAILED)
        await self._failed(jobs, harness, ticket.id)
        if not await jobs.rerun(ticket.id, queue=Q):
            assert await state(jobs, ticket.id) is State.FAILED
            pytest.skip("the store lets no parent run before its children have ended")
        held = await look(jobs)
        assert sorted(str(each.job.args) for each in held) == ["2", "parent"]
        for each in held:
            assert await settle(jobs, each)
        assert await look(jobs) == []
        assert await state(jobs, ticket.id) is State.SUCCEEDED

    @pytest.mark.parametrize("begun", [False, True], ids=["queued", "running"])
    async def test_a_late_failure_leaves_a_parent_that_runs_all_the_same(
        self, jobs: Jobs, harness: JobHarness, begun: bool
    ) -> None:
        ticket = await add(jobs, "parent", queue="parents", after=[spec(1), spec(2)])
        first, second = await look(jobs)
        await settle(jobs, first, Verdict.FAILED)
        await self._failed(jobs, harness, ticket.id, "parents")
        if not await jobs.rerun(ticket.id, queue="parents"):
            pytest.skip("the store lets no parent run before its children have ended")
        alone = Bounds(running=1)
        held = await one(jobs, "parents", bounds=alone) if begun else None
        await settle(jobs, second, Verdict.FAILED)
        assert await state(jobs, ticket.id, "parents") is (State.RUNNING if begun else State.QUEUED)
        assert await settle(jobs, held or await one(jobs, "parents", bounds=alone))
        await add(jobs, "next", queue="parents")
        assert (await one(jobs, "parents", bounds=alone)).job.args == "next"

    async def test_a_thousand_children(self, jobs: Jobs) -> None:
        ticket = await add(jobs, "parent", after=[spec(number) for number in range(1000)])
        assert (await jobs.get(ticket.id, queue=Q)).pending == 1000
        assert len(await jobs.children(ticket.id, queue=Q)) == 1000
        found = set[object]()
        while held := await look(jobs):
            found |= {each.job.args for each in held}
            for each in held[:-1]:
                assert await settle(jobs, each)
            assert await settle(jobs, held[-1])
        assert found == {*range(1000), "parent"}


class BatchesTheme(LiveTheme):
    """Jobs, and one that runs when all of them have ended."""

    async def test_a_batch(self, live: Jobs) -> None:
        @live.task()
        async def fetch(page: int) -> int:
            if page == 2:
                raise ValueError("no such page")
            return page * 10

        @live.task()
        async def total(extra: int, job: JobContext) -> list[object]:
            parts = await live.handle(job.id).children()
            return [extra, [part.result for part in parts], [part.state.value for part in parts]]

        async with live.working():
            handle = await live.batch([live.spec(fetch, page) for page in range(4)], total, 5)
            extra, results, states = await handle.result(PATIENCE)
        assert (extra, results) == (5, [0, 10, None, 30])
        assert states == ["succeeded", "succeeded", "failed", "succeeded"]

    async def test_an_empty_batch(self, live: Jobs) -> None:
        @live.task()
        async def total(_: None) -> str:
            return "done"

        async with live.working():
            assert await (await live.batch([], total)).result(PATIENCE) == "done"

    async def test_a_chain(self, live: Jobs) -> None:
        order: list[int] = []

        @live.task()
        async def step(number: int) -> None:
            order.append(number)

        chain: JobSpec = live.spec(step, 0)
        for number in range(1, 4):
            chain = live.spec(step, number, after=[chain])
        async with live.working():
            handle = await live.enqueue(step, 4, after=[chain])
            await handle.result(PATIENCE)
        assert order == [0, 1, 2, 3, 4]

    async def test_a_chain_that_breaks(self, live: Jobs) -> None:
        order: list[int] = []

        @live.task()
        async def step(number: int) -> None:
            order.append(number)
            if number == 1:
                raise ValueError("no luck")

        chain = live.spec(step, 2, after=[live.spec(step, 1, after=[live.spec(step, 0)])])
        async with live.working():
            job = await (await live.enqueue(step, 3, after=[chain])).wait(PATIENCE)
        assert (job.state, order) == (State.FAILED, [0, 1])
