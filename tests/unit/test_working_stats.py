"""What metrics tell of jobs."""

from __future__ import annotations

from noobly.core.scope import Environment
from noobly.testing import eventually
from noobly.working import open_jobs


def attempts(environment: Environment) -> dict[tuple[str, str], float]:
    [family] = [one for one in environment.meter.registry.collect() if one.name == "noobly_job_duration_seconds"]
    return {
        (one.labels["task"], one.labels["verdict"]): one.value for one in family.samples if one.name.endswith("_count")
    }


async def test_attempts_are_measured_by_how_they_ended() -> None:
    environment = Environment()
    async with open_jobs(environment=environment) as jobs:
        tries: list[int] = []

        @jobs.task()
        async def good() -> None: ...

        @jobs.task(retries=1, backoff=0.001)
        async def bad() -> None:
            tries.append(1)
            raise ValueError("no")

        async with jobs.working():
            await jobs.enqueue(good)
            await jobs.enqueue(good)
            last = await jobs.enqueue(bad)
            assert (await last.wait(10)).state.value == "failed"
            await eventually(lambda: sum(attempts(environment).values()) == 4)
        value = environment.meter.registry.get_sample_value
        added = {"instance": "default", "queue": "default", "task": "good"}
        assert value("noobly_jobs_added_total", added) == 2
    assert attempts(environment) == {("good", "succeeded"): 2, ("bad", "retry"): 1, ("bad", "failed"): 1}


async def test_jobs_are_shown_by_state_when_somebody_scrapes() -> None:
    environment = Environment()
    async with open_jobs(environment=environment) as jobs:
        await jobs.enqueue("one")
        await jobs.enqueue("two", delay=60)
        gone = await jobs.enqueue("three", queue="mail")
        await environment.meter.look()
        value = environment.meter.registry.get_sample_value

        def shown(queue: str, state: str) -> float | None:
            return value("noobly_jobs", {"instance": "default", "queue": queue, "state": state})

        assert (shown("default", "queued"), shown("default", "delayed"), shown("default", "failed")) == (1, 1, 0)
        assert shown("mail", "queued") == 1
        await jobs.remove(gone.id, queue="mail")
        await environment.meter.look()
        assert shown("mail", "queued") == 0


async def test_none_may_be_asked_for() -> None:
    environment = Environment()
    async with open_jobs(environment=environment, depth_queues=0) as jobs:
        await jobs.enqueue("one")
        await environment.meter.look()
        labels = {"instance": "default", "queue": "default", "state": "queued"}
        assert environment.meter.registry.get_sample_value("noobly_jobs", labels) is None
