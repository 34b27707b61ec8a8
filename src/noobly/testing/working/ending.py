"""Ending: handlers whose time is over, or whose job somebody cancels; and handlers in processes of their own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from noobly.testing import job_handlers
from noobly.testing.clock import eventually
from noobly.testing.working.theme import LONG, PATIENCE, LiveTheme
from noobly.working import JobHandle, Jobs, State, ThreadContext


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _begun(handle: JobHandle[object]) -> None:
    async def runs() -> bool:
        return await handle.status() is State.RUNNING

    await eventually(runs, timeout=PATIENCE)


class EndingTheme(LiveTheme):
    """A handler ends when it shall."""

    async def test_a_timeout_of_an_async_handler(self, live: Jobs) -> None:
        ended: list[str] = []

        @live.task(timeout=0.2)
        async def slow(_: None) -> None:
            try:
                await asyncio.sleep(LONG)
            finally:
                ended.append("ended")

        async with live.working():
            job = await (await live.enqueue(slow)).wait(PATIENCE)
        assert job.state is State.FAILED
        assert "0.2 s" in job.error
        assert ended == ["ended"]

    async def test_a_timeout_counts_for_each_attempt(self, live: Jobs) -> None:
        attempts: list[int] = []

        @live.task(timeout=0.2, retries=2, backoff=0.001)
        async def slow(_: None) -> int:
            attempts.append(1)
            if len(attempts) < 3:
                await asyncio.sleep(LONG)
            return len(attempts)

        async with live.working():
            assert await (await live.enqueue(slow)).result(PATIENCE) == 3

    async def test_a_timeout_of_the_job_wins_over_that_of_its_task(self, live: Jobs) -> None:
        @live.task(timeout=LONG)
        async def slow(_: None) -> None:
            await asyncio.sleep(LONG)

        async with live.working():
            job = await (await live.enqueue(slow, timeout=0.2)).wait(PATIENCE)
        assert "0.2 s" in job.error

    async def test_a_timeout_of_a_thread(self, live: Jobs) -> None:
        ended = threading.Event()

        @live.task(timeout=0.2)
        def slow(_: None, job: ThreadContext) -> None:
            while not job.cancelled:
                ended.wait(0.01)
            ended.set()

        async with live.working():
            job = await (await live.enqueue(slow)).wait(PATIENCE)
            assert (job.state, "0.2 s" in job.error) == (State.FAILED, True)
            await eventually(ended.is_set, timeout=PATIENCE)

    async def test_cancelling_an_async_handler(self, live: Jobs) -> None:
        ended: list[str] = []

        @live.task(retries=5)
        async def slow(_: None) -> None:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        async with live.working():
            handle = await live.enqueue(slow)
            await _begun(handle)
            assert await handle.cancel() is State.RUNNING
            job = await handle.wait(PATIENCE)
        assert (job.state, job.attempts, ended) == (State.CANCELLED, 1, ["cancelled"])

    async def test_cancelling_a_thread(self, live: Jobs) -> None:
        ended = threading.Event()

        @live.task()
        def slow(_: None, job: ThreadContext) -> None:
            while not job.cancelled:
                ended.wait(0.01)
            ended.set()

        async with live.working():
            handle = await live.enqueue(slow)
            await _begun(handle)
            await handle.cancel()
            assert (await handle.wait(PATIENCE)).state is State.CANCELLED
            await eventually(ended.is_set, timeout=PATIENCE)

    async def test_a_handler_that_cancels_itself_has_failed(self, live: Jobs) -> None:
        @live.task()
        async def odd(_: None) -> None:
            raise asyncio.CancelledError

        async with live.working():
            job = await (await live.enqueue(odd)).wait(PATIENCE)
            assert (job.state, job.attempts) == (State.FAILED, 1)
            assert "cancelled itself" in job.error

    async def test_a_handler_that_will_not_be_cancelled(self, live: Jobs) -> None:
        @live.task(timeout=0.1)
        async def stubborn(_: None) -> str:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                return "done all the same"
            return "never"

        async with live.working():
            assert await (await live.enqueue(stubborn)).result(PATIENCE) == "done all the same"


class ProcessTheme(LiveTheme):
    """Handlers in processes of their own."""

    @asynccontextmanager
    async def _working(self, live: Jobs) -> AsyncIterator[None]:
        live.tasks.include(job_handlers.tasks)
        async with live.working(concurrency=2):
            yield

    async def test_results(self, live: Jobs) -> None:
        async with self._working(live):
            handle = await live.enqueue(job_handlers.twice, {"number": 21, "lines": []})
            assert await handle.result(PATIENCE) == 42
            assert await (await live.enqueue(job_handlers.awaited, 5)).result(PATIENCE) == 5

    async def test_what_a_handler_knows(self, live: Jobs) -> None:
        async with self._working(live):
            known = await (await live.enqueue(job_handlers.about, id="x")).result(PATIENCE)
        assert known.pop("pid") != os.getpid()
        assert known.pop("fence")
        assert known == {
            "id": "x", "queue": "default", "task": "about", "attempt": 1, "last": True, "key": "default:x",
        }  # fmt: skip

    async def test_it_reports(self, live: Jobs) -> None:
        async with self._working(live):
            handle = await live.enqueue(job_handlers.reporting, id="x")
            known = await handle.result(PATIENCE)
        assert known == ["x", "default", "reporting", 1, True, "default:x", False]
        assert await handle.progress() == {"percent": 50}
        assert await handle.logs() == ["one", "two"]

    async def test_failures(self, live: Jobs) -> None:
        expected = {
            "raising": "ValueError: no luck",
            "hopeless": "Hopeless: give up",
            "unspeakable": "invalid_argument: ",
            "leaving": "SystemExit: 3",
            "unreportable": "invalid_argument: ",
            "speechless": "Unspoken, whose text cannot be had",
            "twice": "invalid_argument: ",
        }
        async with self._working(live):
            for name, text in expected.items():
                job = await (await live.enqueue(name, {"number": "x"} if name == "twice" else None)).wait(PATIENCE)
                assert (job.state, job.attempts) == (State.FAILED, 1)
                assert job.error.startswith(text)

    async def test_what_the_error_says_there_of_another_try(self, live: Jobs) -> None:
        async with self._working(live):
            handle = await live.enqueue(job_handlers.limited, LONG)

            async def failed() -> bool:
                return await handle.status() is State.RETRYING

            await eventually(failed, timeout=PATIENCE)
            job = await handle.job()
            assert job.run_at - job.started_at == pytest.approx(LONG, abs=PATIENCE)

    @pytest.mark.parametrize("how", ["timeout", "cancel"])
    async def test_its_process_is_killed(self, live: Jobs, tmp_path: Path, how: str) -> None:
        file = tmp_path / "pid"
        async with self._working(live):
            handle = await live.enqueue(job_handlers.stuck, str(file), timeout=5.0 if how == "timeout" else LONG)
            await eventually(lambda: file.exists() and file.read_text(), timeout=PATIENCE)
            if how == "cancel":
                assert await handle.cancel() is State.RUNNING
            job = await handle.wait(PATIENCE)
            assert job.state is (State.FAILED if how == "timeout" else State.CANCELLED)
            await eventually(lambda: not _alive(int(file.read_text())), timeout=PATIENCE)
            assert await (await live.enqueue(job_handlers.awaited, 5)).result(PATIENCE) == 5
