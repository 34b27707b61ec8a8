"""Running: what a handler gets, what becomes of what it returns and raises, and how it is tried again."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import pytest

from noobly.core.errors import DeadlineExceeded, NotFound, RateLimited
from noobly.testing.clock import eventually
from noobly.testing.working.harness import CHANCE, JobHarness
from noobly.testing.working.theme import LONG, PATIENCE, LiveTheme
from noobly.working import JobContext, JobFailed, Jobs, JobSpec, State, ThreadContext, Verdict
from noobly.working.records import Settled


class Photo(msgspec.Struct):
    """An argument with a type."""

    path: str
    width: int = 800


@dataclass
class Size:
    """A result with a type."""

    width: int
    height: int


class RunningTheme(LiveTheme):
    """A handler runs as its task says."""

    async def test_an_async_handler(self, live: Jobs) -> None:
        @live.task()
        async def resize(photo: Photo) -> str:
            return f"{photo.path} {photo.width}"

        async with live.working():
            handle = await live.enqueue(resize, {"path": "ada.jpg"})
            assert await handle.result(PATIENCE) == "ada.jpg 800"
            assert await (await live.enqueue("resize", Photo("bob.jpg", 5))).result(PATIENCE) == "bob.jpg 5"
        job = await handle.job()
        assert (job.state, job.result, job.attempts, job.error) == (State.SUCCEEDED, "ada.jpg 800", 1, "")
        assert job.worker

    async def test_a_handler_in_a_thread(self, live: Jobs) -> None:
        @live.task()
        def named(photo: Photo) -> list[object]:
            return [photo.width, threading.current_thread() is threading.main_thread()]

        async with live.working():
            assert await (await live.enqueue(named, Photo("a"))).result(PATIENCE) == [800, False]

    async def test_handlers_without_arguments(self, live: Jobs) -> None:
        @live.task()
        async def nothing() -> None:
            pass

        @live.task()
        def plain() -> int:
            return 5

        async with live.working():
            assert (await (await live.enqueue(nothing)).wait(PATIENCE)).result is None
            assert await (await live.enqueue(plain)).result(PATIENCE) == 5

    async def test_results_come_by_type(self, live: Jobs) -> None:
        @live.task()
        async def measure(_: None) -> Size:
            return Size(3, 4)

        async with live.working():
            handle = await live.enqueue(measure)
            assert await handle.result(PATIENCE) == Size(3, 4)
            assert await live.handle(handle.id).result(PATIENCE) == {"width": 3, "height": 4}

    async def test_what_a_handler_knows_of_its_job(self, live: Jobs) -> None:
        seen: list[JobContext] = []

        @live.task(retries=2, backoff=0.001)
        async def look(_: None, job: JobContext) -> None:
            seen.append(job)
            if job.attempt < 3:
                raise ValueError("again")

        async with live.working():
            handle = await live.enqueue(look, id="an id")
            await handle.result(PATIENCE)
        assert [job.attempt for job in seen] == [1, 2, 3]
        assert [job.info.last for job in seen] == [False, False, True]
        assert {(job.id, job.key, job.info.queue, job.info.task) for job in seen} == {
            ("an id", "default:an id", "default", "look")
        }
        fences = [job.fence for job in seen]
        assert fences == sorted(set(fences))

    async def test_a_thread_knows_the_same_and_reports(self, live: Jobs) -> None:
        @live.task()
        def work(_: None, job: ThreadContext) -> list[object]:
            job.progress({"percent": 50})
            job.log("one", "two")
            job.log("three")
            return [job.id, job.key, job.attempt, job.fence >= 1, job.cancelled]

        async with live.working():
            handle = await live.enqueue(work, id="x")
            assert await handle.result(PATIENCE) == ["x", "default:x", 1, True, False]
        assert await handle.progress() == {"percent": 50}
        assert await handle.logs() == ["one", "two", "three"]

    async def test_progress_shows_while_it_runs(self, live: Jobs) -> None:
        go = asyncio.Event()

        @live.task()
        async def work(_: None, job: JobContext) -> None:
            await job.progress(5)
            await job.log("begun")
            await go.wait()
            await job.progress(100)

        async with live.working():
            handle = await live.enqueue(work)

            async def reported() -> bool:
                return await handle.progress() == 5 and await handle.logs() == ["begun"]

            await eventually(reported, timeout=PATIENCE)
            assert await handle.status() is State.RUNNING
            go.set()
            await handle.result(PATIENCE)
        assert await handle.progress() == 100

    async def test_an_exception_fails_the_job(self, live: Jobs) -> None:
        @live.task()
        async def bad(_: None) -> None:
            raise ValueError("no luck")

        @live.task()
        def worse(_: None) -> None:
            raise KeyError("gone")

        async with live.working():
            for task, text in ((bad, "ValueError: no luck"), (worse, "KeyError: 'gone'")):
                handle = await live.enqueue(task)
                with pytest.raises(JobFailed, match=text.split(":")[0]) as failure:
                    await handle.result(PATIENCE)
                assert failure.value.job is not None
                assert (failure.value.job.state, failure.value.job.error) == (State.FAILED, text)

    async def test_retries_until_it_works(self, live: Jobs) -> None:
        times: list[float] = []

        @live.task(retries=5, backoff=0.2)
        async def flaky(_: None) -> int:
            times.append(asyncio.get_running_loop().time())
            if len(times) < 4:
                raise OSError("not yet")
            return len(times)

        async with live.working():
            handle = await live.enqueue(flaky)
            assert await handle.result(PATIENCE) == 4
        job = await handle.job()
        assert (job.attempts, job.max_attempts, job.error) == (4, 6, "")
        for number, (before, after) in enumerate(pairwise(times)):
            assert after - before >= 0.2 * 2**number * CHANCE - 0.01

    async def test_the_pauses_are_jittered_and_capped(self, live: Jobs, harness: JobHarness) -> None:
        @live.task(retries=9, backoff=LONG, backoff_cap=1.5 * LONG)
        async def bad(_: None) -> None:
            raise ValueError

        async with live.working():
            handle = await live.enqueue(bad)
            for pause in (LONG, 1.5 * LONG, 1.5 * LONG):

                async def failed() -> bool:
                    return await handle.status() is State.RETRYING

                await eventually(failed, timeout=PATIENCE)
                job = await handle.job()
                assert job.run_at - job.started_at == pytest.approx(pause * CHANCE, abs=PATIENCE)
                assert await live.rerun(handle.id)

    async def test_retries_end(self, live: Jobs) -> None:
        @live.task(retries=2, backoff=0.001)
        async def bad(_: None, job: JobContext) -> None:
            raise ValueError(job.attempt)

        async with live.working():
            handle = await live.enqueue(bad)
            job = await handle.wait(PATIENCE)
        assert (job.state, job.attempts, job.max_attempts, job.error) == (State.FAILED, 3, 3, "ValueError: 3")

    async def test_what_the_error_says_of_another_try(self, live: Jobs) -> None:
        @live.task(retries=1, backoff=0.001)
        async def limited(_: None) -> None:
            raise RateLimited("slow down", retry_after=LONG)

        async with live.working():
            handle = await live.enqueue(limited)

            async def failed() -> bool:
                return await handle.status() is State.RETRYING

            await eventually(failed, timeout=PATIENCE)
            job = await handle.job()
            assert job.run_at - job.started_at == pytest.approx(LONG, abs=PATIENCE)

    async def test_what_is_not_to_be_tried_again(self, live: Jobs) -> None:
        @live.task(retries=5, no_retry_on=[LookupError])
        async def missing(_: None) -> None:
            raise KeyError("gone")

        async with live.working():
            job = await (await live.enqueue(missing)).wait(PATIENCE)
        assert (job.state, job.attempts) == (State.FAILED, 1)

    async def test_a_job_may_go_without_the_limit_of_its_task(self, live: Jobs) -> None:
        @live.task(timeout=0.05)
        async def work(_: None) -> str:
            await asyncio.sleep(0.2)
            return "done"

        async with live.working():
            assert await (await live.enqueue(work, timeout=0)).result(PATIENCE) == "done"
            (ticket,) = await live.add([JobSpec(task="work")])
            job = await live.handle(ticket.id).wait(PATIENCE)
        assert (job.state, job.error) == (State.FAILED, "it took over 0.05 s")

    async def test_a_task_nobody_knows(self, live: Jobs) -> None:
        @live.task()
        async def known(_: None) -> None:
            pass

        async with live.working():
            job = await (await live.enqueue("unknown")).wait(PATIENCE)
            assert job.state is State.FAILED
            assert "unknown" in job.error
            assert (await (await live.enqueue(known)).wait(PATIENCE)).state is State.SUCCEEDED

    async def test_an_argument_of_another_type(self, live: Jobs) -> None:
        calls: list[Photo] = []

        @live.task(retries=3)
        async def resize(photo: Photo) -> None:
            calls.append(photo)

        @live.task(retries=3)
        def shrink(photo: Photo) -> None:
            calls.append(photo)

        async with live.working():
            for name in ("resize", "shrink"):
                job = await (await live.enqueue(name, {"width": "wide"})).wait(PATIENCE)
                assert (job.state, job.attempts) == (State.FAILED, 1)
                assert "invalid_argument" in job.error
        assert calls == []

    async def test_a_result_that_json_cannot_carry(self, live: Jobs) -> None:
        @live.task(retries=3)
        async def bad(_: None) -> object:
            return object()

        @live.task()
        async def good(_: None) -> int:
            return 1

        async with live.working():
            handles = [await live.enqueue(name) for name in ("good", "bad", "good")]
            first, job, last = [await handle.wait(PATIENCE) for handle in handles]
        assert (job.state, job.result, job.attempts) == (State.FAILED, None, 1)
        assert "object" in job.error
        assert (first.result, last.result) == (1, 1)

    async def test_progress_that_json_cannot_carry_fails_the_handler(self, live: Jobs) -> None:
        @live.task()
        async def bad(_: None, job: JobContext) -> None:
            await job.progress(object())

        async with live.working():
            job = await (await live.enqueue(bad)).wait(PATIENCE)
        assert job.state is State.FAILED
        assert "invalid_argument" in job.error

    async def test_so_many_at_once(self, live: Jobs) -> None:
        now = most = 0
        enough = asyncio.Event()

        @live.task()
        async def work(_: None) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            if now == 3:
                enough.set()
            await enough.wait()
            now -= 1

        async with live.working(concurrency=3):
            handles = [await live.enqueue(work) for _ in range(12)]
            for handle in handles:
                await handle.result(PATIENCE)
        assert most == 3

    async def test_so_many_at_once_over_all_queues(self, live: Jobs) -> None:
        now = most = 0

        async def work(_: None) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

        tasks = [live.task(f"task {number}", queue=f"queue {number}")(work) for number in range(4)]
        handles = [await live.enqueue(task) for task in tasks for _ in range(6)]
        async with live.working(concurrency=2):
            for handle in handles:
                job = await handle.wait(PATIENCE)
                assert (job.state, job.attempts, job.stalls) == (State.SUCCEEDED, 1, 0)
        assert most <= 2

    async def test_higher_priorities_run_first(self, live: Jobs) -> None:
        order: list[int] = []

        @live.task()
        async def work(number: int) -> None:
            order.append(number)

        handles = [await live.enqueue(work, number, priority=number) for number in (1, 9, 5, 9)]
        async with live.working(concurrency=1):
            for handle in handles:
                await handle.result(PATIENCE)
        assert order == [9, 9, 5, 1]

    async def test_equal_arguments_are_one_job(self, live: Jobs) -> None:
        @live.task(unique=True)
        async def once(_: dict[str, int]) -> None:
            pass

        first = await live.enqueue(once, {"a": 1, "b": 2})
        for equal in ({"a": 1, "b": 2}, {"b": 2, "a": 1}):
            again = await live.enqueue(once, equal)
            assert (again.id, again.duplicate) == (first.id, True)
        assert not (await live.enqueue(once, {"a": 2, "b": 1})).duplicate
        async with live.working():
            await first.result(PATIENCE)
        assert not (await live.enqueue(once, {"a": 1, "b": 2})).duplicate

    async def test_a_job_nobody_began_in_its_time(self, live: Jobs, harness: JobHarness) -> None:
        calls: list[int] = []

        @live.task()
        async def work(number: int) -> None:
            calls.append(number)

        late = await live.enqueue(work, 1, expires=harness.tick)
        await harness.advance(3 * harness.tick)
        good = await live.enqueue(work, 2, expires=LONG)
        async with live.working():
            with pytest.raises(JobFailed, match="expired"):
                await late.result(PATIENCE)
            await good.result(PATIENCE)
        assert calls == [2]
        assert await late.status() is State.EXPIRED

    async def test_a_job_that_was_begun_in_its_time_and_given_back(self, live: Jobs, harness: JobHarness) -> None:
        @live.task()
        async def work(number: int) -> int:
            return number

        handle = await live.enqueue(work, 1, expires=harness.tick)
        (held,) = await live.claim("default", "one that stops", wait=2)
        await live.settle("default", [Settled(id=held.job.id, token=held.token, verdict=Verdict.RELEASE)])
        await harness.advance(3 * harness.tick)
        async with live.working():
            assert await handle.result(PATIENCE) == 1

    async def test_a_result_that_does_not_come(self, live: Jobs) -> None:
        handle = await live.enqueue("nobody runs this")
        with pytest.raises(DeadlineExceeded, match="queued"):
            await handle.result(0.05)
        assert await handle.cancel() is State.CANCELLED
        with pytest.raises(JobFailed, match="cancelled"):
            await handle.result(0.05)
        with pytest.raises(NotFound):
            await live.handle("nobody").result(1)
