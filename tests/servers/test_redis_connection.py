from __future__ import annotations

import asyncio
import gc
import random
import time
from pathlib import Path
from typing import cast

import pytest
import uvloop

from noobly.clients.redis import (
    RedisAddress,
    RedisConnection,
    RedisOptions,
    RedisReplyError,
    RedisScript,
    Reply,
    classify,
)
from noobly.core.errors import (
    Closed,
    Unavailable,
)

from .redis_server import PROGRAM, Servers, Steady, at, connected, issue, outcomes, until_up

pytestmark = pytest.mark.skipif(not Path(PROGRAM).exists(), reason="redis-server is not installed")


async def test_ten_thousand_tasks_get_each_their_reply(start: Servers) -> None:
    async with connected(start(), options=RedisOptions(max_in_flight=20_000)) as connection:
        replies = await asyncio.gather(*(connection.execute("ECHO", number) for number in range(10_000)))
    assert replies == [b"%d" % number for number in range(10_000)]


async def test_commands_of_one_turn_leave_in_one_write(start: Servers) -> None:
    async def reads(connection: RedisConnection) -> int:
        text = await connection.execute("INFO", "stats")
        assert isinstance(text, bytes)
        return int(text.partition(b"total_reads_processed:")[2].split()[0])

    async with connected(start()) as connection:
        before = await reads(connection)
        await asyncio.gather(*(connection.execute("ECHO", number) for number in range(200)))
        assert await reads(connection) - before == 2  # the 200 together, and the question itself


async def test_replies_keep_their_types(start: Servers) -> None:
    async with connected(start()) as connection:
        await connection.execute("HSET", "h", "a", 1, b"b", 2.5)
        assert await connection.execute("HGETALL", "h") == {b"a": b"1", b"b": b"2.5"}
        await connection.execute("ZADD", "z", 1.5, "m")
        assert await connection.execute("ZSCORE", "z", "m") == 1.5
        assert await connection.execute("GET", "absent") is None
        assert await connection.execute("EXISTS", "h", "z") == 2


@pytest.mark.parametrize("seed", range(3))
async def test_cancelled_callers_leave_all_others_their_own_replies(start: Servers, seed: int) -> None:
    chance = random.Random(seed)
    async with connected(start(), options=RedisOptions(max_in_flight=50)) as connection:
        tasks = issue(connection, *(("ECHO", number) for number in range(1_000)))
        for _ in range(20):
            await asyncio.sleep(chance.choice((0, 0, 0.0005)))
            for task in chance.sample(tasks, 25):
                task.cancel()
        for number, outcome in enumerate(await outcomes(tasks)):
            assert isinstance(outcome, asyncio.CancelledError) or outcome == b"%d" % number
        assert await connection.execute("ECHO", "still in step") == b"still in step"


async def test_cancelled_batch_leaves_others_their_replies(start: Servers) -> None:
    async with connected(start()) as connection:
        batch = asyncio.create_task(connection.execute_many([("ECHO", number) for number in range(100)]))
        await asyncio.sleep(0)
        single = issue(connection, ("ECHO", "single"))
        await asyncio.sleep(0)
        batch.cancel()
        assert await outcomes(single) == [b"single"]
        assert batch.cancelled()
        refused = issue(connection, *[("INCR",)] * 3)
        await asyncio.sleep(0)
        refused[1].cancel()
        kinds = [type(outcome) for outcome in await outcomes(refused)]
        assert kinds == [RedisReplyError, asyncio.CancelledError, RedisReplyError]


async def test_batch_returns_errors_in_their_places(start: Servers) -> None:
    async with connected(start()) as connection:
        replies = await connection.execute_many([("SET", "a", "x"), ("INCR", "a"), ("GET", "a")])
        assert replies[0] == b"OK"
        assert isinstance(replies[1], RedisReplyError)
        assert replies[1].code == "ERR"
        assert replies[2] == b"x"
        assert await connection.execute_many([]) == []
        with pytest.raises(RedisReplyError, match="not an integer"):
            await connection.execute("INCR", "a")


async def test_argument_of_a_wrong_type_harms_nobody_else(start: Servers) -> None:
    async with connected(start(), options=RedisOptions(max_in_flight=1)) as connection:
        first = issue(connection, ("ECHO", 1))
        wrong = asyncio.create_task(connection.execute_many([("ECHO", 2), ("ECHO", None)]))  # type: ignore[list-item]
        last = issue(connection, ("ECHO", 3))
        assert await outcomes(first + last) == [b"1", b"3"]
        with pytest.raises(TypeError):
            await wrong
        with pytest.raises(TypeError):
            await connection.execute("ECHO", cast("str", None))
        assert await connection.execute("ECHO", 4) == b"4"


