"""Refusals: what is wrong with a call is said before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from noobly.core.capability import Capability
from noobly.core.errors import ConfigError, InvalidArgument, Unsupported
from noobly.core.events import OperationFinished
from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import Q, Theme, add, recorded, spec, worked
from noobly.working import Bounds, Can, Jobs, State, Verdict
from noobly.working.driver import Hold
from noobly.working.records import Settled

Wrong = Any
"""An argument of a type that the signature does not allow."""
Calls = tuple[Callable[[Jobs, Wrong], Awaitable[object]], ...]

BAD_NAMES: tuple[Wrong, ...] = ("", "q" * 201, "\ud800", "ok\udfff", None, 5, b"bytes", ["list"], True)
BAD_KEYS: tuple[Wrong, ...] = ("", "k" * 201, "\ud800", 5, b"bytes", True)
BAD_TIMES: tuple[Wrong, ...] = (-1, -0.001, math.nan, math.inf, 1e10, True, "60", Decimal(60), timedelta(seconds=-1))
BAD_COUNTS: tuple[Wrong, ...] = (0, -1, 1001, 1.5, True, "1", None)
BAD_VALUES: tuple[Wrong, ...] = (object(), {1j}, lambda: None, "\ud800", {"k": object()}, math)

_QUEUES: Calls = (
    lambda jobs, name: jobs.add([spec(queue=name)]),
    lambda jobs, name: jobs.add([spec(after=[spec(queue=name)])]),
    lambda jobs, name: jobs.get("id", queue=name),
    lambda jobs, name: jobs.wait("id", queue=name),
    lambda jobs, name: jobs.list_jobs(queue=name),
    lambda jobs, name: jobs.children("id", queue=name),
    lambda jobs, name: jobs.logs("id", queue=name),
    lambda jobs, name: jobs.stats(name),
    lambda jobs, name: jobs.cancel("id", queue=name),
    lambda jobs, name: jobs.rerun("id", queue=name),
    lambda jobs, name: jobs.remove("id", queue=name),
    lambda jobs, name: jobs.claim(name, "worker"),
    lambda jobs, name: jobs.beat(name, [Hold("id", "token")]),
    lambda jobs, name: jobs.settle(name, []),
    lambda jobs, name: jobs.report("id", queue=name, progress=1),
    lambda jobs, name: jobs.sweep(name),
)
_PAUSES: Calls = (lambda jobs, name: jobs.pause(name), lambda jobs, name: jobs.resume(name))
_IDS: Calls = (
    lambda jobs, name: jobs.get(name, queue=Q),
    lambda jobs, name: jobs.wait(name, queue=Q),
    lambda jobs, name: jobs.children(name, queue=Q),
    lambda jobs, name: jobs.logs(name, queue=Q),
    lambda jobs, name: jobs.cancel(name, queue=Q),
    lambda jobs, name: jobs.rerun(name, queue=Q),
    lambda jobs, name: jobs.remove(name, queue=Q),
    lambda jobs, name: jobs.report(name, queue=Q, progress=1),
)
_TIMED: Calls = (
    *(
        lambda jobs, time, name=name: jobs.add([spec(**{name: time})])
        for name in ("delay", "backoff", "backoff_cap", "timeout", "expires", "unique_for")
    ),
    *(
        lambda jobs, time, name=name: jobs.enqueue("task", **{name: time})
        for name in ("delay", "backoff", "timeout", "expires")
    ),
    lambda jobs, time: jobs.wait("id", queue=Q, within=time),
    lambda jobs, time: jobs.claim(Q, "worker", lease=time),
    lambda jobs, time: jobs.claim(Q, "worker", wait=time),
    lambda jobs, time: jobs.beat(Q, [], time),
    lambda jobs, time: jobs.claim(Q, "worker", bounds=Bounds(starts=1, period=time)),
    lambda jobs, time: jobs.settle(Q, [Settled(id="id", token=Q, verdict=Verdict.RETRY, delay=time)]),
)
_OTHER: Calls = (
    lambda jobs, _: jobs.add([spec(priority=-1)]),
    lambda jobs, _: jobs.add([spec(priority=10)]),
    lambda jobs, wrong: jobs.add([spec(priority=wrong)]),
    lambda jobs, _: jobs.add([spec(retries=-1)]),
    lambda jobs, _: jobs.add([spec(retries=10_001)]),
    lambda jobs, wrong: jobs.add([spec(retries=wrong)]),
    lambda jobs, _: jobs.wait("id", queue=Q, within=20.1),
    lambda jobs, _: jobs.list_jobs(queue=Q, skip=-1),
    lambda jobs, wrong: jobs.list_jobs(queue=Q, skip=wrong),
    lambda jobs, _: jobs.enqueue("task", priority=10),
    lambda jobs, _: jobs.enqueue("task", after=[spec(priority=10)]),
    lambda jobs, _: jobs.claim(Q, "worker", bounds=Bounds(starts=-1)),
    lambda jobs, _: jobs.claim(Q, "worker", bounds=Bounds(running=-1)),
    lambda jobs, wrong: jobs.claim(Q, "worker", bounds=Bounds(starts=wrong)),
    lambda jobs, wrong: jobs.claim(Q, "worker", bounds=Bounds(running=wrong)),
)


async def _refused(jobs: Jobs, calls: Calls, wrong: Wrong) -> None:
    done = recorded(jobs, OperationFinished)
    for number, call in enumerate(calls):
        with pytest.raises(InvalidArgument) as refusal:
            await call(jobs, wrong)
            raise AssertionError(f"call {number} took {wrong!a}")
        assert refusal.value.message
    assert worked(done) == []


class RefusalsTheme(Theme):
    """Bad input raises InvalidArgument, and no operation of the store is done."""

    @pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:24])
    async def test_names_of_queues(self, jobs: Jobs, harness: JobHarness, name: Wrong) -> None:
        await _refused(jobs, _QUEUES, name)
        if Can.PAUSE in harness.capabilities:
            await _refused(jobs, _PAUSES, name)

    @pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:24])
    async def test_ids_and_names_of_tasks(self, jobs: Jobs, name: Wrong) -> None:
        await _refused(jobs, (*_IDS, lambda jobs, task: jobs.add([spec(task=task)])), name)

    @pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: ascii(key)[:24])
    async def test_own_ids_and_keys(self, jobs: Jobs, key: Wrong) -> None:
        calls: Calls = (lambda jobs, key: jobs.add([spec(id=key)]), lambda jobs, key: jobs.add([spec(unique=key)]))
        await _refused(jobs, calls, key)

    @pytest.mark.parametrize("time", BAD_TIMES, ids=repr)
    async def test_lengths_of_time(self, jobs: Jobs, time: Wrong) -> None:
        await _refused(jobs, _TIMED, time)

    @pytest.mark.parametrize("count", BAD_COUNTS, ids=repr)
    async def test_counts(self, jobs: Jobs, count: Wrong) -> None:
        calls: Calls = (
            lambda jobs, most: jobs.claim(Q, "worker", max=most),
            lambda jobs, most: jobs.list_jobs(queue=Q, max=most),
        )
        await _refused(jobs, calls, count)

    @pytest.mark.parametrize("value", BAD_VALUES, ids=lambda value: type(value).__name__)
    async def test_arguments(self, jobs: Jobs, value: Wrong) -> None:
        calls: Calls = (
            lambda jobs, wrong: jobs.add([spec(1), spec(wrong)]),
            lambda jobs, wrong: jobs.add([spec(1, after=[spec(wrong)])]),
            lambda jobs, wrong: jobs.enqueue("task", wrong),
            lambda jobs, wrong: jobs.report("id", queue=Q, progress=wrong),
        )
        await _refused(jobs, calls, value)

    async def test_others(self, jobs: Jobs) -> None:
        await _refused(jobs, _OTHER, True)

    async def test_messages_do_not_show_arguments(self, jobs: Jobs) -> None:
        with pytest.raises(InvalidArgument) as refusal:
            await add(jobs, {"password": "hunter2", "bad": object()})
        assert "hunter2" not in str(refusal.value)

    async def test_unknown_options(self, harness: JobHarness) -> None:
        with pytest.raises(ConfigError, match="max_stalls"):
            async with harness.open(max_stall=5):
                raise AssertionError("it opened")

    @pytest.mark.parametrize(
        "how", [{"concurrency": 0}, {"concurrency": 1001}, {"concurrency": "5"}, {"queues": []}, {}], ids=repr
    )
    async def test_workers_that_cannot_work(self, jobs: Jobs, how: dict[str, Wrong]) -> None:
        with pytest.raises(ConfigError):
            await jobs.work(**how)

    async def test_pausing_where_it_is_claimed_and_nowhere_else(self, jobs: Jobs, harness: JobHarness) -> None:
        done = recorded(jobs, OperationFinished)
        for call in _PAUSES:
            if Can.PAUSE in harness.capabilities:
                await call(jobs, Q)
                continue
            with pytest.raises(Unsupported):
                await call(jobs, Q)
        assert Can.PAUSE in harness.capabilities or worked(done) == []
        assert not (await jobs.stats(Q)).paused

    @pytest.mark.parametrize("capability", list(Can), ids=lambda capability: capability.name.lower())
    async def test_what_is_missing_is_refused_on_opening(self, harness: JobHarness, capability: Capability) -> None:
        if capability in harness.capabilities:
            async with harness.open(require=[capability]) as jobs:
                await add(jobs)
            return
        with pytest.raises(Unsupported, match=capability.name.lower()):
            async with harness.open(require=[capability]):
                raise AssertionError("it opened without what was required")

    async def test_states_are_checked(self, jobs: Jobs) -> None:
        await add(jobs)
        assert len(await jobs.list_jobs(queue=Q, states=[State.QUEUED, State.QUEUED])) == 1
        with pytest.raises(InvalidArgument):
            await jobs.list_jobs(queue=Q, states=["queued?"])  # type: ignore[list-item]
