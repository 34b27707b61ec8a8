"""What happens to queues in an SQLite file when processes are killed, others hold the file, and the disk is full."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from noobly.clients.sqlite import Database
from noobly.core.errors import NooblyError, Unavailable
from noobly.core.scope import Environment
from noobly.queueing import Outbound, Queues, open_queues
from noobly.testing import FakeClock, eventually

WORKER = Path(__file__).parent / "queue_worker.py"
HELD_AT_MOST = 20
"""What one worker has in its hands at any time: ``TASKS * TOGETHER`` of the worker."""
MESSAGES = 2000
HOUR = 3600.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/queues.db"


async def started(url: str) -> asyncio.subprocess.Process:
    worker = await asyncio.create_subprocess_exec(sys.executable, str(WORKER), url, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout is not None
    assert await worker.stdout.readline() == b"ready\n"
    return worker


async def output(worker: asyncio.subprocess.Process) -> list[str]:
    """Kill a worker and return the whole lines that it has written."""
    worker.kill()
    text = (await worker.communicate())[0].decode()
    return text[: text.rfind("\n") + 1].split()


async def fill(queues: Queues) -> None:
    for start in range(0, MESSAGES, 500):
        await queues.send_many("work", [Outbound(message=number) for number in range(start, start + 500)])


def database_of(queues: Queues) -> Database:
    return queues._driver.provider._database


def refusals(queues: Queues) -> list[Exception]:
    """Return a list of the errors of SQLite from now on."""
    database, found = database_of(queues), list[Exception]()
    classify = database.classify

    def noted(error: Exception) -> NooblyError | None:
        found.append(error)
        return classify(error)

    database.classify = noted
    return found


async def test_kill_9_of_a_consumer_loses_nothing_and_repeats_what_it_held(url: str) -> None:
    async with open_queues(url) as queues:
        await fill(queues)
        worker = await started(url)
        assert worker.stdout is not None
        lines = [(await worker.stdout.readline()).decode().strip() for _ in range(300)]
        lines += await output(worker)
        held = (await queues.stats("work")).in_flight
    shown = {int(line) for line in lines if not line.endswith("+")}
    done = [int(line[:-1]) for line in lines if line.endswith("+")]
    later = Environment(clock=FakeClock(time.time() + 2 * HOUR))  # When the leases of the dead one have ended.
    async with open_queues(url, environment=later) as queues:
        rest = [one.value for _ in range(MESSAGES // 1000) for one in await queues.receive("work", max=1000)]
        assert await queues.receive("work") == []
    assert len(done) == len(set(done))
    assert len(rest) == len(set(rest))
    assert shown | set(rest) == set(range(MESSAGES))
    assert not set(done) & set(rest)
    assert len(shown & set(rest)) <= held <= HELD_AT_MOST


async def test_several_processes_never_hold_the_same_message(url: str) -> None:
    async with open_queues(url) as queues:
        await queues.pause("work")
        await fill(queues)
        workers = [await started(url) for _ in range(3)]
        await queues.resume("work")

        async def all_done() -> bool:
            stats = await queues.stats("work")
            return stats.ready + stats.in_flight == 0

        await eventually(all_done, timeout=60)
        written = [await output(worker) for worker in workers]
    assert all(written)
    lines = [line for lines in written for line in lines]
    assert Counter(line for line in lines if not line.endswith("+")) == Counter(map(str, range(MESSAGES)))
    assert set(Counter(line for line in lines if line.endswith("+")).values()) == {1}


async def test_a_file_that_another_process_holds_is_unavailable_and_tried_again(url: str, tmp_path: Path) -> None:
    patient = {"busy_timeout": 0.02, "backoff": 0.01, "attempts": 1000, "breaker_failures": 1000}
    async with open_queues(url, **patient) as queues:
        await queues.send("q", 1)
        (found,) = await queues.receive("q")
        other = sqlite3.connect(tmp_path / "queues.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="another process held"):
            await queues.send("q", 2)
        assert (await queues.stats("q")).in_flight == 1
        refused = refusals(queues)
        acknowledging = asyncio.create_task(queues.ack("q", found.receipt))
        await eventually(lambda: len(refused) >= 2)
        other.execute("ROLLBACK")
        other.close()
        await acknowledging
        assert await queues.size("q") == 0
        assert (await queues.stats("q")).in_flight == 0
        await queues.send("q", 3)


async def test_a_full_disk_is_unavailable_until_there_is_room(url: str) -> None:
    async with open_queues(url, breaker_failures=1000) as queues:
        database = database_of(queues)
        await queues.send("q", "kept")
        pages = await database.read(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await database.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone())
        with pytest.raises(Unavailable, match="full"):
            await queues.send("q", "x" * 500_000)
        assert await queues.size("q") == 1
        await database.write(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
        await queues.send("q", "x" * 500_000)
        assert await queues.dequeue("q") == "kept"


async def test_a_receiver_that_is_cancelled_loses_nothing(url: str) -> None:
    async with open_queues(url) as queues:
        for number in range(50):
            receiving = asyncio.create_task(queues.receive("q", wait=5, lease=0.2))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            await queues.send("q", number)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        found: set[int] = set()

        async def all_found() -> bool:
            for one in await queues.receive("q", max=100, wait=0.5):
                found.add(one.value)
                await queues.ack("q", one.receipt)
            return found == set(range(50))

        await eventually(all_found, timeout=20)
        assert await queues.size("q") == 0