async def test_script_is_sent_only_when_unknown(start: Servers) -> None:
    script, wrong = RedisScript("return {KEYS[1], ARGV[1]}"), RedisScript("return redis.call('DEL')")
    async with connected(start()) as connection:
        assert await connection.script(script, ["k"], [1]) == [b"k", b"1"]
        assert await connection.execute("SCRIPT", "EXISTS", script.sha) == [1]
        await connection.execute("SCRIPT", "FLUSH")
        assert await connection.script(script, ["k"], [2]) == [b"k", b"2"]
        with pytest.raises(RedisReplyError, match="number of args"):
            await connection.script(wrong, [], [])
        with pytest.raises(RedisReplyError, match="number of args"):  # by its digest now
            await connection.script(wrong, [], [])


async def test_big_values_pass_both_ways_with_few_in_flight(start: Servers) -> None:
    value = random.Random(1).randbytes(8 << 20)
    async with connected(start(), options=RedisOptions(max_in_flight=2)) as connection:
        await asyncio.gather(*(connection.execute("SET", f"k{number}", value) for number in range(6)))
        replies = await asyncio.gather(*(connection.execute("GET", f"k{number}") for number in range(6)))
        assert all(reply == value for reply in replies)


async def test_no_more_than_allowed_are_in_flight_and_nobody_overtakes(start: Servers) -> None:
    server = start()
    async with connected(server, options=RedisOptions(max_in_flight=3)) as connection:
        await asyncio.gather(*(connection.execute("RPUSH", "order", number) for number in range(50)))
        assert await connection.execute("LRANGE", "order", 0, -1) == [b"%d" % number for number in range(50)]
        server.pause()
        tasks = issue(connection, *(("RPUSH", "order", number) for number in range(10)))
        await asyncio.sleep(0.01)
        tasks[7].cancel()
        server.kill()
        texts = [str(outcome) for outcome in await outcomes(tasks)]
    assert [("may or may not" in text, "was not sent" in text) for text in texts] == (
        [(True, False)] * 3 + [(False, True)] * 4 + [(False, False)] + [(False, True)] * 2
    )


async def test_reader_that_lags_makes_callers_wait(start: Servers) -> None:
    server = start()
    async with connected(server) as connection:
        server.pause()
        value = bytes(1 << 20)
        tasks = [asyncio.create_task(connection.execute("SET", "k", value)) for _ in range(50)]
        await asyncio.sleep(0.05)
        server.kill()
        waiting = [outcome for outcome in await outcomes(tasks) if "was not sent" in str(outcome)]
    assert len(waiting) > 30  # the kernel's buffers took some; the rest stayed with their callers


async def test_killed_server_fails_those_in_flight_and_comes_back(start: Servers) -> None:
    server = start()
    async with connected(server) as connection:
        states = [connection.connected]
        server.pause()
        tasks = issue(connection, *(("INCR", "n") for _ in range(100)))
        batch = asyncio.create_task(connection.execute_many([("INCR", "n")] * 3))
        await asyncio.sleep(0.01)
        server.kill()
        for outcome in [*await outcomes(tasks), *await asyncio.gather(batch, return_exceptions=True)]:
            assert isinstance(outcome, Unavailable)
            assert "may or may not have been executed" in outcome.message
            assert isinstance(outcome.__cause__, OSError)
        states.append(connection.connected)
        assert states == [True, False]
        server.start()
        assert await connection.execute("INCR", "n") == 1


async def test_calls_while_down_fail_at_once_and_attempts_are_few(start: Servers) -> None:
    server, attempts = start(), 0

    async def resolve() -> RedisAddress:
        nonlocal attempts
        attempts += 1
        return RedisAddress("127.0.0.1", server.port)

    connection = RedisConnection(resolve, RedisOptions(), chance=Steady())
    await connection.start()
    server.kill()
    ended = time.monotonic() + 0.6
    while time.monotonic() < ended:
        for outcome in await outcomes(issue(connection, *[("PING",)] * 20)):
            assert isinstance(outcome, Unavailable)
        await asyncio.sleep(0.005)
    with pytest.raises(Unavailable) as caught:
        await connection.execute("PING")
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 1
    assert isinstance(caught.value.__cause__, OSError)
    assert 4 <= attempts <= 7  # start, then after 0, 25, 75, 175, 375 ms
    server.start()
    await until_up(connection)
    await connection.close()


