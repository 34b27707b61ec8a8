"""The memcached provider when its server restarts, dies or breaks off, and when calls are cancelled."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import aiomcache
import pytest

from noobly.caching import open_cache
from noobly.caching.providers.memcached import MemcachedCache
from noobly.core.errors import NooblyError, TooLarge, Unavailable
from noobly.testing import OwnedServer, RunningServer, eventually, private_or_skip

from .memcached_cache import opened, raw

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def server() -> Iterator[OwnedServer]:
    with private_or_skip("memcached") as started:
        yield started


@pytest.fixture
def fragile() -> Iterator[OwnedServer]:
    with private_or_skip("memcached") as started:
        yield started


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    # An alarm, for a loop that never lets go of the event loop could not be ended by asyncio.
    def late(*_: object) -> None:
        raise TimeoutError("the test took more than 15 s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 15)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


async def connections(server: RunningServer) -> int:
    async with raw(server) as client:
        return int((await client.stats())[b"curr_connections"] or 0)


async def paused(server: OwnedServer) -> None:
    server.pause()
    state = Path(f"/proc/{server.pid}/stat")
    await eventually(lambda: state.read_text().rpartition(") ")[2].startswith("T"))


async def under_way(tasks: list[asyncio.Task[object]]) -> None:
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_a_server_that_does_not_answer_fails_the_opening() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 does not answer"):
        async with open_cache("memcached://127.0.0.1:1"):
            pass


async def test_it_comes_back_by_itself_after_a_restart(fragile: OwnedServer) -> None:
    async with opened(fragile) as cache:
        await asyncio.gather(*(cache.put(f"k:{n}", b"1", None) for n in range(20)))
        await asyncio.to_thread(fragile.restart)
        await eventually(lambda: put_works(cache))
        assert await cache.get("k:1") is None
        assert await asyncio.gather(*(cache.add(f"k:{n}", b"2", None) for n in range(20))) == [True] * 20


async def put_works(cache: MemcachedCache) -> bool:
    try:
        await cache.put("k:0", b"2", None)
    except (OSError, EOFError, aiomcache.ClientException):
        return False
    return await cache.delete_many(["k:0"]) == [True]


async def test_an_idle_cache_notices_a_restart_without_an_error(fragile: OwnedServer) -> None:
    async with open_cache(fragile.url) as cache:
        await cache.put("key", 1)
        await asyncio.to_thread(fragile.restart)
        assert await cache.get("key") is None
        await cache.put("key", 2)
        assert await cache.get("key") == 2


async def test_all_who_wait_hear_of_a_server_that_dies(fragile: OwnedServer) -> None:
    async with opened(fragile, connections=2) as cache:
        await cache.put("key", b"1", None)
        await paused(fragile)
        tasks = [asyncio.create_task(cache.get("key")) for _ in range(50)]
        await under_way(tasks)
        fragile.kill()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, Exception) for result in results)
        kinds = {type(cache.classify(result)) for result in results if isinstance(result, Exception)}
        assert kinds == {Unavailable}
        with pytest.raises(ConnectionError):
            await cache.health()
        fragile.start()
        assert await cache.get("key") is None


async def test_a_cancelled_call_never_answers_a_later_one(fragile: OwnedServer) -> None:
    async with opened(fragile, connections=2) as cache:
        await cache.put_many([(f"k:{n}", b"%d" % n) for n in range(10)], None)
        await paused(fragile)
        calls = [*(cache.get(f"k:{n}") for n in range(5)), cache.increment("count", 1, None)]
        tasks = [asyncio.create_task(call) for call in calls]
        await under_way(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        fragile.resume()
        assert [await cache.get(f"k:{n}") for n in range(10)] == [b"%d" % n for n in range(10)]


async def test_a_storm_of_cancelled_calls_leaves_every_value_right(server: OwnedServer) -> None:
    chance = random.Random(2)
    before = await connections(server)
    async with opened(server, connections=4) as cache:
        values = {f"k:{n}": f"value {n}".encode() * 100 for n in range(50)}
        await cache.put_many(list(values.items()), None)

        async def call(key: str) -> None:
            kind = chance.randrange(4)
            if kind == 0:
                assert await cache.get(key) == values[key]
            elif kind == 1:
                await cache.put(key, values[key], None)
            elif kind == 2:
                await cache.increment("count", 1, None)
            else:
                assert await cache.get_many(list(values)) == list(values.values())

        for _ in range(60):
            tasks = [asyncio.create_task(call(chance.choice(list(values)))) for _ in range(20)]
            for task in tasks:
                asyncio.get_running_loop().call_later(chance.random() * 0.004, task.cancel)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
        assert await cache.get_many(list(values)) == list(values.values())
        await eventually(lambda: at_most(server, before + 4))
    await eventually(lambda: at_most(server, before))


async def at_most(server: RunningServer, most: int) -> bool:
    return await connections(server) <= most


@pytest.mark.parametrize("answers", ["", "END", "VALUE x", "VALUE x 0 10\r\nabc", "END\r\n|STOR", "END\r\n|"])
async def test_a_connection_that_ends_in_the_middle_is_unavailable(answers: str) -> None:
    scripts = iter([["VERSION 1\r\n", *answers.split("|")], answers.split("|")])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in next(scripts):
            await reader.readline()
            writer.write(answer.encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with open_cache(f"memcached://127.0.0.1:{port}", attempts=1) as cache:
            with pytest.raises(Unavailable):
                await cache.put("key", 1)
            with pytest.raises(Unavailable):
                await cache.put("key", 2)


async def test_errors_have_names(server: OwnedServer) -> None:
    async with opened(server) as cache:
        table: list[tuple[Exception, type[NooblyError] | None]] = [
            (ConnectionResetError(), Unavailable),
            (asyncio.IncompleteReadError(b"", 1), Unavailable),
            (aiomcache.ClientException("set failed", b"SERVER_ERROR out of memory storing object"), Unavailable),
            (aiomcache.ClientException("set failed", b"SERVER_ERROR object too large for cache"), TooLarge),
            (aiomcache.ClientException("set failed", b"CLIENT_ERROR bad data chunk"), None),
            (aiomcache.ValidationException("invalid key", b" "), None),
            (RuntimeError("other"), None),
        ]
        for error, expected in table:
            found = cache.classify(error)
            assert (type(found) if found else None) is expected, error
