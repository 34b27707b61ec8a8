"""``noobly worker``: jobs of a program's tasks, in processes that end, are killed, and begin anew."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from noobly.testing import eventually, private_or_skip
from noobly.working import Jobs, State, open_jobs

from ..serving import here, served

KEY = "a-key-of-the-worker-tests"
PATIENCE = 40
SHOP = """
import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path

from noobly import Tasks

tasks = Tasks()
nothing = None


@tasks.task()
async def greet(name: str) -> str:
    return f"hello {name}"


@tasks.task(queue="mail")
async def mail(to: str) -> str:
    return f"mail to {to}"


@tasks.task()
async def until(file: str) -> str:
    Path(f"{file}.began").touch()
    while not Path(file).exists():
        await asyncio.sleep(0.02)
    return file


@tasks.task()
def sleepy(file: str) -> None:
    Path(f"{file}.began").touch()
    time.sleep(600)


@tasks.task()
async def stubborn(file: str) -> None:
    Path(f"{file}.began").touch()
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


@tasks.task()
async def talk(_: None) -> None:
    logging.getLogger("shop").info("a word")
"""


class Worker:
    """A worker process whose messages are kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.said += line.decode()

    def tells(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.said

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def worker(folder: Path, *arguments: str, ready: str = "working on") -> AsyncIterator[Worker]:
    """Run a worker for the body, and kill it behind that."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "noobly", "worker", *arguments),
        cwd=folder,
        env={**here(), "WORKER_KEY": KEY, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    running = Worker(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(running.listen())
        try:
            await eventually(running.tells(ready), PATIENCE)
            yield running
        except Exception as error:
            error.add_note(f"the worker said: {running.said}")
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a program, whose settings keep jobs in a file."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "noobly.toml").write_text(f'[working]\nurl = "{store(tmp_path)}"\nlease = 1\n')
    return tmp_path


def store(folder: Path) -> str:
    return f"sqlite://{folder}/jobs.db"


@pytest.fixture
async def jobs(shop: Path) -> AsyncIterator[Jobs]:
    async with open_jobs(store(shop)) as jobs:
        yield jobs


class TestWorking:
    async def test_jobs_of_all_tasks_are_run(self, shop: Path, jobs: Jobs) -> None:
        async with worker(shop, "shop:tasks") as running:
            assert running.said == "noobly: working on default, mail with 10 jobs at once; Ctrl-C ends it\n"
            greeting = await jobs.enqueue("greet", "Ada")
            mail = await jobs.enqueue("mail", "eve", queue="mail")
            assert await greeting.result(PATIENCE) == "hello Ada"
            assert await mail.result(PATIENCE) == "mail to eve"
            running.process.send_signal(signal.SIGINT)
            assert await running.ended() == 0

    async def test_only_the_queues_that_are_named(self, shop: Path, jobs: Jobs) -> None:
        greeting = await jobs.enqueue("greet", "Ada")
        mail = await jobs.enqueue("mail", "eve", queue="mail")
        async with worker(shop, "shop:tasks", "--queues", "mail", "--concurrency", "2") as running:
            assert "working on mail with 2 jobs" in running.said
            assert await mail.result(PATIENCE) == "mail to eve"
            assert await greeting.status() is State.QUEUED

    @pytest.mark.servers
    async def test_jobs_in_redis(self, shop: Path) -> None:
        with private_or_skip("redis") as server:
            url = server.url.replace("redis", "bullmq", 1)
            async with open_jobs(url) as jobs, worker(shop, "shop:tasks", "--url", url) as running:
                mail = await jobs.enqueue("mail", "eve", queue="mail")
                assert await mail.result(PATIENCE) == "mail to eve"
                running.process.terminate()
                assert await running.ended() == 0

    async def test_jobs_on_a_server(self, shop: Path) -> None:
        async with (
            served("working", "memory://", KEY) as (noobly, base),
            worker(shop, "shop:tasks", "--url", base, "--key", "env:WORKER_KEY") as running,
        ):
            greeting = await noobly.working.enqueue("greet", "Ada")
            assert await greeting.result(PATIENCE) == "hello Ada"
            running.process.terminate()
            assert await running.ended() == 0

    async def test_a_key_that_is_refused(self, shop: Path) -> None:
        async with (
            served("working", "memory://", "another-key-of-the-worker-tests") as (_, base),
            worker(shop, "shop:tasks", "--url", base, "--key", "env:WORKER_KEY", ready="unauthenticated") as running,
        ):
            assert await running.ended() == 1
            assert "noobly: unauthenticated: the API key is unknown" in running.said
            assert "Traceback" not in running.said


class TestEnding:
    async def test_running_jobs_have_their_grace(self, shop: Path, jobs: Jobs) -> None:
        async with worker(shop, "shop:tasks") as running:
            handle = await jobs.enqueue("until", str(shop / "done"))
            await eventually((shop / "done.began").exists, PATIENCE)
            running.process.terminate()
            later = await jobs.enqueue("greet", "Ada", delay=0.1)
            (shop / "done").touch()
            assert await running.ended() == 0
            assert running.said.endswith("noobly: the worker has ended\n")
            job = await handle.job()
            assert (job.state, job.result, job.attempts) == (State.SUCCEEDED, str(shop / "done"), 1)
            assert (await later.status()) is not State.SUCCEEDED

    async def test_others_are_released_uncounted(self, shop: Path, jobs: Jobs) -> None:
        handle = await jobs.enqueue("until", str(shop / "done"))
        async with worker(shop, "shop:tasks", "--grace", "0.1") as running:
            await eventually((shop / "done.began").exists, PATIENCE)
            running.process.terminate()
            assert await running.ended() == 0
        job = await handle.job()
        assert (job.state, job.attempts) == (State.QUEUED, 0)
        (shop / "done").touch()
        async with worker(shop, "shop:tasks"):
            assert await handle.result(PATIENCE) == str(shop / "done")
        assert ((await handle.job()).attempts, (await handle.job()).stalls) == (1, 0)

    @pytest.mark.parametrize("task", ["sleepy", "stubborn"])
    async def test_a_handler_that_does_not_end_is_left(self, shop: Path, jobs: Jobs, task: str) -> None:
        handle = await jobs.enqueue(task, str(shop / "done"))
        async with worker(shop, "shop:tasks", "--grace", "0.1") as running:
            await eventually((shop / "done.began").exists, PATIENCE)
            running.process.terminate()
            assert await running.ended() == 0
            await eventually(running.tells("some handlers run on"), PATIENCE)
        job = await handle.job()
        assert (job.state, job.attempts, job.stalls) == (State.QUEUED, 0, 0)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_a_second_signal_takes_the_grace_away(self, shop: Path, jobs: Jobs, number: int) -> None:
        handle = await jobs.enqueue("until", str(shop / "done"))
        async with worker(shop, "shop:tasks", "--grace", "600") as running:
            await eventually((shop / "done.began").exists, PATIENCE)
            running.process.send_signal(number)
            await asyncio.wait([asyncio.ensure_future(running.process.wait())], timeout=0.2)
            assert running.process.returncode is None
            running.process.send_signal(number)
            assert await running.ended() == 0
        job = await handle.job()
        assert (job.state, job.attempts, job.stalls) == (State.QUEUED, 0, 0)

    async def test_what_a_killed_worker_had_runs_elsewhere(self, shop: Path, jobs: Jobs) -> None:
        handle = await jobs.enqueue("until", str(shop / "done"))
        async with worker(shop, "shop:tasks") as killed, worker(shop, "shop:tasks", "--queues", "mail"):
            await eventually((shop / "done.began").exists, PATIENCE)
            os.kill(killed.process.pid, signal.SIGKILL)
            assert await killed.ended() == -signal.SIGKILL
        (shop / "done").touch()
        async with worker(shop, "shop:tasks"):
            assert await handle.result(PATIENCE) == str(shop / "done")
        job = await handle.job()
        assert (job.attempts, job.stalls) == (1, 1)


class TestLifespans:
    def declare(self, shop: Path, start: str, end: str = "pass") -> None:
        note = "Path('noted').open('a').write"
        span = f"\n\n@tasks.lifespan\nasync def pool():\n    {start}\n    yield\n    {note}('end ')\n    {end}\n"
        text = SHOP.replace('return f"hello {name}"', f"return {note}(f'hello {{name}} ')")
        (shop / "shop.py").write_text(text + span.replace("NOTE", note))

    async def test_they_are_around_all_jobs(self, shop: Path, jobs: Jobs) -> None:
        self.declare(shop, "NOTE('start ')")
        async with worker(shop, "shop:tasks") as running:
            await (await jobs.enqueue("greet", "Ada")).result(PATIENCE)
            running.process.terminate()
            assert await running.ended() == 0
        assert (shop / "noted").read_text() == "start hello Ada end "

    async def test_an_end_that_fails_is_told(self, shop: Path, jobs: Jobs) -> None:
        self.declare(shop, "pass", "raise OSError('gone')")
        async with worker(shop, "shop:tasks") as running:
            await (await jobs.enqueue("greet", "Ada")).result(PATIENCE)
            running.process.terminate()
            assert await running.ended() == 0
            await eventually(running.tells("the lifespan shop.pool failed at its end: OSError: gone\n"), PATIENCE)

    async def test_a_start_that_fails_ends_the_worker(self, shop: Path) -> None:
        self.declare(shop, "raise OSError('no database')")
        async with worker(shop, "shop:tasks", ready="OSError: no database\n") as running:
            assert await running.ended() == 1
            assert "in pool\n    raise OSError" in running.said
        assert not (shop / "noted").exists()

    async def test_threads_that_a_start_left_hold_nobody_up(self, shop: Path) -> None:
        leaves = (
            "import threading; threading.Thread(target=time.sleep, args=[600]).start(); raise OSError('no database')"
        )
        self.declare(shop, leaves)
        async with worker(shop, "shop:tasks", ready="OSError: no database\n") as running:
            assert await running.ended() == 1


class TestReloading:
    async def test_a_changed_file_is_taken_up(self, shop: Path, jobs: Jobs) -> None:
        async with worker(shop, "shop:tasks", "--dev") as running:
            assert await (await jobs.enqueue("greet", "Ada")).result(PATIENCE) == "hello Ada"
            (shop / "shop.py").write_text(SHOP.replace("hello", "good morning"))
            await eventually(lambda: running.said.count("working on") == 2, PATIENCE)
            assert await (await jobs.enqueue("greet", "Ada")).result(PATIENCE) == "good morning Ada"
            running.process.terminate()
            assert await running.ended() == 0

    async def test_a_file_that_is_broken_for_a_while(self, shop: Path, jobs: Jobs) -> None:
        async with worker(shop, "shop:tasks", "--dev") as running:
            (shop / "shop.py").write_text("def broken(:\n")
            await eventually(running.tells("SyntaxError"), PATIENCE)
            (shop / "shop.py").write_text(SHOP)
            await eventually(lambda: running.said.count("working on") == 2, PATIENCE)
            assert await (await jobs.enqueue("greet", "Ada")).result(PATIENCE) == "hello Ada"

    async def test_a_wrong_name_may_be_mended(self, shop: Path) -> None:
        async with worker(shop, "stock:tasks", "--dev", ready="there is no module 'stock'") as running:
            (shop / "stock.py").write_text(SHOP)
            await eventually(running.tells("working on"), PATIENCE)
            assert "Traceback" not in running.said


class TestObserving:
    async def test_metrics(self, shop: Path, jobs: Jobs) -> None:
        async with worker(shop, "shop:tasks", "--metrics", "0") as running:
            assert await (await jobs.enqueue("greet", "Ada")).result(PATIENCE) == "hello Ada"
            found = re.search(r"metrics are at (http://127\.0\.0\.1:\d+)/metrics", running.said)
            assert found is not None
            async with httpx2.AsyncClient(base_url=found[1], trust_env=False) as client:
                text = (await client.get("/metrics")).text
                assert (await client.get("/health/live")).json() == {"status": "live"}
                assert (await client.get("/v1/caching/default/get")).status_code == 404
            running.process.terminate()
            assert await running.ended() == 0
        assert 'noobly_job_duration_seconds_count{instance="default",queue="default",task="greet"' in text

    async def test_an_address_that_is_in_use(self, shop: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f":{taken.getsockname()[1]}"
            async with worker(shop, "shop:tasks", "--metrics", address, ready="cannot listen") as running:
                assert await running.ended() == 1
        async with worker(shop, "shop:tasks", "--metrics", "here", ready="HOST:PORT") as running:
            assert await running.ended() == 2

    async def test_what_a_program_logs(self, shop: Path, jobs: Jobs) -> None:
        async with worker(shop, "shop:tasks") as running:
            await (await jobs.enqueue("talk")).wait(PATIENCE)
            await eventually(running.tells("INFO shop: a word\n"), PATIENCE)

    async def test_a_program_that_has_set_up_logging_itself(self, shop: Path, jobs: Jobs) -> None:
        text = SHOP + 'logging.basicConfig(format="%(message)s, said the shop", level=logging.INFO)\n'
        (shop / "shop.py").write_text(text)
        async with worker(shop, "shop:tasks") as running:
            await (await jobs.enqueue("talk")).wait(PATIENCE)
            await eventually(running.tells("a word, said the shop\n"), PATIENCE)
        assert running.said.count("a word") == 1


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ("shop", "the tasks are named as MODULE:NAME, such as shop.jobs:tasks, not 'shop'"),
        ("shop:", "the tasks are named as MODULE:NAME"),
        ("stock:tasks", "there is no module 'stock' here or on the path of Python"),
        ("shop.stock:tasks", "there is no module 'shop.stock'"),
        ("shop:nothing", "'shop:nothing' is no noobly.working.Tasks but NoneType"),
        ("shop:tasck", "the module 'shop' has no 'tasck'"),
        ("empty:tasks", "there are no tasks in 'empty:tasks'"),
    ],
)
async def test_wrong_names(shop: Path, tasks: str, told: str) -> None:
    (shop / "empty.py").write_text("from noobly import Tasks\n\ntasks = Tasks()\n")
    async with worker(shop, tasks, ready="noobly: ") as running:
        assert await running.ended() == 2
        await eventually(running.tells("\n"), 5)
    assert told in running.said
    assert running.said.count("\n") == 1, "a traceback is no message"


async def test_a_module_that_lacks_another_one_says_so(shop: Path) -> None:
    (shop / "shop.py").write_text("import stock\n")
    async with worker(shop, "shop:tasks", ready="ModuleNotFoundError") as running:
        assert await running.ended() == 1
    assert "No module named 'stock'" in running.said