async def test_callers_share_one_attempt(start: Servers) -> None:
    server, attempts = start(), 0

    async def resolve() -> RedisAddress:
        nonlocal attempts
        attempts += 1
        return RedisAddress("127.0.0.1", server.port)

    connection = RedisConnection(resolve, RedisOptions())
    await connection.start()
    await connection.execute("PING")
    server.kill()
    server.start()
    assert isinstance((await outcomes(issue(connection, ("PING",))))[0], Unavailable | bytes)
    tasks = issue(connection, *(("ECHO", number) for number in range(100)))
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert (await outcomes(tasks))[1:] == [b"%d" % number for number in range(1, 100)]
    assert attempts == 2
    await connection.close()


async def test_paused_server_is_given_up_and_used_again_when_it_runs(start: Servers) -> None:
    server = start()
    async with connected(server, options=RedisOptions(stall_timeout=0.3, connect_timeout=0.5)) as connection:
        server.pause()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="did not answer") as caught:
            await connection.execute("PING")
        assert 0.3 <= time.monotonic() - began < 0.7
        assert isinstance(caught.value.__cause__, TimeoutError)
        with pytest.raises(Unavailable):  # the kernel accepts the connection, nobody answers HELLO
            await connection.execute("PING")
        server.resume()
        await until_up(connection)


async def test_quiet_connection_is_not_given_up(start: Servers) -> None:
    async with connected(start(), options=RedisOptions(stall_timeout=0.05)) as connection:
        identity = await connection.execute("CLIENT", "ID")
        await asyncio.sleep(0.2)
        assert await connection.execute("CLIENT", "ID") == identity


async def test_demoted_primary_is_left_for_the_new_one(start: Servers) -> None:
    old, new = start(), start()
    async with connected(old, new) as connection:
        await connection.execute("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(RedisReplyError) as caught:
            await connection.execute("SET", "a", 1)
        assert isinstance(classify(caught.value), Unavailable)
        assert await connection.execute("SET", "a", 2) == b"OK"
    async with connected(new) as connection:
        assert await connection.execute("GET", "a") == b"2"


async def test_replica_is_not_asked_again_and_again(start: Servers) -> None:
    server, attempts = start(), 0

    async def resolve() -> RedisAddress:
        nonlocal attempts
        attempts += 1
        return RedisAddress("127.0.0.1", server.port)

    connection = RedisConnection(resolve, RedisOptions(), chance=Steady())
    await connection.start()
    await connection.execute("REPLICAOF", "127.0.0.1", 1)
    ended = time.monotonic() + 0.3
    while time.monotonic() < ended:
        outcome = (await outcomes(issue(connection, ("SET", "a", 1))))[0]
        assert isinstance(outcome, BaseException)
        assert isinstance(classify(outcome), Unavailable)
        await asyncio.sleep(0.002)
    assert 3 <= attempts <= 5  # start, then after 0, 50, 150, 350 ms
    await connection.close()


async def test_close_fails_those_in_flight_and_all_later_calls(start: Servers) -> None:
    server = start()
    connection = RedisConnection(at(server), RedisOptions())
    with pytest.raises(Closed):
        await connection.execute("PING")
    await connection.start()
    server.pause()
    tasks = issue(connection, *[("PING",)] * 3)
    await asyncio.sleep(0.01)
    await connection.close()
    assert [type(outcome) for outcome in await outcomes(tasks)] == [Closed] * 3
    for call in (connection.execute("PING"), connection.execute_many([("PING",)])):
        with pytest.raises(Closed):
            await call
    await connection.close()


async def test_close_ends_an_attempt_under_way(start: Servers) -> None:
    server = start()
    server.pause()
    connection = RedisConnection(at(server), RedisOptions())
    starting = asyncio.create_task(connection.start())
    await asyncio.sleep(0.02)
    await connection.close()
    with pytest.raises(Closed):
        await starting


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_one_loop_after_the_other_leaves_nothing_behind(start: Servers, run: object) -> None:
    server = start()

    async def use() -> Reply:
        async with connected(server) as connection:
            return await connection.execute("PING")

    assert callable(run)
    assert [run(use()), run(use())] == [b"PONG"] * 2
    gc.collect()
