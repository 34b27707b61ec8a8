"""Scenarios of background jobs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from noobly.core.clock import fresh_id
from noobly.core.scope import Environment
from noobly.testing.soak.places import (
    TOGETHER,
    Finding,
    Place,
    Scenario,
    Sizes,
    Traffic,
    fresh_name,
    killed_after,
    until,
    until_so,
)
from noobly.working import Jobs, State, Verdict, open_jobs
from noobly.working.driver import NewJob
from noobly.working.events import Blocked
from noobly.working.records import Settled

_BATCH = 500
_STALLS = 2
"""How often a job is handed out again by default."""

_URGENT = "urgent, later"
_STEP = 0.3

_SHORT_LEASE = 1.0
"""Seconds; what holds the loop is named after one."""

_HELD = 3 * TOGETHER
"""Jobs that a worker holds at most, those included that have ended and are being settled."""


def _opened(place: Place, **options: object) -> AbstractAsyncContextManager[Jobs]:
    chosen: dict[str, Any] = {"lease": place.lease, **place.options, **options}
    return open_jobs(place.url, **chosen)


def _working(jobs: Jobs, concurrency: int = TOGETHER) -> AbstractAsyncContextManager[None]:
    """Run jobs beside the body."""
    return jobs.working(concurrency=concurrency, grace=1)


async def killed(place: Place, sizes: Sizes) -> Finding:
    """Kill two workers with SIGKILL amid many jobs."""
    if not place.shared:
        return Finding(skipped="its jobs live in one process")
    queue, count = fresh_name(), min(sizes.messages, place.most)
    seen: Counter[int] = Counter()
    async with _opened(place) as jobs:

        @jobs.task("say", queue=queue)
        async def say(number: int) -> None:
            seen[number] += 1

        for start in range(0, count, _BATCH):
            await jobs.add([jobs.spec(say, number) for number in range(start, min(count, start + _BATCH))])
        held = 0
        for share in (count // 4, count // 4):
            seen.update(int(line) for line in await killed_after(place, queue, "jobs", share))
            held += (await jobs.stats(queue)).running
        began = time.monotonic()
        async with _working(jobs):
            await until(lambda: len(seen) >= count)
            took = time.monotonic() - began
            await until_so(lambda: _all_ended(jobs, queue))
        succeeded = (await jobs.stats(queue)).succeeded
    twice, lost = sum(seen.values()) - len(seen), count - len(seen)
    return Finding(
        good=not lost and twice <= held <= 2 * _HELD and succeeded == count,
        figures=f"{count} jobs, 2 kills: {lost} lost, {twice} twice of {held} under way (at most {2 * _HELD}), "
        f"{succeeded} succeeded; the rest took {took:.1f} s",
    )


async def _all_ended(jobs: Jobs, queue: str) -> bool:
    stats = await jobs.stats(queue)
    return stats.queued + stats.delayed + stats.running + stats.retrying == 0


async def slow(place: Place, _: Sizes) -> Finding:
    """Run a job for three leases, with a second worker beside."""
    queue, runs = fresh_name(), list[float]()
    async with _opened(place) as here, _opened(place) as other:
        there = other if place.shared else here
        for jobs in {here, there}:

            @jobs.task("slow", queue=queue)
            async def sleep() -> None:
                runs.append(time.monotonic())
                await asyncio.sleep(3 * place.lease)

        handle = await here.enqueue("slow")
        async with _working(here, 2), _working(there, 2):
            await asyncio.sleep(4.5 * place.lease)
        job = await here.get(handle.id, queue=queue)
    good = len(runs) == 1 and job.state is State.SUCCEEDED and job.stalls == 0
    return Finding(good=good, figures=f"{3 * place.lease:g} s under leases of {place.lease:g} s: ran {len(runs)} times")


def hold(path: str) -> None:
    """Note a run in a file, and hold the process for as long as the file's name says, in milliseconds."""
    with Path(path).open("a") as file:
        file.write("run\n")
    time.sleep(int(path.rpartition("-")[2]) / 1000)


