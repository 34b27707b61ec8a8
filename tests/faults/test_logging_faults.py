"""What happens to logs when disks fill, processes die, and servers are away: nothing acknowledged is lost or torn."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from granian.constants import Interfaces
from granian.server.embed import Server

from noobly.app import Noobly
from noobly.core.errors import Unavailable
from noobly.logging import Logs, open_logs
from noobly.server.app import Application
from noobly.server.auth import DevGuard
from noobly.settings import Instance, Settings
from noobly.testing import eventually, free_port
from noobly.testing.logging.driver import BEGIN, EmbeddedDriver
from noobly.testing.logging.lines import found, line

PROCESSES = 4
BATCHES = 300

RACE = """
import asyncio, sys, time
from noobly.core.scope import Environment
from noobly.logging.providers.file import FileConfig, FileLogs
from noobly.testing.logging.lines import line
from contextlib import AsyncExitStack
async def main():
    path, own = sys.argv[1:]
    async with AsyncExitStack() as stack:
        logs = FileLogs(FileConfig(path=path, max_bytes=20_000), Environment())
        await logs.start(stack)
        for batch in range(300):
            await logs.append(f"{own}.{batch}", [line(int(time.time() * 1e6), f"{own}.{batch}.{n}") for n in range(10)])
asyncio.run(main())
"""


def stored(path: Path) -> Iterator[bytes]:
    """Yield all lines of a log, the files in their order."""
    files = sorted(path.parent.glob(f"{path.name}.2*"), key=lambda file: file.name.removesuffix(".gz"))
    for file in [*files, path]:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert data.endswith(b"\n") or not data, file
        yield from data.splitlines()


def rotated(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.2*"))


def messages(path: Path) -> list[str]:
    return [json.loads(data)["message"] for data in stored(path)]


async def test_four_processes_that_rotate_one_file(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    argv = [sys.executable, "-c", RACE, str(path)]
    workers = [await asyncio.create_subprocess_exec(*argv, f"{number}") for number in range(PROCESSES)]
    async with asyncio.timeout(60):
        assert await asyncio.gather(*(worker.wait() for worker in workers)) == [0] * PROCESSES
    assert len(rotated(path)) > 20
    read = messages(path)
    for process in range(PROCESSES):
        own = [text for text in read if text.startswith(f"{process}.")]
        assert own == [f"{process}.{batch}.{n}" for batch in range(BATCHES) for n in range(10)]
    assert len(read) == PROCESSES * BATCHES * 10
    async with EmbeddedDriver(f"file://{path}").open_bare() as driver:
        assert await found(driver, limit=1000) == read[::-1]


FLUSHED = """
import asyncio, sys
from noobly.logging import open_logs
async def main():
    async with open_logs(f"file://{sys.argv[1]}", spill="") as logs:
        number = 0
        while True:
            for _ in range(50):
                logs.info(f"{number}", padding="x" * 200)
                number += 1
            assert await logs.flush()
            print(number, flush=True)
asyncio.run(main())
"""


async def test_kill_9_loses_at_most_what_was_not_flushed(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    argv = [sys.executable, "-c", FLUSHED, str(path)]
    for round in range(3):
        path.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        async with asyncio.timeout(30):
            for _ in range(20 + round):
                await process.stdout.readline()
            process.kill()
            rest, _ = await process.communicate()
        acknowledged = int((rest.split() or [b"1000"])[-1])
        async with open_logs(f"file://{path}", spill="") as logs:
            logs.info("after")
        read = messages(path)
        assert read == [f"{number}" for number in range(len(read) - 1)] + ["after"]
        assert len(read) > acknowledged


async def test_sigterm_loses_nothing(tmp_path: Path) -> None:
    path, port = tmp_path / "app.log", free_port()
    (tmp_path / "noobly.toml").write_text(f'[logging]\nurl = "file://{path}"\nlinger = 1.0\n')
    argv = [sys.executable, "-m", "noobly", "serve", "--dev", "--port", str(port)]
    server = await asyncio.create_subprocess_exec(*argv, cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        await eventually(lambda: answers(client), 30)
        for number in range(200):
            sent = await client.post("/services/logging/api/warn", json={"message": f"number {number}"})
            assert sent.status_code == 200
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await server.wait() == 0
    assert [text for text in messages(path) if text.startswith("number")] == [f"number {n}" for n in range(200)]


OWN_PROGRAM = """
import asyncio, signal, sys, time
from noobly.app import Noobly
from noobly.settings import Instance, Settings
from noobly.sync import SyncNoobly
kind, path, spill = sys.argv[1:]
options = {"linger": 30.0, "spill": spill, "close_timeout": 0.2 if kind == "hanging" else 10.0, "capture": False}
settings = Settings(services={"logging": {"default": Instance(url=f"file://{path}", options=options)}})
def log(logs):
    for number in range(200):
        logs.info(f"{number}")
    print("logged", flush=True)
