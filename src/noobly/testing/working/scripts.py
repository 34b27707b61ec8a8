"""Scripts: files of the activities folder, run by their path, and nothing outside of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from noobly.core.errors import InvalidArgument
from noobly.testing.working.harness import JobHarness
from noobly.testing.working.theme import PATIENCE, Theme
from noobly.working import Job, Jobs, State

_TWICE = "def run(data):\n    return data['number'] * 2\n"
_OUTSIDE: tuple[object, ...] = (
    "../secret.py", "sub/../../secret.py", "/etc/passwd", "", ".", "..", "a\0.py", "sub\\a.py", "c:/a.py", 5, None,
)  # fmt: skip


class ScriptsTheme(Theme):
    """A script runs as a job."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Return an activities folder, beside which something lies that is nobody's business."""
        folder = tmp_path / "activities"
        (folder / "sub").mkdir(parents=True)
        (folder / "twice.py").write_text(_TWICE)
        (folder / "sub" / "deep.py").write_text("def run(data):\n    return 'deep'\n")
        (folder / "empty.py").write_text("")
        (folder / "bad.py").write_text("def run(data):\n    raise ValueError('no luck')\n")
        (folder / "notes.txt").write_text(_TWICE)
        (tmp_path / "secret.py").write_text("def run(data):\n    return 'secret'\n")
        (folder / "link.py").symlink_to(tmp_path / "secret.py")
        (folder / "up").symlink_to(tmp_path)
        (folder / "inner.py").symlink_to(folder / "twice.py")
        (folder / "circle.py").symlink_to(folder / "circle.py")
        (folder / "later.py").write_text("async def run(data):\n    return data\n")
        (folder / "leaving.py").write_text("import sys\n\ndef run(data):\n    sys.exit(1)\n")
        (folder / "asking.py").write_text("import neighbour\n\ndef run(data):\n    return neighbour.NAME\n")
        (folder / "neighbour.py").write_text("NAME = 'ada'\n")
        return folder

    async def _run(self, jobs: Jobs, path: str, data: object = None) -> Job:
        ticket = await jobs.run_script(path, data)
        return await jobs.handle(ticket.id, queue=ticket.queue).wait(PATIENCE)

    async def test_scripts_run(self, harness: JobHarness, folder: Path) -> None:
        harness.flow()
        async with harness.open(activities=str(folder)) as jobs:
            assert (await self._run(jobs, "twice.py", {"number": 21})).result == 42
            assert (await self._run(jobs, "sub/deep.py")).result == "deep"
            assert (await self._run(jobs, "inner.py", {"number": 1})).result == 2
            assert (await self._run(jobs, "later.py", 5)).result == 5

    async def test_a_script_imports_its_neighbours_as_they_are_now(self, harness: JobHarness, folder: Path) -> None:
        harness.flow()
        async with harness.open(activities=str(folder), script_workers=1) as jobs:
            assert (await self._run(jobs, "asking.py")).result == "ada"
            (folder / "neighbour.py").write_text("NAME = 'grace'\n")
            assert (await self._run(jobs, "asking.py")).result == "grace"

    async def test_scripts_that_fail(self, harness: JobHarness, folder: Path) -> None:
        harness.flow()
        async with harness.open(activities=str(folder)) as jobs:
            for path, text in (
                ("bad.py", "ValueError: no luck"),
                ("missing.py", "no Python file"),
                ("sub", "no Python file"),
                ("notes.txt", "no Python file"),
                ("empty.py", "no function"),
                ("leaving.py", "SystemExit: 1"),
                ("circle.py", "in a circle" if sys.version_info < (3, 13) else "no Python file"),
                ("link.py", "leads out"),
                ("up/secret.py", "leads out"),
            ):
                job = await self._run(jobs, path)
                assert job.state is State.FAILED
                assert text in job.error
                assert str(folder) not in job.error

    @pytest.mark.parametrize("path", _OUTSIDE, ids=repr)
    async def test_paths_that_lead_out_are_refused(self, harness: JobHarness, folder: Path, path: object) -> None:
        async with harness.open(activities=str(folder)) as jobs:
            with pytest.raises(InvalidArgument):
                await jobs.run_script(path)  # type: ignore[arg-type]
            assert await jobs.queues() == []

    async def test_without_a_folder(self, harness: JobHarness, tmp_path: Path) -> None:
        harness.flow()
        async with harness.open(activities=str(tmp_path / "nowhere")) as jobs:
            job = await self._run(jobs, "twice.py")
            assert job.state is State.FAILED
            assert "no Python file" in job.error

    async def test_a_job_cannot_name_another_folder(self, harness: JobHarness, folder: Path) -> None:
        harness.flow()
        async with harness.open(activities=str(folder)) as jobs:
            handle = await jobs.enqueue(
                "noobly.script", {"path": "secret.py", "folder": str(folder.parent)}, queue="noobly.scripts"
            )
            ticket = await jobs.run_script("twice.py", {"number": 1})
            assert (await jobs.handle(ticket.id, queue=ticket.queue).wait(PATIENCE)).result == 2
            job = await handle.wait(PATIENCE)
            assert job.state is State.FAILED
