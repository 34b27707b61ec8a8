"""The trace and the correlation id of a job, from whoever adds it to those who run it."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from noobly.core.correlation import correlated, correlation_id
from noobly.core.following import origin
from noobly.testing import eventually, job_handlers
from noobly.working import JobContext, Jobs, State, Tasks, open_jobs
from noobly.working.driver import NewJob, Retrying
from noobly.working.executing import Executor
from noobly.working.following import followed
from noobly.working.records import Held, Job

from ..spans import PARENT, in_a_trace, provider, spans

__all__ = ["provider", "spans"]

PATIENCE = 20.0


class UnspokenError(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


def attempts(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == "working.process"]


def traceparent(span: ReadableSpan) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


class TestSpans:
    async def test_each_attempt_has_one_linked_to_where_its_job_was_added(
        self, spans: InMemorySpanExporter, jobs: Jobs
    ) -> None:
        @jobs.task(retries=1, backoff=0.001)
        async def work(_: None, job: JobContext) -> None:
            await job.progress(1)
            if not job.last:
                raise ValueError("bad")

        with in_a_trace():
            handle = await jobs.enqueue(work, id="x")
        async with jobs.working():
            await handle.result(PATIENCE)
        first, second = attempts(spans)
        for number, span in enumerate((first, second), 1):
            assert span.kind is SpanKind.CONSUMER
            (link,) = span.links
            assert f"{link.context.trace_id:032x}" == PARENT.split("-")[1]
            assert span.attributes == {
                "messaging.destination.name": "default", "messaging.message.id": "x",
                "noobly.task": "work", "noobly.attempt": number,
            }  # fmt: skip
            within = {one.name for one in spans.get_finished_spans() if one.parent == span.context}
            assert within == {"working.report"}
        assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "ValueError: bad")
        assert [event.attributes["exception.type"] for event in first.events if event.attributes] == ["ValueError"]
        assert second.status.status_code is StatusCode.UNSET

    async def test_a_job_of_nobody_has_one_without_a_link(self, spans: InMemorySpanExporter, jobs: Jobs) -> None:
        @jobs.task()
        async def work() -> None:
            pass

        async with jobs.working():
            await (await jobs.enqueue(work)).result(PATIENCE)
        (span,) = attempts(spans)
        assert (span.links, span.parent) == ((), None)

    async def test_what_a_handler_adds_is_of_its_attempt(self, spans: InMemorySpanExporter, jobs: Jobs) -> None:
        @jobs.task()
        async def work() -> None:
            await jobs.enqueue("next", id="next")

        @jobs.task()
        def plain() -> list[str]:
            return list(origin())

        jobs.tasks.include(job_handlers.tasks)
        async with jobs.working(concurrency=1):
            with correlated("request-7"):
                handles = [await jobs.enqueue(task) for task in (work, plain, job_handlers.origins)]
            _, *seen = [await handle.result(PATIENCE) for handle in handles]
        later = await jobs.get("next")
        by_task = {
            str(span.attributes["noobly.task"]): traceparent(span) for span in attempts(spans) if span.attributes
        }
        assert (later.correlation_id, later.traceparent) == ("request-7", by_task["work"])
        assert seen == [["request-7", by_task["plain"]], ["request-7", by_task["origins"]]]

    @pytest.mark.parametrize("error", [UnspokenError(), SystemExit(3)], ids=repr)
    async def test_whatever_a_handler_raises(
        self, spans: InMemorySpanExporter, jobs: Jobs, error: BaseException
    ) -> None:
        @jobs.task()
        async def work() -> None:
            raise error

        async with jobs.working():
            job = await (await jobs.enqueue(work)).wait(PATIENCE)
        (span,) = attempts(spans)
        assert (job.state, span.status.status_code, span.status.description) == (
            State.FAILED,
            StatusCode.ERROR,
            job.error,
        )

    async def test_one_that_is_cancelled_has_not_failed(self, spans: InMemorySpanExporter, jobs: Jobs) -> None:
        begun = asyncio.Event()

        @jobs.task()
        async def work() -> None:
            begun.set()
            await asyncio.Event().wait()

        async with jobs.working():
            handle = await jobs.enqueue(work)
            await asyncio.wait_for(begun.wait(), PATIENCE)
            await handle.cancel()
            assert (await handle.wait(PATIENCE)).state is State.CANCELLED
        (span,) = attempts(spans)
        assert span.status.status_code is StatusCode.UNSET

    async def test_one_that_cannot_be_read_has(self, spans: InMemorySpanExporter, jobs: Jobs) -> None:
        jobs.task(name="t")(lambda: None)
        await jobs._driver.add([NewJob(id="x", queue="default", task="t", data=b"{")])
        async with jobs.working():
            job = await jobs.handle("x").wait(PATIENCE)
        (span,) = attempts(spans)
        assert job.state is State.FAILED
        assert job.error in str(span.status.description)

    async def test_what_is_damaged_counts_as_none(self, spans: InMemorySpanExporter, jobs: Jobs) -> None:
        seen: list[str] = []
        jobs.task(name="t")(lambda: seen.append(correlation_id()))
        damaged = NewJob(
            id="x", queue="default", task="t", data=b"1", correlation_id="no id, but text", traceparent="no trace"
        )
        await jobs._driver.add([damaged])
        async with jobs.working():
            assert (await jobs.handle("x").wait(PATIENCE)).state is State.SUCCEEDED
        (span,) = attempts(spans)
        assert span.links == ()
        assert seen[0] not in ("", "no id, but text")


async def test_what_is_logged_of_an_attempt_has_the_id_of_its_request(jobs: Jobs) -> None:
    seen: list[tuple[str, str]] = []

    class Seeing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.getMessage().partition(",")[0], correlation_id()))

    @jobs.task()
    async def work() -> None:
        logging.getLogger("noobly.working").error("working, here")
        raise ValueError("bad")

    log, handler = logging.getLogger("noobly.working"), Seeing()
    log.addHandler(handler)
    try:
        with correlated("request-7"):
            handle = await jobs.enqueue(work, id="x")
        async with jobs.working():
            await handle.wait(PATIENCE)
    finally:
        log.removeHandler(handler)
    assert seen == [("working", "request-7"), ("job x of queue 'default'", "request-7")]


async def test_nothing_is_entered_where_there_is_nothing() -> None:
    job = Job(id="x", queue="q", task="t", args=None, state=State.RUNNING)
    assert followed(job, traced=False) is None
    assert followed(job, traced=True) is not None


async def test_what_a_thread_leaves_when_it_ends_late_is_not_of_its_job() -> None:
    async def report(*_: object, **__: object) -> bool:
        return True

    go, begun, freed, tasks = threading.Event(), asyncio.Event(), [], Tasks()
    stuck = tasks.task(name="stuck")(lambda _: go.wait(PATIENCE))
    executor = Executor(1, report)
    executor.freed = lambda: freed.append(correlation_id())
    job = Job(id="x", queue="q", task="stuck", args=None, state=State.RUNNING)
    held = Held(job=job, retrying=Retrying(), token="t", fence=1)
    with correlated("request-7"):
        running = asyncio.ensure_future(executor.run(stuck, None, held, begun.set))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        running.cancel()
        await asyncio.wait([running])
    go.set()
    await eventually(lambda: freed, timeout=PATIENCE)
    await executor.close()
    assert freed == [""]


async def test_the_worker_of_scripts_is_not_of_the_request_that_begins_it(tmp_path: Path) -> None:
    (tmp_path / "look.py").write_text(
        "from noobly.core.following import origin\n\ndef run(data):\n    return list(origin())\n"
    )
    async with open_jobs(activities=str(tmp_path / "later"), script_workers=1) as jobs:
        tmp_path.joinpath("later").symlink_to(tmp_path)
        with correlated("request-7"), in_a_trace():
            first = await jobs.run_script("look.py")
        second = await jobs.run_script("look.py")
        seen = [await jobs.handle(one.id, queue=one.queue).result(PATIENCE) for one in (first, second)]
    assert seen == [["request-7", PARENT], ["", ""]]
