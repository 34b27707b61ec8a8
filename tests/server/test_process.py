"""The process of ``noobly serve``: how the kernel schedules it, and that what it imported is out of collections."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from noobly.server.process import places

from .test_serve import serve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="scheduling policies are Linux's")

PROGRAM = """
import gc, os
from noobly.server.process import dedicate
os.sched_setscheduler(0, os.{policy}, os.sched_param(0))
dedicate()
print(os.sched_getscheduler(0) == os.{wanted}, gc.get_freeze_count() > 1000)
"""


@pytest.mark.parametrize(
    ("policy", "wanted"), [("SCHED_OTHER", "SCHED_BATCH"), ("SCHED_BATCH", "SCHED_BATCH"), ("SCHED_IDLE", "SCHED_IDLE")]
)
def test_a_policy_that_was_chosen_is_kept(tmp_path: Path, policy: str, wanted: str) -> None:
    program = PROGRAM.format(policy=policy, wanted=wanted)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert ended.stdout.split() == ["True", "True"]


def test_a_sandbox_may_refuse(tmp_path: Path) -> None:
    program = (
        "import os\nfrom noobly.server.process import dedicate\n"
        "def refuse(*_): raise PermissionError\n"
        "os.sched_setscheduler = refuse\ndedicate()\nprint(os.sched_getscheduler(0) == os.SCHED_OTHER)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert ended.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("limits", "wanted", "found", "soft"),
    [
        ((1024, 4096), 500, 500, 1024),
        ((1024, 4096), 2000, 2000, 2256),
        ((1024, 4096), 10_000, 3840, 4096),
        ((1024, resource.RLIM_INFINITY), 10_000, 10_000, 10_256),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 10_000, 10_000, resource.RLIM_INFINITY),
        ((64, 64), 10, 1, 64),
    ],
)
def test_connections_have_room_in_the_limit_of_open_files(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], wanted: int, found: int, soft: int
) -> None:
    now = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: now.append(limits))
    assert places(wanted) == found
    assert now[-1] == (soft, limits[1])


def policies(pid: int) -> list[int]:
    """Return the policy of each thread of a process."""
    return [os.sched_getscheduler(int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()]


async def test_all_threads_of_the_server_have_it(tmp_path: Path) -> None:
    wanted = os.SCHED_BATCH if os.sched_getscheduler(0) == os.SCHED_OTHER else os.sched_getscheduler(0)
    async with serve(tmp_path, "--dev") as server:
        found = policies(server.process.pid)
        assert len(found) > 1
        assert set(found) == {wanted}
        assert await server.stop() == 0
