"""What Node's BullMQ asks of jobs beyond running them, Python workers keep to; and Node's jobs stay Node's."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from noobly.core.errors import NotFound
from noobly.testing import eventually
from noobly.working import Bounds, Jobs, State, Verdict, open_jobs
from noobly.working.driver import Beat, Hold
from noobly.working.records import Held, Settled

from .sharing_bullmq import PATIENCE, Shared, jobs, shared

__all__ = ["jobs", "shared"]

pytestmark = pytest.mark.servers

Q = "shared"


def told(held: Held, verdict: Verdict = Verdict.SUCCEEDED, **about: object) -> Settled:
    return Settled(id=held.job.id, token=held.token, verdict=verdict, **about)


async def end(jobs: Jobs, held: Held, verdict: Verdict = Verdict.SUCCEEDED, **about: object) -> bool:
    return (await jobs.settle(Q, [told(held, verdict, **about)]))[0]


class TestIds:
    @pytest.mark.parametrize("id", ["sale-50%", "%25", "a:b:c", None], ids=lambda it: it or "given by BullMQ")
    async def test_a_job_of_node_is_reached_by_its_id(self, shared: Shared, jobs: Jobs, id: str | None) -> None:
        (added,) = await shared.steer(["add", "task", {"x": 1}, {"jobId": id} if id else {}])
        name = added["id"]
        assert name == (id or "1")
        (held,) = await jobs.claim(Q, "worker")
        assert held.job.id == name
        assert await jobs.beat(Q, [Hold(name, held.token)], 60) == [Beat.KEPT]
        assert await jobs.report(name, queue=Q, progress=5, lines=["line"])
        assert await end(jobs, held, Verdict.FAILED, error="bad")
        assert not await end(jobs, held)
        assert (await jobs.get(name, queue=Q)).progress == 5
        assert await jobs.logs(name, queue=Q) == ["line"]
        assert await jobs.rerun(name, queue=Q)
        assert await jobs.cancel(name, queue=Q) is State.CANCELLED
        assert await jobs.remove(name, queue=Q)
        with pytest.raises(NotFound):
            await jobs.get(name, queue=Q)

    async def test_numbers_of_both_stand_side_by_side(self, shared: Shared, jobs: Jobs) -> None:
        await jobs.add([jobs.spec("task", "python", queue=Q, id=str(number)) for number in (1, 2, 3)])
        await shared.steer(*(["add", "task", "node"] for _ in range(6)))
        claimed = await jobs.claim(Q, "worker", max=20)
        assert sorted(held.job.args for held in claimed) == ["node"] * 6 + ["python"] * 3
        assert await jobs.settle(Q, [told(held, result=held.job.args) for held in claimed]) == [True] * 9
        assert [(await jobs.get(str(number), queue=Q)).args for number in (1, 2, 3)] == ["python"] * 3

    async def test_a_queue_with_a_percent_sign(self, shared: Shared, jobs: Jobs) -> None:
        shared.queue = "50%3"
        await shared.steer(["add", "task", 1])
        assert await jobs.queues() == ["50%3"]
        (held,) = await jobs.claim("50%3", "worker")
        assert await jobs.settle("50%3", [told(held)]) == [True]


class TestSchedulers:
    @pytest.mark.parametrize(
        "repeat", [{"every": 200}, {"pattern": "* * * * * *", "tz": "Europe/Berlin"}], ids=["every", "pattern"]
    )
    async def test_each_iteration_is_followed_by_the_next(
        self, shared: Shared, jobs: Jobs, repeat: dict[str, object]
    ) -> None:
        ran: list[str] = []

        @jobs.task(queue=Q)
        async def tick(_: object) -> None:
            ran.append("ran")

        async with jobs.working():
            await shared.steer(["upsertJobScheduler", "each %3A:x", repeat, {"name": "tick", "data": {"x": 1}}])
            await eventually(lambda: len(ran) >= 4, PATIENCE)
        (scheduler,) = (await shared.steer(["getJobSchedulers"]))[0]
        assert scheduler["iterationCount"] >= 4
        waiting = await jobs.list_jobs(queue=Q, states=[State.DELAYED, State.QUEUED])
        assert waiting
        assert all((job.task, job.args) == ("tick", {"x": 1}) for job in waiting)
        times = sorted(int(job.id.rpartition(":")[2]) for job in await jobs.list_jobs(queue=Q))
        assert len(times) == len(set(times))

    async def test_so_many_iterations_as_node_wants(self, shared: Shared, jobs: Jobs) -> None:
        repeat = {"every": 100, "limit": 3}
        await shared.steer(["upsertJobScheduler", "thrice", repeat, {"name": "tick"}])
        for _ in range(3):
            (held,) = await self._comes(jobs)
            assert await end(jobs, held)
        stats = await jobs.stats(Q)
        assert (stats.succeeded, stats.delayed, stats.queued) == (3, 0, 0)

    async def test_none_after_its_end(self, shared: Shared, jobs: Jobs) -> None:
        repeat = {"pattern": "* * * * * *", "endDate": (time.time() + 2) * 1000}
        await shared.steer(["upsertJobScheduler", "soon over", repeat, {"name": "tick"}])
        for _ in range(4):
            for held in await jobs.claim(Q, "worker", wait=1):
                assert await end(jobs, held)
        stats = await jobs.stats(Q)
        assert (stats.succeeded > 0, stats.delayed, stats.queued) == (True, 0, 0)

    async def test_a_removed_scheduler_has_no_next(self, shared: Shared, jobs: Jobs) -> None:
        await shared.steer(["upsertJobScheduler", "gone", {"every": 1000}, {"name": "tick"}])
        await shared.steer(["removeJobScheduler", "gone"])
        assert len(await jobs.claim(Q, "worker", max=9)) == 1
        stats = await jobs.stats(Q)
        assert (stats.delayed, stats.queued) == (0, 0)

    async def test_a_pattern_that_only_node_reads_is_told(
        self, shared: Shared, jobs: Jobs, caplog: pytest.LogCaptureFixture
    ) -> None:
        await shared.steer(["upsertJobScheduler", "hashed", {"pattern": "H * * * *"}, {"name": "tick"}])
        (scheduler,) = (await shared.steer(["getJobSchedulers"]))[0]
        await shared.steer([{"job": f"repeat:hashed:{scheduler['next']}"}, "promote"])
        (held,) = await self._comes(jobs)
        assert "'hashed'" in caplog.text
        assert await end(jobs, held)

    async def _comes(self, jobs: Jobs) -> list[Held]:
        async with asyncio.timeout(PATIENCE):
            while not (found := await jobs.claim(Q, "worker", wait=2)):
                pass
        return found


class TestWhatNodeHasSaid:
    @pytest.mark.parametrize(
        ("removing", "left"), [(True, 0), (2, 2), ({"count": 1}, 1), (False, 4)], ids=["all", "some", "count", "none"]
    )
    async def test_ended_jobs_are_kept_as_their_options_say(
        self, shared: Shared, jobs: Jobs, removing: object, left: int
    ) -> None:
        options = {"removeOnComplete": removing, "removeOnFail": removing}
        await shared.steer(*(["add", "task", number, options] for number in range(8)))
        for number, held in enumerate(await jobs.claim(Q, "worker", max=8)):
            assert await end(jobs, held, Verdict.FAILED if number % 2 else Verdict.SUCCEEDED)
        stats = await jobs.stats(Q)
        assert (stats.succeeded, stats.failed) == (left, left)

    async def test_the_history_of_node_is_not_swept(self, shared: Shared, jobs: Jobs) -> None:
        async with open_jobs(shared.url, keep_most=0) as sweeper:
            await shared.steer(*(["add", "task", "node"] for _ in range(3)))
            await jobs.add([jobs.spec("task", "python", queue=Q) for _ in range(3)])
            for held in await jobs.claim(Q, "worker", max=6):
                assert await end(jobs, held)
            assert [await sweeper.sweep(Q) for _ in range(2)] == [3, 0]
            assert [job.args for job in await jobs.list_jobs(queue=Q)] == ["node"] * 3

    async def test_errors_of_all_attempts_are_kept(self, shared: Shared, jobs: Jobs) -> None:
        await shared.steer(["add", "task", 1, {"attempts": 3, "stackTraceLimit": 2}])
        for verdict, error in ((Verdict.RETRY, "one"), (Verdict.RETRY, "two"), (Verdict.FAILED, "three")):
            (held,) = await jobs.claim(Q, "worker", wait=2)
            assert await end(jobs, held, verdict, error=error)
        ((failed,),) = await shared.steer(["getFailed"])
        assert json.loads(failed["stacktrace"]) == ["two", "three"]

    async def test_a_child_that_a_running_parent_got_lets_it_fail(self, shared: Shared, jobs: Jobs) -> None:
        await shared.steer(["add", "task", 1, {"jobId": "above"}])
        (held,) = await jobs.claim(Q, "worker")
        above = {"id": "above", "queue": f"{shared.prefix}:{Q}"}
        await shared.steer(["add", "task", 2, {"parent": above, "priority": 5}])
        assert await end(jobs, held, result="done")
        job = await jobs.get("above", queue=Q)
        assert (job.state, job.error) == (State.FAILED, "job above has children that have not ended")
        assert (await jobs.stats(Q)).running == 0

    async def test_a_narrower_bound_of_node_holds_and_stays(self, shared: Shared, jobs: Jobs) -> None:
        await shared.steer(["setGlobalConcurrency", 2])
        await jobs.add([jobs.spec("task", number, queue=Q) for number in range(8)])
        assert len(await jobs.claim(Q, "worker", max=8, bounds=Bounds(running=5))) == 2
        await shared.steer(["setGlobalConcurrency", 3])
        async with open_jobs(shared.url) as other:
            assert len(await other.claim(Q, "worker", max=8, bounds=Bounds(running=5))) == 1
        assert await shared.steer(["getGlobalConcurrency"]) == [3]


class TestInStepWithNode:
    async def test_a_cancelled_job_that_node_tries_again(self, shared: Shared, jobs: Jobs) -> None:
        await jobs.add([jobs.spec("task", 1, queue=Q, id=id, delay=60) for id in ("a:b", "plain")])
        for id in ("a:b", "plain"):
            assert await jobs.cancel(id, queue=Q) is State.CANCELLED
        assert (await jobs.stats(Q)).cancelled == 2
        await shared.steer([{"job": "plain"}, "retry"], [{"job": "a%3Ab"}, "remove"])
        stats = await jobs.stats(Q)
        assert (stats.queued, stats.cancelled, stats.failed) == (1, 0, 0)
        (held,) = await jobs.claim(Q, "worker")
        assert await end(jobs, held, Verdict.FAILED, error="bad")
        assert (await jobs.get("plain", queue=Q)).state is State.FAILED

    async def test_retries_of_a_queue_that_node_has_emptied(self, shared: Shared, jobs: Jobs) -> None:
        await jobs.add([jobs.spec("task", number, queue=Q, retries=3) for number in range(3)])
        for held in await jobs.claim(Q, "worker", max=3):
            assert await end(jobs, held, Verdict.RETRY, error="bad", delay=60)
        assert (await jobs.stats(Q)).retrying == 3
        await shared.steer(["obliterate", {"force": True}])
        await jobs.add([jobs.spec("task", 1, queue=Q, delay=60)])
        stats = await jobs.stats(Q)
        assert (stats.retrying, stats.delayed, stats.failed, stats.cancelled) == (0, 1, 0, 0)

    async def test_a_wish_to_cancel_leaves_with_the_job(self, shared: Shared, jobs: Jobs) -> None:
        await jobs.add([jobs.spec("slow", 1, queue=Q, id="one")])
        async with shared.worker(removeOnComplete={"count": 0}):

            async def runs() -> bool:
                return (await jobs.get("one", queue=Q)).state is State.RUNNING

            await eventually(runs, PATIENCE)
            assert await jobs.cancel("one", queue=Q) is State.RUNNING
            assert (await jobs.get("one", queue=Q)).cancelling

            async def gone() -> bool:
                return await jobs.list_jobs(queue=Q) == []

            await eventually(gone, PATIENCE)
        await jobs.add([jobs.spec("slow", 1, queue=Q, id="one")])
        (held,) = await jobs.claim(Q, "worker")
        assert not held.job.cancelling


class TestIdleWorkers:
    async def test_an_idle_worker_of_node_begins_at_once(self, shared: Shared, jobs: Jobs) -> None:
        await jobs.add([jobs.spec("echo", "python", queue=Q)])
        (held,) = await jobs.claim(Q, "worker", wait=2)
        claiming = asyncio.create_task(jobs.claim(Q, "worker", wait=2))
        await eventually(claiming.done, PATIENCE)  # It has looked for more in vain, and listens no longer.
        async with shared.worker() as heard:
            began = time.monotonic()
            await jobs.add([jobs.spec("echo", number, queue=Q) for number in range(3)])
            await eventually(lambda: sum("name" in one for one in heard) == 3, PATIENCE)
            assert time.monotonic() - began < 1
        assert await end(jobs, held)

    async def test_a_worker_that_its_rate_holds_back_wakes_others(self, shared: Shared, jobs: Jobs) -> None:
        bounds = Bounds(starts=1, period=600)
        await jobs.add([jobs.spec("echo", "python", queue=Q)])
        assert len(await jobs.claim(Q, "worker", bounds=bounds)) == 1
        async with shared.worker() as heard:
            waiting = [asyncio.create_task(jobs.claim(Q, "worker", wait=2, bounds=bounds)) for _ in range(2)]
            began = time.monotonic()
            await jobs.add([jobs.spec("echo", "node", queue=Q)])
            await eventually(lambda: any(one.get("data") == "node" for one in heard), PATIENCE)
            assert time.monotonic() - began < 1
            assert await asyncio.gather(*waiting) == [[], []]


class TestVanishedWorkers:
    async def test_a_job_of_node_whose_workers_vanish_fails_by_its_rule(self, shared: Shared, jobs: Jobs) -> None:
        await shared.steer(["add", "task", "poison", {"jobId": "poison", "attempts": 9}])
        for stalls in (0, 1):
            async with asyncio.timeout(PATIENCE):
                while not (found := await jobs.claim(Q, "worker", wait=2, lease=0.2)):
                    pass
            assert found[0].job.stalls == stalls

        async def failed() -> bool:
            await jobs.claim(Q, "worker", lease=0.2)
            return (await jobs.get("poison", queue=Q)).state is State.FAILED

        await eventually(failed, PATIENCE)
        assert (await jobs.get("poison", queue=Q)).error == "job stalled more than allowable limit"

    async def test_the_look_of_node_does_not_hold_back_ours(self, shared: Shared, jobs: Jobs) -> None:
        await jobs.add([jobs.spec("task", 1, queue=Q)])
        assert await jobs.claim(Q, "worker", lease=0.3)
        async with shared.worker(name="python has no such task", autorun=False), asyncio.timeout(10):
            while not (found := await jobs.claim(Q, "worker", wait=1, lease=0.3)):
                pass
        assert found[0].job.stalls == 1
