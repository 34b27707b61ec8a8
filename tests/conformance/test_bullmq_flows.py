"""Flows in BullMQ whose jobs are there already, in part, by id or by key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from noobly.core.clock import fresh_id
from noobly.testing import server_or_skip
from noobly.testing.working.theme import Q, add, drained, look, one, settle, spec, state
from noobly.working import Jobs, State, Verdict, open_jobs

from ..redis_keys import unlinked

pytestmark = pytest.mark.servers


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    prefix = f"flows-{fresh_id()}"
    with server_or_skip("redis") as url:
        async with open_jobs(url.replace("redis", "bullmq", 1), prefix=prefix) as jobs:
            yield jobs
        await unlinked(url, prefix)


async def test_a_flow_that_many_add_at_once_is_added_once(jobs: Jobs) -> None:
    parent = spec("parent", id="parent", after=[spec("child", after=[spec("leaf")]), spec("other")])
    tickets = await asyncio.gather(*(jobs.add([parent]) for _ in range(20)))
    assert sorted(ticket.duplicate for (ticket,) in tickets) == [False] + 19 * [True]
    assert sorted(map(str, await drained(jobs))) == ["child", "leaf", "other", "parent"]


async def test_what_is_there_stays_as_it_is(jobs: Jobs) -> None:
    parent = spec("parent", id="parent", after=[spec("child", id="child")])
    await jobs.add([parent])
    before = await jobs.get("parent", queue=Q)
    await jobs.add([spec("root", id="root", after=[parent])])
    assert await jobs.get("parent", queue=Q) == before
    assert await drained(jobs) == ["child", "parent", "root"]


async def test_a_parent_waits_for_the_job_that_has_its_childs_key(jobs: Jobs) -> None:
    await add(jobs, "early", unique="k", id="early")
    ticket = await add(jobs, "parent", after=[spec("late", unique="k")])
    assert (await jobs.get(ticket.id, queue=Q)).pending == 1
    assert [job.id for job in await jobs.children(ticket.id, queue=Q)] == ["early"]
    held = await one(jobs)
    assert await look(jobs) == []
    await settle(jobs, held)
    assert await drained(jobs) == ["parent"]


async def test_a_key_whose_job_has_succeeded(jobs: Jobs) -> None:
    await add(jobs, "early", unique="k", unique_for=1000)
    assert await drained(jobs) == ["early"]
    ticket = await add(jobs, "parent", after=[spec("late", unique="k", unique_for=1000)])
    assert await drained(jobs) == ["parent"]
    assert [job.args for job in await jobs.children(ticket.id, queue=Q)] == ["early"]


@pytest.mark.parametrize("found_by", [{"id": "early"}, {"unique": "k", "unique_for": 1000}], ids=["id", "key"])
async def test_a_child_that_has_failed_already(jobs: Jobs, found_by: dict[str, object]) -> None:
    await add(jobs, "early", **found_by)
    await settle(jobs, await one(jobs), Verdict.FAILED, error="bad")
    strict = await add(jobs, "strict", after=[spec("late", **found_by)])
    assert await look(jobs) == []
    assert await state(jobs, strict.id) is State.FAILED


@pytest.mark.parametrize("found_by", [{"id": "early"}, {"unique": "k", "unique_for": 1000}], ids=["id", "key"])
async def test_a_lenient_child_that_has_failed_already(jobs: Jobs, found_by: dict[str, object]) -> None:
    await add(jobs, "early", **found_by)
    await settle(jobs, await one(jobs), Verdict.FAILED, error="bad")
    ticket = await add(jobs, "lenient", after=[spec("late", lenient=True, **found_by)])
    assert [job.error for job in await jobs.children(ticket.id, queue=Q)] == ["bad"]
    assert await drained(jobs) == ["lenient"]


async def test_a_child_of_another_parent_is_not_waited_for(jobs: Jobs) -> None:
    await add(jobs, "first", after=[spec("child", id="child")])
    await add(jobs, "second", after=[spec("again", id="child")])
    assert await drained(jobs) == ["child", "second", "first"]


async def test_a_delayed_parent_all_of_whose_children_are_others(jobs: Jobs) -> None:
    await add(jobs, "first", after=[spec("child", id="child")])
    ticket = await add(jobs, "late", delay=1000, after=[spec("again", id="child")])
    assert await drained(jobs) == ["child", "first"]
    assert await state(jobs, ticket.id) is State.DELAYED
    assert await jobs.rerun(ticket.id, queue=Q)
    assert await drained(jobs) == ["late"]