async def in_process(place: Place, _: Sizes) -> Finding:
    """Run a job that never yields for three leases, in a process of its own."""
    queue = fresh_name()
    with TemporaryDirectory() as folder:
        path = f"{folder}/runs-{round(3000 * place.lease)}"
        async with _opened(place) as jobs:
            task = jobs.task("hold", queue=queue, execution="process")(hold)
            handle = await jobs.enqueue(task, path)
            async with _working(jobs, 2):
                job = await handle.wait(30 * place.lease)
        runs = await asyncio.to_thread(lambda: Path(path).read_text().count("run"))
    good = runs == 1 and job.state is State.SUCCEEDED and job.stalls == 0
    return Finding(good=good, figures=f"ran {runs} times, {job.state.value}")


async def on_the_loop(place: Place, _: Sizes) -> Finding:
    """Run a job that never yields for two leases on the event loop: it is named; memory may run it twice."""
    queue, runs, named = fresh_name(), list[float](), list[Blocked]()
    environment = Environment()
    environment.bus.subscribe(Blocked, named.append)
    async with _opened(place, environment=environment, lease=_SHORT_LEASE) as jobs:

        @jobs.task("blocking", queue=queue)
        async def block() -> None:
            runs.append(time.monotonic())
            time.sleep(2 * _SHORT_LEASE)  # noqa: ASYNC251 - what is not to be done

        handle = await jobs.enqueue(block)
        async with _working(jobs, 2):
            job = await handle.wait(60)
            await until(lambda: named)
    # The heart of a worker beats in a thread of its own, but on memory on the loop; then the job runs again.
    good = len(runs) == 1 and job.state is State.SUCCEEDED if place.shared else 1 <= len(runs) <= 1 + _STALLS
    return Finding(good=good, figures=f"ran {len(runs)} times, named as {named[0].task!r}, {job.state.value}")


async def poison(place: Place, _: Sizes) -> Finding:
    """Put a job whose argument is no JSON between good ones."""
    queue, seen, id = fresh_name(), list[int](), fresh_id()
    async with _opened(place) as jobs:

        @jobs.task("good", queue=queue)
        async def good(number: int) -> None:
            seen.append(number)

        await jobs.enqueue(good, 1)
        await jobs._driver.add([NewJob(id=id, queue=queue, task="good", data=b"\xff\xfe{ no json")])
        async with _working(jobs):
            await until(lambda: seen)
            bad = await jobs.handle(id, queue=queue).wait(30)
            await (await jobs.enqueue(good, 2)).result(30)
    fine = bad.state is State.FAILED and seen == [1, 2]
    return Finding(
        good=fine, figures=f"the bad one {bad.state.value}: {bad.error[:60]!r}; {len(seen)} of 2 good ones ran"
    )


async def stale(place: Place, _: Sizes) -> Finding:
    """Settle a claim whose lease has ended."""
    queue = fresh_name()
    async with _opened(place) as jobs:
        await jobs.enqueue("some", queue=queue)
        (first,) = await jobs.claim(queue, "one", wait=2, lease=place.lease)
        second = await jobs.claim(queue, "two", lease=place.lease)
        while not second:
            second = await jobs.claim(queue, "two", wait=2, lease=place.lease)
        ends = [
            Settled(id=one.job.id, token=one.token, verdict=Verdict.SUCCEEDED, result=result)
            for one, result in ((first, "late"), (second[0], "good"))
        ]
        stood = [(await jobs.settle(queue, [end]))[0] for end in ends]
        job = await jobs.get(first.job.id, queue=queue)
    good = stood == [False, True] and job.result == "good" and job.stalls == 1 and second[0].fence > first.fence
    return Finding(good=good, figures=f"settled: {stood}, fences {first.fence} and {second[0].fence}")


