"""Jobs that Node's BullMQ adds are run by Python workers, and the other way about."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from noobly.core.correlation import correlated
from noobly.core.following import origin
from noobly.testing import eventually
from noobly.working import JobContext, JobFailed, Jobs, State

from ..spans import PARENT, in_a_trace
from .sharing_bullmq import PATIENCE, Shared, jobs, shared

__all__ = ["jobs", "shared"]

pytestmark = pytest.mark.servers


def tasks(jobs: Jobs) -> list[object]:
    """Define what Python workers do; return what they were given."""
    seen: list[object] = []

    @jobs.task(queue="shared")
    async def add(data: dict[str, int]) -> int:
        return data["a"] + data["b"]

    @jobs.task(queue="shared")
    async def echo(data: object) -> object:
        seen.append(data)
        return data

    @jobs.task(queue="shared")
    async def report(_: object, job: JobContext) -> str:
        await job.progress({"percent": 50})
        await job.log("from python")
        return "reported"

    @jobs.task(queue="shared", retries=3)
    async def flaky(_: object, job: JobContext) -> int:
        if job.attempt < 3:
            raise ValueError(f"attempt {job.attempt}")
        return job.attempt

    @jobs.task(queue="shared")
    async def total(_: object, job: JobContext) -> int:
        return sum(part.result for part in await jobs.handle(job.id, queue="shared").children())

    return seen


VALUES = [{"name": "Ada Lövelace 東京 🦉", "n": 1.5}, "text", 42, None, [], {"deep": [[{"er": True}]]}]


class TestNodeAddsPythonWorks:
    async def test_values_results_progress_and_logs(self, shared: Shared, jobs: Jobs) -> None:
        seen = tasks(jobs)
        wanted = [{"name": "echo", "data": value} for value in VALUES]
        async with jobs.working(concurrency=1):
            *echoed, added, reported = await shared.produce(
                *wanted, {"name": "add", "data": {"a": 2, "b": 3}}, {"name": "report", "data": {}}
            )
        assert [one["result"] for one in echoed] == seen == VALUES
        assert (added["result"], added["state"], added["attempts"]) == (5, "completed", 1)
        assert (reported["progress"], reported["logs"]) == ({"percent": 50}, ["from python"])

    async def test_retries_with_backoff(self, shared: Shared, jobs: Jobs) -> None:
        tasks(jobs)
        backoff = {"attempts": 4, "backoff": {"type": "exponential", "delay": 50}}
        async with jobs.working():
            good, bad = await shared.produce(
                {"name": "flaky", "data": {}, "opts": backoff}, {"name": "flaky", "data": {}, "opts": {"attempts": 2}}
            )
        assert (good["result"], good["state"], good["attempts"]) == (3, "completed", 3)
        assert (bad["state"], bad["error"], bad["attempts"]) == ("failed", "ValueError: attempt 2", 2)

    async def test_delay_and_priority(self, shared: Shared, jobs: Jobs) -> None:
        seen = tasks(jobs)
        await jobs.pause("shared")
        producing = asyncio.create_task(
            shared.produce(
                {"name": "echo", "data": "late", "opts": {"delay": 1500}},
                {"name": "echo", "data": "third", "opts": {"priority": 10}},
                {"name": "echo", "data": "second", "opts": {"priority": 1}},
                {"name": "echo", "data": "first"},
            )
        )
        counted = asyncio.create_task(self._counted(jobs))
        await counted
        began = time.monotonic()
        async with jobs.working(concurrency=1):
            await jobs.resume("shared")
            await producing
        assert seen == ["first", "second", "third", "late"]
        assert time.monotonic() - began < 10

    async def _counted(self, jobs: Jobs) -> None:
        async def there() -> bool:
            stats = await jobs.stats("shared")
            return (stats.queued, stats.delayed) == (3, 1)

        await eventually(there, PATIENCE)

    async def test_a_flow(self, shared: Shared, jobs: Jobs) -> None:
        tasks(jobs)
        children = [{"name": "add", "queueName": "shared", "data": {"a": n, "b": 1}} for n in range(4)]
        flow = {"name": "total", "queueName": "shared", "data": {}, "children": children}
        async with jobs.working():
            (done,) = await shared.produce({"flow": flow})
        assert (done["result"], done["state"]) == (10, "completed")

    async def test_the_trace(self, shared: Shared, jobs: Jobs) -> None:
        @jobs.task(queue="shared")
        async def look() -> list[str]:
            return list(origin())

        telemetry = {"metadata": json.dumps({"tracestate": "a=b", "traceparent": PARENT})}
        async with jobs.working():
            traced, plain = await shared.produce(
                {"name": "look", "data": {}, "opts": {"telemetry": telemetry}}, {"name": "look", "data": {}}
            )
        assert (traced["result"], plain["result"]) == (["", PARENT], ["", ""])


class TestPythonAddsNodeWorks:
    async def test_values_results_progress_and_logs(self, shared: Shared, jobs: Jobs) -> None:
        tasks(jobs)
        async with shared.worker() as told:
            for value in VALUES:
                handle = await jobs.enqueue("echo", value)
                assert await handle.result(PATIENCE) == value
            handle = await jobs.enqueue("report")
            assert await handle.result(PATIENCE) == "reported"
            assert await handle.progress() == {"percent": 50}
            assert await handle.logs() == ["from node"]
        assert [one["data"] for one in told if one.get("name") == "echo"] == VALUES

    async def test_retries_with_backoff(self, shared: Shared, jobs: Jobs) -> None:
        tasks(jobs)
        async with shared.worker():
            handle = await jobs.enqueue("flaky", retries=3, backoff=0.05)
            job = await handle.wait(PATIENCE)
            assert (job.state, job.result, job.attempts) == (State.SUCCEEDED, 2, 3)
            failing = await jobs.enqueue("flaky", retries=1, backoff=0.05)
            with pytest.raises(JobFailed, match="attempt 2"):
                await failing.result(PATIENCE)
            hopeless = await jobs.enqueue("hopeless", queue="shared", retries=5)
            job = await hopeless.wait(PATIENCE)
            assert (job.state, job.error, job.attempts) == (State.FAILED, "no use", 1)

    async def test_delay_and_priority(self, shared: Shared, jobs: Jobs) -> None:
        tasks(jobs)
        await jobs.pause("shared")
        handles = [
            await jobs.enqueue("echo", "late", delay=1.5),
            *[await jobs.enqueue("echo", priority, priority=priority) for priority in (0, 9, 5)],
        ]
        async with shared.worker(concurrency=1) as told:
            await jobs.resume("shared")
            for handle in handles:
                await handle.wait(PATIENCE)
        assert [one["data"] for one in told if "name" in one] == [9, 5, 0, "late"]

    async def test_a_flow(self, shared: Shared, jobs: Jobs) -> None:
        tasks(jobs)
        async with shared.worker():
            handle = await jobs.batch([jobs.spec("add", {"a": n, "b": 1}) for n in range(4)], then="total")
            assert await handle.result(PATIENCE) == 10
            assert [child.result for child in await handle.children()] == [1, 2, 3, 4]

    async def test_the_trace_and_the_correlation_id(self, shared: Shared, jobs: Jobs) -> None:
        async with shared.worker() as told:
            with correlated("request-7"), in_a_trace():
                traced = await jobs.enqueue("echo", 1, queue="shared")
            plain = await jobs.enqueue("echo", 2, queue="shared")
            for handle in (traced, plain):
                await handle.wait(PATIENCE)
        found = {str(one["id"]): one for one in told if "name" in one}
        assert json.loads(found[traced.id]["telemetry"]) == {"traceparent": PARENT}
        assert found[traced.id]["own"]["correlation_id"] == "request-7"
        assert "telemetry" not in found[plain.id]
        assert "correlation_id" not in found[plain.id]["own"]

    async def test_cancelling_what_waits(self, shared: Shared, jobs: Jobs) -> None:
        tasks(jobs)
        handle = await jobs.enqueue("echo", 1, delay=600)
        assert await handle.cancel() is State.CANCELLED
        async with shared.worker() as told:
            after = await jobs.enqueue("echo", 2)
            await after.wait(PATIENCE)
        assert [one["data"] for one in told if "name" in one] == [2]


async def test_both_share_one_queue(shared: Shared, jobs: Jobs) -> None:
    seen = tasks(jobs)
    async with shared.worker(concurrency=2) as told, jobs.working(concurrency=2):
        tickets = await jobs.add([jobs.spec("echo", number) for number in range(200)])
        for ticket in tickets:
            job = await jobs.handle(ticket.id, queue="shared").wait(PATIENCE)
            assert job.state is State.SUCCEEDED
    node = [one["data"] for one in told if "name" in one]
    assert sorted([*seen, *node]) == list(range(200))


class TestRates:
    async def test_python_keeps_its_rate_on_jobs_of_node(self, shared: Shared, jobs: Jobs) -> None:
        began: list[float] = []

        @jobs.task(queue="shared", rate_limit="4/s")
        async def echo(data: object) -> None:
            began.append(time.monotonic())

        async with jobs.working():
            await shared.produce(*[{"name": "echo", "data": number} for number in range(12)])
        assert len(began) == 12
        assert 1.9 < began[-1] - began[0] < 15  # At most four a second; how much later is the machine's affair.

    async def test_node_keeps_its_rate_on_jobs_of_python(self, shared: Shared, jobs: Jobs) -> None:
        tasks(jobs)
        async with shared.worker(limiter={"max": 4, "duration": 1000}):
            tickets = await jobs.add([jobs.spec("echo", number) for number in range(12)])
            ended = [await jobs.handle(ticket.id, queue="shared").wait(PATIENCE) for ticket in tickets]
        began = sorted(job.started_at for job in ended)
        assert began[-1] - began[0] > 1.9
