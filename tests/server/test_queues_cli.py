"""``noobly queues`` against a running server, and against the stores that settings and URLs name."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from noobly.clients.redis import RedisClient
from noobly.core.scope import Environment
from noobly.queueing import Outbound, Queues, open_queues
from noobly.queueing.migrating import connected
from noobly.testing import private_or_skip, server_or_skip

from ..serving import here, served

KEY = "a-key-of-the-queues-tests"


class Shell:
    """Runs commands in a folder of its own."""

    def __init__(self, folder: Path, queues: Queues, *reach: str) -> None:
        self.folder = folder
        self.queues = queues
        self.reach = reach

    async def run(self, *arguments: str, given: str = "") -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "noobly", *arguments, *self.reach),
            cwd=self.folder,
            env={**here(), "QUEUES_KEY": KEY},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate(given.encode())
        return process.returncode, out.decode(), err.decode()

    async def queue(self, *arguments: str, given: str = "") -> tuple[int | None, str, str]:
        return await self.run("queues", *arguments, given=given)

    async def json(self, *arguments: str) -> object:
        code, out, err = await self.queue(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/queues.db"


@pytest.fixture(params=["server", "settings", "url", pytest.param("redis", marks=pytest.mark.servers)])
async def shell(tmp_path: Path, store: str, request: pytest.FixtureRequest) -> AsyncIterator[Shell]:
    """Queues that are reached in several ways."""
    if request.param == "server":
        async with served("queueing", "memory://", KEY) as (noobly, base):
            yield Shell(tmp_path, noobly.queueing, "--url", base, "--key", "env:QUEUES_KEY")
        return
    with ExitStack() as stack:
        if request.param == "redis":
            store = f"{stack.enter_context(private_or_skip('redis')).url}?durability=ignore"
        if request.param != "url":
            (tmp_path / "noobly.toml").write_text(f'[queueing]\nurl = "{store}"\n')
        async with open_queues(store) as queues:
            yield Shell(tmp_path, queues, *(("--url", store) if request.param == "url" else ()))


async def kill(queues: Queues, queue: str, reason: str) -> None:
    """Put the next message among the dead letters."""
    (delivery,) = await queues.receive(queue)
    await queues.reject(queue, delivery.receipt, reason=reason)


async def test_looking(shell: Shell) -> None:
    assert await shell.queue("list") == (0, "", "")
    for order in range(3):
        await shell.queues.send("orders", {"order": order})
    await shell.queues.send("mail", "later", delay=600)
    await kill(shell.queues, "orders", "no such customer")
    code, out, err = await shell.queue("list")
    heads, *rows = [line.split() for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert heads == ["QUEUE", "READY", "DELAYED", "IN_FLIGHT", "DEAD", "OLDEST", "PAUSED"]
    assert [row[:5] for row in rows] == [["mail", "0", "1", "0", "0"], ["orders", "2", "0", "0", "1"]]
    listed = await shell.json("list")
    assert isinstance(listed, list)
    assert [(one["queue"], one["ready"], one["dead"]) for one in listed] == [("mail", 0, 0), ("orders", 2, 1)]
    assert await shell.queue("size", "orders") == (0, "2\n", "")
    assert (await shell.json("size", "mail"))["delayed"] == 1  # type: ignore[index]
    peeked = await shell.json("peek", "orders", "--max", "1")
    assert [one["value"] for one in peeked] == [{"order": 1}]  # type: ignore[attr-defined]
    (letter,) = await shell.json("peek", "orders", "--dead")  # type: ignore[misc]
    assert (letter["origin"], letter["last_error"]) == ("orders", "no such customer")
    assert await shell.queues.size("orders") == 2


async def test_holding_back(shell: Shell) -> None:
    await shell.queues.send("orders", 1)
    assert (await shell.queue("pause", "orders"))[:2] == (
        *(0, "Queue 'orders' is held back; `noobly queues resume` lets it go on.\n"),
    )
    assert await shell.queues.receive("orders") == []
    assert (await shell.queue("resume", "orders"))[:2] == (0, "Queue 'orders' goes on.\n")
    assert len(await shell.queues.receive("orders", wait=2)) == 1


async def test_emptying_asks_first(shell: Shell) -> None:
    await shell.queues.send_many("orders", [Outbound(message=number) for number in range(3)])
    assert await shell.queue("purge", "orders", given="n\n") == (0, "Delete 3 messages of queue 'orders'? [y/N] ", "")
    assert await shell.queue("purge", "orders") == (0, "Delete 3 messages of queue 'orders'? [y/N] ", "")
    assert await shell.queues.size("orders") == 3
    code, out, _ = await shell.queue("purge", "orders", given="y\n")
    assert (code, out.partition("] ")[2]) == (0, "Deleted 3 messages of queue 'orders'.\n")
    await shell.queues.send("orders", 1)
    assert await shell.queue("purge", "orders", "--yes") == (0, "Deleted 1 messages of queue 'orders'.\n", "")
    assert await shell.queues.size("orders") == 0


async def test_dead_letters_once_more(shell: Shell) -> None:
    for number, error in enumerate(("timeout: bank", "no such customer", "timeout: bank")):
        await shell.queues.send("orders", number)
        await kill(shell.queues, "orders", error)
    code, out, _ = await shell.queue("redrive", "orders", "--error", "timeout", "--rate", "500")
    assert (code, out) == (0, "Looked at 3 dead letters and sent 2 of them.\n")
    assert await shell.json("redrive", "orders", "--to", "lost") == {"seen": 1, "moved": 1}
    assert sorted(one.value for one in await shell.queues.receive("orders", max=10)) == [0, 2]
    assert [one.value for one in await shell.queues.receive("lost", max=10)] == [1]


async def test_moving(shell: Shell) -> None:
    await shell.queues.send_many("old", [Outbound(message=number) for number in range(1205)])
    assert await shell.queue("move", "old", "new", "--max", "1102") == (
        *(0, "Moved 1102 messages from queue 'old' to 'new'.\n"),
        "",
    )
    assert [await shell.queues.size(name) for name in ("old", "new")] == [103, 1102]
    assert (await shell.queue("move", "old", "new", "--rate", "1000"))[0] == 0
    assert [await shell.queues.size(name) for name in ("old", "new")] == [0, 1205]
    code, out, err = await shell.queue("move", "old", "old")
    assert (code, out) == (2, "")
    assert "'old' cannot be" in err


async def test_a_rate_that_takes_longer_than_calls_usually_may(tmp_path: Path) -> None:
    """A slow redrive is one call to the server, which must not end by the limit of short ones."""
    async with served("queueing", "memory://", KEY) as (noobly, base):
        for number in range(3):
            await noobly.queueing.send("orders", number)
            await kill(noobly.queueing, "orders", "timeout")
        shell = Shell(tmp_path, noobly.queueing, "--url", f"{base}?timeout=0.2", "--key", "env:QUEUES_KEY")
        code, out, err = await shell.queue("redrive", "orders", "--rate", "5")
        assert (code, out, err) == (0, "Looked at 3 dead letters and sent 3 of them.\n", "")


async def test_wrong_arguments(shell: Shell) -> None:
    code, _, err = await shell.queue("peek", "orders", "--max", "0")
    assert code == 2
    assert "invalid_argument" in err
    code, _, err = await shell.queue("size", "x" * 201)
    assert code == 2
    assert "queue" in err


async def test_no_server(tmp_path: Path) -> None:
    async with open_queues() as queues:
        code, out, err = await Shell(tmp_path, queues).queue("list", "--url", "http://127.0.0.1:9")
    assert (code, out) == (1, "")
    assert "cannot be reached" in err
    assert "start `noobly serve`" in err


class TestMigrating:
    @pytest.fixture
    async def old(self) -> AsyncIterator[tuple[str, RedisClient, str]]:
        with server_or_skip("redis") as url:
            key = f"test:{uuid4()}"
            async with connected(url, Environment()) as client:
                yield url, client, key
                await client.execute("DEL", key, f"{key}:migrating")

    @pytest.mark.servers
    async def test_a_list_of_nooblyjs(self, shell: Shell, old: tuple[str, RedisClient, str]) -> None:
        url, client, key = old
        for number in range(250):
            await client.execute("LPUSH", key, json.dumps({"order": number}))
        code, out, err = await shell.queue("migrate", key, "orders", "--from", url)
        assert (code, out, err) == (0, f"Moved 250 messages from the list '{key}' to queue 'orders'.\n", "")
        found = await shell.queues.receive("orders", max=1000)
        assert [one.value for one in found] == [{"order": number} for number in range(250)]
        assert await client.execute("EXISTS", key, f"{key}:migrating") == 0
        assert (await shell.queue("migrate", key, "--from", url))[:2] == (
            *(0, f"Moved 0 messages from the list '{key}' to queue '{key}'.\n"),
        )

    @pytest.mark.servers
    async def test_what_holds_no_list(self, tmp_path: Path, old: tuple[str, RedisClient, str]) -> None:
        url, client, key = old
        await client.execute("SET", key, "no list")
        async with open_queues() as queues:
            shell = Shell(tmp_path, queues, "--url", f"sqlite://{tmp_path}/queues.db")
            code, out, err = await shell.queue("migrate", key, "--from", url)
            assert (code, out) == (1, "")
            assert "conflict" in err
            code, _, err = await shell.queue("migrate", key, "--from", "http://localhost")
            assert code == 2
            assert "http is not a Redis scheme" in err


class TestBench:
    async def bench(self, folder: Path, *arguments: str) -> tuple[int | None, str, str]:
        async with open_queues() as queues:
            return await Shell(folder, queues).run("bench", "queueing", *arguments)

    async def test_a_row_for_each_provider(self, tmp_path: Path) -> None:
        store = f"sqlite://{tmp_path}/queues.db"
        code, out, err = await self.bench(tmp_path, "memory://", store, "--messages", "100", "--rounds", "1")
        *table, words, more = out.splitlines()
        heads, *rows = [line.split() for line in table]
        assert (words[:20], more[:12]) == ("Messages per second:", "Milliseconds")
        assert (code, err) == (0, "")
        assert heads == ["PROVIDER", "SEND", "RECEIVE", "SEND_BATCH", "RECEIVE_BATCH", "P50_MS", "P99_MS"]
        assert [row[0] for row in rows] == ["memory", "sqlite"]
        assert all(float(cell) > 0 for row in rows for cell in row[1:])
        async with open_queues(store) as queues:
            assert await queues.queues() == []

    async def test_json(self, tmp_path: Path) -> None:
        code, out, _ = await self.bench(tmp_path, "--messages", "100", "--rounds", "1", "--json")
        (figures,) = json.loads(out)
        assert (code, figures["provider"]) == (0, "memory")
        assert 0 < figures["p50_ms"] <= figures["p99_ms"]

    async def test_too_few_messages(self, tmp_path: Path) -> None:
        code, _, err = await self.bench(tmp_path, "--messages", "1")
        assert code == 2
        assert "100 to 1,000,000 messages" in err