async def timed(place: Place, _: Sizes) -> Finding:
    """Delay an urgent job while others wait."""
    queue, seen, began = fresh_name(), list[str](), dict[str, float]()
    async with _opened(place) as jobs:

        @jobs.task("note", queue=queue)
        async def note(name: str) -> None:
            seen.append(name)
            began[name] = time.monotonic()
            await asyncio.sleep(_STEP)

        for number in range(5):
            await jobs.enqueue(note, str(number), priority=number)
        async with _working(jobs, 1):
            await until(lambda: seen)
            added = time.monotonic()
            await jobs.enqueue(note, _URGENT, priority=9, delay=1.5 * _STEP)
            await until(lambda: len(seen) == 6)
    rest = [name for name in seen if name != _URGENT]
    waited = began[_URGENT] - added
    good = rest == ["4", "3", "2", "1", "0"] and waited >= 1.49 * _STEP and seen[-1] != _URGENT
    return Finding(good=good, figures=f"{', '.join(seen)}; the urgent one after {waited:.2f} of {1.5 * _STEP:.2f} s")


async def disturbed(place: Place, sizes: Sizes) -> Finding:
    """Restart the server amid jobs, and freeze it."""
    queue = fresh_name()
    if place.server is None:
        return Finding(skipped="it has no server of its own")
    async with _opened(place, timeout=1.0, breaker_pause=0.1) as jobs:
        traffic = Traffic(lambda number: jobs.enqueue(count, number))

        @jobs.task("count", queue=queue)
        async def count(number: int) -> None:
            traffic.seen[number] += 1

        async with traffic.flowing(), _working(jobs):
            figures = await traffic.through(place.server, sizes.pause)
    return Finding(figures=figures)


async def idle(place: Place, sizes: Sizes) -> Finding:
    """Add a job for a worker that has been idle for long."""
    queue, began = fresh_name(), dict[int, float]()
    async with _opened(place, lease=30.0) as jobs:

        @jobs.task("begin", queue=queue)
        async def begin(number: int) -> None:
            began[number] = time.monotonic()

        async with _working(jobs):
            await jobs.enqueue(begin, -1)
            await until(lambda: -1 in began)
            await asyncio.sleep(sizes.idle)
            added = time.monotonic()
            await jobs.enqueue(begin, 0)
            await until(lambda: 0 in began)
    late = began[0] - added
    return Finding(
        good=late < sizes.prompt, figures=f"begun after {1e3 * late:.1f} ms, idle for {sizes.idle:g} s before"
    )


async def limited(place: Place, sizes: Sizes) -> Finding:
    """Run 12 jobs at 4 per second."""
    queue, began = fresh_name(), list[float]()
    async with _opened(place, lease=30.0) as jobs:

        @jobs.task("limited", queue=queue, rate_limit="4/s")
        async def note() -> None:
            began.append(time.monotonic())

        await jobs.add([jobs.spec(note) for _ in range(12)])
        async with _working(jobs, 12):
            await until(lambda: len(began) == 12)
    took = began[-1] - began[0]
    return Finding(good=2.0 - sizes.early <= took <= 2.0 + sizes.late, figures=f"12 jobs in {took:.2f} s")


JOB_SCENARIOS = (
    Scenario("1 kill -9 of workers loses nothing", killed, alone=True),
    Scenario("2 a job longer than its lease runs once", slow),
    Scenario("3 a blocking job in a process runs once", in_process),
    Scenario("3 a blocking job on the loop is named", on_the_loop, alone=True),
    Scenario("4 poison fails, and the worker lives", poison),
    Scenario("5 an old claim is refused", stale),
    Scenario("7 delay and priority together", timed),
    Scenario("8 restart and pause of the server", disturbed, alone=True),
    Scenario("9 an idle worker begins at once", idle),
    Scenario("10 4 per second over 12 jobs", limited),
)
"""All scenarios of jobs."""
