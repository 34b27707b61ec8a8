"""Working in itself: tasks, pauses, the worker, its heart and its settling, where no store is needed."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from noobly.core.errors import ConfigError, InvalidArgument, NotFound, RateLimited, Unavailable
from noobly.core.scope import Environment
from noobly.testing import FakeClock, FixedChance
from noobly.working import (
    Bounds,
    JobContext,
    JobFailed,
    JobInfo,
    JobSpec,
    State,
    Task,
    Tasks,
    Verdict,
    heart,
    open_jobs,
    scripts,
    worker,
)
from noobly.working.driver import Added, Beat, Hold, NewJob, Retrying
from noobly.working.providers._flows import known_parents
from noobly.working.records import Settled
from noobly.working.running import pause
from noobly.working.tasks import Execution, Rules

PATIENCE = 20.0


def plain(_):
    """A function at the top of a module."""
    return "plain"


def named(_, *, loud):
    """A function that no job can call."""


async def later(number: int, info: JobInfo) -> str:
    return f"{number} {info.id}"


class TestTasks:
    def test_rules_of_a_task(self):
        tasks = Tasks()

        @tasks.task(retries=4, backoff=2, backoff_cap=9, timeout=5, priority=3, unique=60)
        async def work(_):
            pass

        rules = tasks.find("work").rules
        assert rules.retrying == Retrying(attempts=5, base=2, cap=9)
        assert (rules.timeout, rules.priority, rules.unique, rules.unique_for) == (5, 3, True, 60)
        assert (rules.queue, rules.execution, rules.bounds) == ("default", Execution.ASYNC, Bounds())
        assert repr(work) == "<Task work>"

    @pytest.mark.parametrize(
        ("text", "bounds"),
        [
            ("4/s", Bounds(starts=4, period=1)),
            ("100/m", Bounds(starts=100, period=60)),
            ("10/30s", Bounds(starts=10, period=30)),
            ("1/2h", Bounds(starts=1, period=7200)),
            ("5/d", Bounds(starts=5, period=86_400)),
        ],
    )
    def test_rates(self, text, bounds):
        tasks = Tasks()
        tasks.task("work", rate_limit=text, concurrency=2)(plain)
        assert tasks.bounds("work") == msgspec.structs.replace(bounds, running=2)
        assert tasks.queues() == ("work",)

    @pytest.mark.parametrize("text", ["", "4", "0/s", "4/0s", "4/x", "-1/s", "1.5/s", "4/s ", "4 / s", "9999999999/s"])
    def test_rates_that_are_none(self, text):
        with pytest.raises(ConfigError, match="rate_limit"):
            Tasks().task("work", rate_limit=text)

    @pytest.mark.parametrize(
        "how",
        [
            {"retries": -1}, {"retries": True}, {"retries": 10_001}, {"priority": 10}, {"priority": "1"},
            {"concurrency": 0}, {"concurrency": 1.5}, {"execution": "async"}, {"execution": "nowhere"},
            {"name": "x" * 201}, {"name": ""}, {"name": 3}, {"queue": ""}, {"queue": 3}, {"rate_limit": 4},
            {"no_retry_on": ["ValueError"]}, {"no_retry_on": ValueError}, {"no_retry_on": [ValueError("x")]},
        ],
        ids=repr,
    )  # fmt: skip
    def test_rules_that_are_none(self, how):
        with pytest.raises(ConfigError):
            Tasks().task(**how)(plain)

    def test_an_argument_may_be_anything(self):
        def anything(data: object) -> None:
            pass

        assert Tasks().task()(anything).argument is object

    def test_an_option_nobody_knows(self):
        with pytest.raises(ConfigError, match="'retry'; did you mean retries"):
            Tasks().task(retry=3)

    def test_functions_that_are_no_tasks(self):
        with pytest.raises(ConfigError, match="3 arguments"):
            Tasks().task()(lambda a, b, c: None)
        with pytest.raises(ConfigError, match="event loop"):
            Tasks().task(execution="thread")(later)
        with pytest.raises(ConfigError, match="parentheses"):
            Tasks().task(plain)
        with pytest.raises(ConfigError, match="'loud' by name"):
            Tasks().task()(named)

    @pytest.mark.parametrize("annotation", [Tasks, Retrying | Bounds])
    def test_arguments_that_no_json_makes(self, annotation):
        def work(_):
            pass

        work.__annotations__["_"] = annotation
        with pytest.raises(ConfigError, match="no JSON can be converted"):
            Tasks().task()(work)

    def test_names_and_limits_that_clash(self):
        tasks = Tasks()
        tasks.task("one")(plain)
        with pytest.raises(ConfigError, match="two tasks"):
            tasks.task("one")(plain)
        with pytest.raises(ConfigError, match="other limits"):
            tasks.task("other", queue="default", concurrency=1)(plain)
        with pytest.raises(NotFound, match="known are one"):
            tasks.find("nobody")
        assert "one" in tasks
        assert "other" not in tasks

    def test_tables_join(self):
        tasks, more = Tasks(), Tasks()
        more.task("one")(plain)
        tasks.include(more)
        assert [task.name for task in tasks] == ["one"]
        assert tasks.find("one")(5) == "plain"


class TestPauses:
    @pytest.mark.parametrize(
        ("retrying", "expected"),
        [
            (Retrying(base=2, cap=10), [1, 2, 4, 5, 5]),
            (Retrying(base=2, cap=10, jitter=0), [2, 4, 8, 10, 10]),
            (Retrying(base=2, cap=10, jitter=0.5), [1.5, 3, 6, 7.5, 7.5]),
            (Retrying(base=2, cap=10, jitter=0, fixed=True), [2, 2, 2, 2, 2]),
            (Retrying(base=2, cap=10, jitter=0.5, fixed=True), [1.5, 1.5, 1.5, 1.5, 1.5]),
        ],
        ids=["full", "none", "half", "fixed", "fixed with jitter"],
    )
    def test_pauses(self, retrying, expected):
        assert [pause(retrying, attempts, FixedChance(0.5)) for attempts in (1, 2, 3, 4, 1000)] == expected


class TestScripts:
    @pytest.mark.parametrize("path", ["a.py", "sub/a.py", "a b.py", "ä.py", "./a.py"])
    def test_good_paths(self, path):
        assert scripts.check(path) == path

    def test_long_paths(self):
        with pytest.raises(InvalidArgument):
            scripts.check("x" * 501)


class TestFlows:
    def test_what_stands_before_a_parent_that_is_there(self):
        jobs = [
            NewJob(id="leaf", queue="q", task="t", data=b"", parent="middle", parent_queue="q"),
            NewJob(id="middle", queue="q", task="t", data=b"", parent="root", parent_queue="p", pending=1),
            NewJob(id="root", queue="p", task="t", data=b"", pending=1),
            NewJob(id="root", queue="q", task="t", data=b"", pending=1),
            NewJob(id="plain", queue="q", task="t", data=b""),
        ]
        there = known_parents(jobs, lambda new: Added(new.id) if (new.queue, new.id) == ("p", "root") else None)
        assert there == {("q", "middle"), ("p", "root")}


class TestWorker:
    async def test_it_ends_at_once_where_no_answer_can_be_on_its_way(self, jobs):
        jobs.task("plain")(plain)
        clock, took = asyncio.get_running_loop().time, []
        for _ in range(5):
            async with jobs.working():
                assert await (await jobs.enqueue("plain")).result(PATIENCE) == "plain"
                ended = clock()
            took.append(clock() - ended)
        assert min(took) < 0.2

    async def test_what_a_claim_brings_too_late_is_given_back(self, jobs, monkeypatch):
        asked, claim = asyncio.Event(), jobs.claim
        jobs.late = PATIENCE  # As for a store that is elsewhere.

        async def slow(*args, **kwargs):
            found = await claim(*args, **kwargs)
            asked.set()
            await asyncio.sleep(0.01)  # As if the answer were on its way.
            return found

        monkeypatch.setattr(jobs, "claim", slow)
        jobs.task("plain")(plain)
        handle = await jobs.enqueue("plain")
        working = asyncio.create_task(jobs.work())
        await asked.wait()
        working.cancel()
        await asyncio.wait([working])
        job = await handle.job()
        assert (job.state, job.attempts) == (State.QUEUED, 0)

    async def test_a_store_that_refuses_ends_the_worker(self, jobs, monkeypatch):
        async def refused(*args, **kwargs):
            raise InvalidArgument("never")

        monkeypatch.setattr(jobs, "claim", refused)
        jobs.task("plain")(plain)
        with pytest.raises(InvalidArgument, match="never"):
            await jobs.work()

    async def test_a_store_that_is_down_is_asked_again(self, jobs, monkeypatch, caplog):
        monkeypatch.setattr(worker, "pause", lambda error, failures: 0.01)
        claim, failures = jobs.claim, [Unavailable("down")] * 2

        async def sometimes(*args, **kwargs):
            if failures:
                raise failures.pop()
            return await claim(*args, **kwargs)

        monkeypatch.setattr(jobs, "claim", sometimes)
        jobs.task("plain")(plain)
        async with jobs.working():
            assert await (await jobs.enqueue("plain")).result(PATIENCE) == "plain"
        assert caplog.text.count("cannot be claimed") == 1

    @pytest.mark.parametrize("data", [b"{", b"[" * 880 + b"]" * 880])
    async def test_an_argument_that_is_no_json_fails_for_good(self, jobs, data):
        jobs.task("plain")(plain)
        bad = NewJob(id="bad", queue="default", task="plain", data=data, retrying=Retrying(attempts=9))
        await jobs._driver.add([bad])
        async with jobs.working():
            job = await jobs.handle("bad").wait(PATIENCE)
        assert (job.state, job.attempts, job.args) == (State.FAILED, 1, None)
        assert "no JSON" in job.error

    async def test_a_local_function_runs_in_no_process(self, jobs):
        @jobs.task(execution="process")
        def local(_):
            return 1

        async with jobs.working():
            job = await (await jobs.enqueue(local)).wait(PATIENCE)
        assert "top of a module" in job.error

    async def test_a_lost_lease_ends_the_handler_and_nothing_is_told(self, jobs, monkeypatch, caplog):
        async def lost(queue, holds, lease=None):
            return [Beat.LOST] * len(holds)

        monkeypatch.setattr(jobs, "beat", lost)
        monkeypatch.setattr(heart, "_LONGEST_PAUSE", 0.02)
        ended = asyncio.Event()

        @jobs.task()
        async def slow(_: None, job: JobContext) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        handle = await jobs.enqueue(slow)
        with caplog.at_level(logging.WARNING, "noobly.working"):
            async with jobs.working(grace=0):
                await asyncio.wait_for(ended.wait(), PATIENCE)
        assert "lost its lease" in caplog.text
        assert await handle.status() is State.RUNNING

    async def test_a_worker_without_a_queue(self, jobs):
        with pytest.raises(ConfigError, match="needs a queue"):
            await jobs.work()


class TestMemory:
    async def test_it_is_full(self):
        async with open_jobs(max_jobs=3) as jobs:
            await jobs.add([JobSpec(task="t")] * 2)
            with pytest.raises(RateLimited, match="max_jobs"):
                await jobs.add([JobSpec(task="t")] * 2)
            assert (await jobs.stats()).queued == 2
            await jobs.add([JobSpec(task="t")])

    async def test_so_many_bytes(self):
        async with open_jobs("memory://?max_bytes=100000") as jobs:
            await jobs.add([JobSpec(task="t", args="x" * 40_000, id=id) for id in "ab"])
            with pytest.raises(RateLimited, match="max_bytes"):
                await jobs.add([JobSpec(task="t", args="x" * 40_000)])
            await jobs.remove("a")
            (held,) = await jobs.claim("default", "w")
            await jobs.settle(
                "default", [Settled(id="b", token=held.token, verdict=Verdict.SUCCEEDED, result="x" * 40_000)]
            )
            with pytest.raises(RateLimited):
                await jobs.add([JobSpec(task="t", args="x" * 40_000)])
            await jobs.remove("b")
            await jobs.add([JobSpec(task="t", args="x" * 40_000)] * 2)

    @pytest.mark.parametrize("step", [-3600, 3600])
    async def test_a_clock_that_is_set_moves_nothing(self, step):
        clock, bounds = FakeClock(), Bounds(starts=1, period=10.0)
        async with open_jobs(environment=Environment(clock=clock)) as jobs:
            await jobs.add([JobSpec(task="t", id=id, delay=5) for id in "ab"])
            clock.step(step)
            assert await jobs.claim("default", "w") == []
            clock.advance(6)
            (held,) = await jobs.claim("default", "w", lease=30, bounds=bounds)
            clock.step(step)
            clock.advance(9)
            assert await jobs.claim("default", "w", lease=30, bounds=bounds) == []
            clock.advance(1)
            assert [one.job.id for one in await jobs.claim("default", "w", lease=30, bounds=bounds)] == ["b"]
            assert await jobs.beat("default", [Hold(held.job.id, held.token)]) == [Beat.KEPT]
            clock.advance(31)
            assert await jobs.beat("default", [Hold(held.job.id, held.token)]) == [Beat.LOST]

    async def test_nobody_is_kept_waiting_for_ever_by_a_closed_store(self):
        async with open_jobs() as jobs:
            waiting = asyncio.create_task(jobs.claim("q", "w", wait=2))
            await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        assert waiting.done()


async def test_handles_say_whose_they_are(jobs):
    handle = jobs.handle("x", queue="q")
    assert repr(handle) == "<JobHandle x of queue 'q'>"
    assert (handle.id, handle.queue, handle.duplicate) == ("x", "q", False)


def test_a_task_added_by_hand():
    task = Tasks().add(Task("by hand", plain, Rules()))
    assert task(1) == "plain"


async def test_a_script_that_was_added_as_a_plain_job_has_its_time_too(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\n\n\ndef run(data):\n    time.sleep(60)\n")
    async with open_jobs("memory://", activities=str(tmp_path), script_timeout=0.1) as jobs:
        job = await jobs.enqueue(scripts.TASK, {"path": "slow.py"}, queue=scripts.QUEUE)
        with pytest.raises(JobFailed, match=r"0\.1 s"):
            await job.result(timeout=PATIENCE)