async def main():
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    if kind == "handled before":
        loop.add_signal_handler(signal.SIGTERM, ended.set)
    async with Noobly.open(settings=settings) as noobly:
        if kind == "handled after":
            signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(ended.set))
        log(noobly.logging)
        if kind == "hanging":
            time.sleep(60)
        await ended.wait()
    print("said goodbye", flush=True)
if kind == "blocking":
    with SyncNoobly.open(settings=settings) as noobly:
        log(noobly.aio.logging)
        time.sleep(60)
elif kind == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("kind", "ending", "words"),
    [
        ("plain", -signal.SIGTERM, b""),
        ("uvloop", -signal.SIGTERM, b""),
        ("blocking", -signal.SIGTERM, b""),
        ("hanging", -signal.SIGTERM, b""),
        ("handled before", 0, b"said goodbye\n"),
        ("handled after", 0, b"said goodbye\n"),
    ],
)
async def test_sigterm_loses_nothing_in_a_program_of_ones_own(
    tmp_path: Path, kind: str, ending: int, words: bytes
) -> None:
    path, spill = tmp_path / "app.log", tmp_path / "spill.jsonl"
    argv = [sys.executable, "-c", OWN_PROGRAM, kind, str(path), str(spill)]
    process = await asyncio.create_subprocess_exec(*argv, cwd=tmp_path, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"logged\n"
        process.send_signal(signal.SIGTERM)
        rest, _ = await process.communicate()
    assert (process.returncode, rest) == (ending, words)
    assert messages(spill if kind == "hanging" else path) == [f"{number}" for number in range(200)]


async def answers(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).is_success
    except httpx2.TransportError:
        return False


SPILLING = """
import asyncio, sys
from noobly.logging import open_logs
async def main():
    path, spill, begin = sys.argv[1:]
    async with open_logs(f"file://{path}", spill=spill, retries=0, linger=0.001) as logs:
        for number in range(int(begin), 10**9):
            logs.info(f"{number}", padding="x" * 4000)
            assert await logs.drain()
            print(number, flush=True)
asyncio.run(main())
"""


async def test_what_was_spilled_is_stored_once_and_whole_whoever_is_killed_meanwhile(tmp_path: Path) -> None:
    path, spill, away = tmp_path / "app.log", tmp_path / "spill.jsonl", tmp_path / "away.log"

    async def killed_after(lines: int, begin: int, up_to: int) -> int:
        """Log until so many lines were acknowledged, make the store work or fail, and kill the process soon after."""
        argv = [sys.executable, "-c", SPILLING, str(path), str(spill), f"{begin}"]
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert process.stdout is not None
        async with asyncio.timeout(60):
            for number in range(up_to):
                await process.stdout.readline()
                if number == lines:
                    # A folder where the file was: the store fails from now on.
                    path.rename(away)
                    path.mkdir()
            process.kill()
            rest, _ = await process.communicate()
        return int((rest.split() or [f"{begin + up_to - 1}"])[-1])

    last = await killed_after(20, 0, 300)
    assert spill.stat().st_size > 200 * 4000
    path.rmdir()
    away.rename(path)
    acknowledged = [last]
    for round in range(4):
        begin = 10_000 * (round + 1)
        acknowledged.append(await killed_after(-1, begin, 2 + 3 * round))
    async with open_logs(f"file://{path}", spill=str(spill), linger=0.001) as logs:
        logs.info("after")
        await eventually(lambda: list(tmp_path.glob("spill.jsonl*")) == [spill.with_name("spill.jsonl.lock")], 30)
    read = messages(path)
    assert len(read) == len(set(read))
    wanted = [n for round, last in enumerate(acknowledged) for n in range(10_000 * round, last + 1)]
    assert {f"{n}" for n in wanted} <= set(read)


FULL = """
import asyncio, os, resource, subprocess, sys
from noobly.core.errors import Unavailable
from noobly.testing.logging.driver import BEGIN, EmbeddedDriver
from noobly.testing.logging.lines import found, line
kind, folder = sys.argv[1:]
if kind == "tmpfs":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], check=True)
async def main():
    harness = EmbeddedDriver(f"file://{folder}/app.log?compress=false")
    async with harness.open_bare() as driver:
        await driver.append("first", [line(BEGIN, "first")])
        if kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        kept = ["first"]
        for number in range(40):
            try:
                await driver.append(f"{number}", [line(BEGIN, f"{number}", padding="x" * 15_000)])
            except Unavailable as error:
                print(error)
                break
            kept.append(f"{number}")
        assert len(kept) > 3
        for _ in range(5):
            try:
                await driver.append("last", [line(BEGIN, "last", padding="x" * 15_000), line(BEGIN, "too")])
                raise SystemExit("it fitted")
            except Unavailable:
                pass
        assert await found(driver) == kept[::-1]
        assert not open(f"{folder}/app.log", "rb").read().endswith(b"x")
    if kind == "tmpfs":
        subprocess.run(["mount", "-o", "remount,size=2m", folder], check=True)
    else:
        return
    async with harness.open_bare() as driver:
        await driver.append("last", [line(BEGIN, "last", padding="x" * 15_000), line(BEGIN, "too")])
        assert await found(driver) == ["too", "last", *kept[::-1]]
asyncio.run(main())
"""

# Where we may mount, also a small disk that is really full; a limit on the size of files needs no rights.
UNSHARE = ["unshare", "-m"]
MOUNTS = shutil.which("unshare") and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0
DISKS = ["limit", *(["tmpfs"] if MOUNTS else [])]


@pytest.mark.parametrize("kind", DISKS)
async def test_a_full_disk_is_an_error_and_no_damage(tmp_path: Path, kind: str) -> None:
    argv = [*(UNSHARE if kind == "tmpfs" else []), sys.executable, "-c", FULL, kind, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot grow" in done.stdout


NOBODY = """
import asyncio, os, sys
from noobly.core.errors import Unavailable
from noobly.logging import open_logs
from noobly.logging.providers import file
async def main():
    os.setgid(65534)
    os.setuid(65534)
    try:
        async with open_logs(f"file://{sys.argv[1]}/app.log"):
            pass
    except Unavailable as error:
        print(error)
asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
async def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", NOBODY, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Permission denied; check its folder, owner and mode" in done.stdout


async def test_a_path_that_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in ("file/app.log", "folder"):
        with pytest.raises(Unavailable, match="failed"):
            async with open_logs(f"file://{tmp_path}/{path}"):
                pass


class Far:
    """A server on a port of its own, which may be away."""

    def __init__(self, store: Logs, application: Application) -> None:
        self.port = free_port()
        self.store = store
        self._application = application
        self._server: Server | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._server = Server(
            self._application, port=self.port, interface=Interfaces.ASGI, websockets=False, log_enabled=False
        )
        self._running = asyncio.create_task(self._server.serve())

    async def stop(self) -> None:
        if self._server is not None and self._running is not None:
            self._server.stop()
            await self._running
            self._server = None

    async def read(self) -> list[str]:
        page = await self.store.search(limit=10_000)
        return [record.message for record in reversed(page.records)]


@pytest.fixture
async def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Far]:
    monkeypatch.chdir(tmp_path)
    stored = Instance(url="memory://", options={"capture": False})
    async with Noobly.open(settings=Settings(services={"logging": {"default": stored}})) as noobly:
        server = Far(noobly.logging, Application(noobly, DevGuard()))
        yield server
        await server.stop()


async def test_a_server_that_is_away_gets_everything_later_in_order(far: Far, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{far.port}?spool_retry=0.05&spool={tmp_path}/spool"
    async with open_logs(url, spill="") as logs:
        for number in range(5):
            logs.info(f"{number}")
            await logs._pipeline.drain(5)
        assert len(list((tmp_path / "spool").rglob("*.spool"))) > 0
        await far.start()
        await eventually(lambda: has(far, 5), 20)
        logs.info("5")
        await eventually(lambda: has(far, 6), 20)
    assert await far.read() == [f"{number}" for number in range(6)]
    assert list((tmp_path / "spool").rglob("*.spool")) == []


async def test_what_waited_when_the_process_ended_is_sent_by_the_next(far: Far, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{far.port}?spool_retry=0.05&spool={tmp_path}/spool"
    async with open_logs(url, spill="") as logs:
        logs.info("before")
    await far.start()
    async with open_logs(url, spill="") as logs:
        await eventually(lambda: has(far, 1), 20)
        logs.info("after")
        await eventually(lambda: has(far, 2), 20)
    assert await far.read() == ["before", "after"]


async def test_without_a_spool_the_pipeline_knows_at_once(far: Far, capfd: pytest.CaptureFixture[str]) -> None:
    async with open_logs(f"http://127.0.0.1:{far.port}", spool="", spill="", retries=0, attempts=1) as logs:
        logs.info("nowhere else to go")
        with pytest.raises(Unavailable):
            await logs.append("1", [line(BEGIN, "direct")])
    assert '"message":"nowhere else to go"' in capfd.readouterr().err


async def has(far: Far, number: int) -> bool:
    return len(await far.read()) >= number
