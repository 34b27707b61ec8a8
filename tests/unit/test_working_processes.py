"""Handlers in processes: what a child does, and what becomes of processes that end, are left, or hold on."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from noobly.core.errors import RateLimited
from noobly.testing import eventually, job_handlers
from noobly.working import JobInfo, ProcessContext, State, heart, open_jobs
from noobly.working.child import Begun, Reported, Start, attempt

PATIENCE = 30.0


def double(number: int) -> int:
    return 2 * number


async def later(number: int, job: ProcessContext) -> str:
    job.log("a \udc80")
    return f"{number} {job.id}"


def picky(_):
    raise RateLimited("slow down", retry_after=7)


class Line:
    def __init__(self):
        self.said = []

    def begun(self):
        self.said.append(Begun())

    def report(self, reported):
        self.said.append(reported)


class TestChild:
    def _attempt(self, name, data=b"null", line=None):
        info = JobInfo(id="x", queue="q", task="t", attempt=1, last=True, fence=1, key="q:x")
        return attempt(Start(module=__name__, name=name, data=msgspec.Raw(data), info=info), line or Line())

    def test_endings(self):
        assert bytes(self._attempt("double", b"21").result) == b"42"
        assert bytes(self._attempt("later", b"5").result) == b'"5 x"'
        assert self._attempt("picky").retry_after == 7
        wrong = self._attempt("double", b'"x"')
        assert wrong.final
        assert wrong.error.startswith("invalid_argument: ")
        missing = self._attempt("nobody")
        assert missing.error.startswith("AttributeError")
        assert not missing.final

    def test_what_it_says_meanwhile(self):
        line = Line()
        self._attempt("later", b"5", line)
        begun, reported = line.said
        assert begun == Begun()
        assert isinstance(reported, Reported)
        assert reported.lines == ["a \\udc80"]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def number_in(file):
    return int(file.read_text()) if file.exists() and file.read_text() else 0


@pytest.fixture
async def jobs():
    async with open_jobs() as jobs:
        jobs.tasks.include(job_handlers.tasks)
        yield jobs


@asynccontextmanager
async def ended(jobs, task, args=None, **how):
    async with jobs.working(concurrency=2):
        yield await (await jobs.enqueue(task, args, **how)).wait(PATIENCE)


class TestProcesses:
    async def test_one_is_used_again(self, jobs):
        async with jobs.working(concurrency=2):
            pids = {(await (await jobs.enqueue(job_handlers.about)).result(PATIENCE))["pid"] for _ in range(5)}
            assert len(pids) == 1
            assert alive(*pids)
        assert not alive(*pids)

    @pytest.mark.parametrize(
        ("code", "text"), [(4, "exit code 4"), (-signal.SIGSEGV, "SIGSEGV"), (-signal.SIGKILL, "SIGKILL, .* memory")]
    )
    async def test_what_ended_a_process_is_told(self, jobs, code, text):
        async with ended(jobs, job_handlers.dying, code) as job:
            assert job.state is State.FAILED
            assert re.search(text, job.error)

    async def test_standard_streams_are_the_handlers_own(self, jobs, capfd):
        async with ended(jobs, job_handlers.printing, "hello") as job:
            assert job.result == ""
        assert capfd.readouterr() == ("", "hello\nhello\n")

    async def test_a_fork_that_comes_back_is_nobody(self, jobs):
        async with jobs.working(concurrency=1):
            for _ in range(3):
                assert await (await jobs.enqueue(job_handlers.forking)).result(PATIENCE) == "parent"

    async def test_a_pause_that_is_no_number_hides_no_error(self, jobs):
        handle = await jobs.enqueue(job_handlers.misleading)
        async with jobs.working():
            await eventually(lambda: jobs.list_jobs(states=[State.RETRYING]), timeout=PATIENCE)
        assert (await handle.job()).error == "ValueError: no luck"

    async def test_what_a_handler_has_begun_ends_with_it(self, jobs, monkeypatch, tmp_path):
        monkeypatch.setattr(heart, "_LONGEST_PAUSE", 0.02)
        file = tmp_path / "pid"
        async with jobs.working():
            handle = await jobs.enqueue(job_handlers.parenting, str(file))
            await eventually(lambda: number_in(file), timeout=PATIENCE)
            await handle.cancel()
            assert (await handle.wait(PATIENCE)).state is State.CANCELLED
            await eventually(lambda: not alive(number_in(file)), timeout=PATIENCE)

    async def test_it_ends_with_a_worker_that_is_killed(self, tmp_path):
        file, program = tmp_path / "pid", tmp_path / "program.py"
        program.write_text(_PROGRAM)
        worker = await asyncio.create_subprocess_exec(sys.executable, str(program), "parenting", str(file))
        try:
            await eventually(lambda: number_in(file), timeout=PATIENCE)
        finally:
            worker.kill()
            await worker.wait()
        await eventually(lambda: not alive(number_in(file)), timeout=PATIENCE)

    async def test_where_it_failed_is_logged(self, jobs, caplog):
        with caplog.at_level(logging.WARNING, "noobly.working"):
            async with ended(jobs, job_handlers.raising) as job:
                pass
        assert 'in raising\n    raise ValueError("no luck")' in caplog.text
        (trace,) = await jobs.logs(job.id)
        assert trace.endswith("ValueError: no luck")

    @pytest.mark.parametrize("how", [["FILE"], ["-m", "program"]], ids=["file", "module"])
    def test_tasks_of_the_program_itself(self, tmp_path, how):
        (tmp_path / "program.py").write_text(_PROGRAM)
        asked = [sys.executable, *(str(tmp_path / "program.py") if one == "FILE" else one for one in how)]
        done = subprocess.run([*asked, "own", "21"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.stdout == "42\n", done.stderr


_PROGRAM = """
import asyncio, os, sys
from noobly import Tasks, open_jobs
from noobly.testing import job_handlers

tasks = Tasks()
tasks.include(job_handlers.tasks)

@tasks.task(execution="process")
def own(text):
    return 2 * int(text)

async def main():
    async with open_jobs() as jobs:
        jobs.tasks.include(tasks)
        async with jobs.working():
            print(await (await jobs.enqueue(sys.argv[1], sys.argv[2])).result())

if __name__ == "__main__":
    asyncio.run(main())
"""
