"""``noobly jobs`` against a running server, and against the stores that settings and URLs name."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from noobly.testing import private_or_skip
from noobly.working import Jobs, State, Verdict, open_jobs
from noobly.working.records import Settled

from ..serving import here, served

KEY = "a-key-of-the-jobs-tests"


class Shell:
    """Runs commands in a folder of its own."""

    def __init__(self, folder: Path, jobs: Jobs, *reach: str) -> None:
        self.folder = folder
        self.jobs = jobs
        self.reach = reach

    async def run(self, *arguments: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "noobly", "jobs", *arguments, *self.reach),
            cwd=self.folder,
            env={**here(), "JOBS_KEY": KEY},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    async def json(self, *arguments: str) -> object:
        code, out, err = await self.run(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture(params=["server", "settings", "url", pytest.param("redis", marks=pytest.mark.servers)])
async def shell(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Shell]:
    """Jobs that are reached in several ways."""
    if request.param == "server":
        async with served("working", "memory://", KEY) as (noobly, base):
            yield Shell(tmp_path, noobly.working, "--url", base, "--key", "env:JOBS_KEY")
        return
    store = f"sqlite://{tmp_path}/jobs.db"
    with ExitStack() as stack:
        if request.param == "redis":
            store = stack.enter_context(private_or_skip("redis", "--appendonly", "yes")).url.replace(
                "redis", "bullmq", 1
            )
        if request.param != "url":
            (tmp_path / "noobly.toml").write_text(f'[working]\nurl = "{store}"\n')
        async with open_jobs(store) as jobs:
            yield Shell(tmp_path, jobs, *(("--url", store) if request.param == "url" else ()))


async def fail(jobs: Jobs, id: str) -> None:
    """Add a job that fails."""
    await jobs.enqueue("resize", {"path": id}, id=id)
    (held,) = await jobs.claim("default", "worker", wait=2)
    await jobs.report(id, lines=["begun"])
    await jobs.settle(
        "default", [Settled(id=held.job.id, token=held.token, verdict=Verdict.FAILED, error="no such\x1b[31m file")]
    )


async def test_looking(shell: Shell) -> None:
    assert await shell.run("list") == (0, "", "")
    await fail(shell.jobs, "ada")
    await shell.jobs.enqueue("mail", "eve", id="eve", delay=600)
    code, out, err = await shell.run("list")
    heads, *rows = [line.split() for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert heads == ["ID", "TASK", "STATE", "ATTEMPTS", "STALLS", "ERROR"]
    assert sorted(row[:3] for row in rows) == [["ada", "resize", "failed"], ["eve", "mail", "delayed"]]
    listed = await shell.json("list", "--state", "failed")
    assert isinstance(listed, list)
    assert [(one["id"], one["error"]) for one in listed] == [("ada", "no such\x1b[31m file")]
    code, out, err = await shell.run("show", "ada")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert {
        "id: ada",
        'args: {"path":"ada"}',
        "state: failed",
        "error: no such\\x1b[31m file",
        "expires_at: -",
        "| begun",
    } <= {*lines}
    assert any(line.startswith("created_at: 2") and line.endswith("+00:00") for line in lines)
    assert (await shell.json("show", "ada"))["log"] == ["begun"]  # type: ignore[index]
    (stats,) = await shell.json("stats")  # type: ignore[misc]
    assert (stats["queue"], stats["delayed"], stats["failed"]) == ("default", 1, 1)
    assert (await shell.json("stats", "mail"))[0]["failed"] == 0  # type: ignore[index]


async def test_once_more(shell: Shell) -> None:
    for id in ("ada", "bob", "eve"):
        await fail(shell.jobs, id)
    assert await shell.run("rerun", "ada") == (0, "Job ada is queued.\n", "")
    code, out, _ = await shell.run("rerun", "--failed", "--max", "1")
    assert (code, out) == (0, "Queued 1 failed jobs of queue 'default'.\n")
    assert (await shell.run("rerun", "--failed"))[1] == "Queued 1 failed jobs of queue 'default'.\n"
    assert (await shell.jobs.stats()).queued == 3


async def test_ending(shell: Shell) -> None:
    await shell.jobs.enqueue("resize", id="ada")
    assert await shell.run("cancel", "ada") == (0, "Job ada is cancelled.\n", "")
    assert await shell.run("remove", "ada") == (0, "Removed job ada.\n", "")
    code, out, err = await shell.run("remove", "ada")
    assert (code, out) == (1, "")
    assert "queue 'default' has no job 'ada'" in err


async def test_holding_back(shell: Shell) -> None:
    assert (await shell.run("pause", "mail"))[:2] == (
        *(0, "Queue 'mail' is held back; `noobly jobs resume` lets it go on.\n"),
    )
    assert (await shell.jobs.stats("mail")).paused
    assert (await shell.run("resume", "mail"))[:2] == (0, "Queue 'mail' goes on.\n")
    assert not (await shell.jobs.stats("mail")).paused


async def test_wrong_arguments(shell: Shell) -> None:
    for arguments, told in (
        (("list", "--state", "lost"), "there is no state 'lost'"),
        (("rerun",), "--failed"),
        (("rerun", "ada", "--failed"), "name one job"),
    ):
        code, out, err = await shell.run(*arguments)
        assert (code, out) == (2, "")
        assert told in err
    for command in ("show", "cancel", "rerun"):
        code, _, err = await shell.run(command, "nobody")
        assert code == 1
        assert "so name it" in err
    assert await shell.jobs.list_jobs(states=list(State)) == []
