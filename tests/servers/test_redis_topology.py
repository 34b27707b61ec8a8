from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from noobly.clients.redis import (
    Command,
    RedisAddress,
    RedisClient,
    RedisConnection,
    RedisOptions,
    RedisReplyError,
    RedisScript,
    classify,
)
from noobly.clients.redis_topology import ClusterClient, sentinel_resolver
from noobly.core.errors import Closed, ConfigError, Internal, Unauthenticated, Unavailable

from .redis_server import PROGRAM, RedisServer, Servers, connected, free_port, tls_files

pytestmark = pytest.mark.skipif(not Path(PROGRAM).exists(), reason="redis-server is not installed")

SHAPES: list[Command] = [
    ("SET", "s", b"\xff\x00"),
    ("GET", "s"),
    ("GET", "absent"),
    ("HSET", "h", "a", 1, "b", 2.5),
    ("HGETALL", "h"),
    ("SADD", "set", "x"),
    ("SMEMBERS", "set"),
    ("ZADD", "z", 1.5, "m"),
    ("ZRANGE", "z", 0, -1, "WITHSCORES"),
    ("ZSCORE", "z", "m"),
    ("XADD", "x", "1-1", "f", "v"),
    ("XRANGE", "x", "-", "+"),
    ("XREAD", "COUNT", 1, "STREAMS", "x", "0"),
    ("EXPIRE", "s", 100),
    ("TYPE", "x"),
    ("DEL", "s"),
]


def address(server: RedisServer) -> RedisAddress:
    return RedisAddress("127.0.0.1", server.port)


def monitoring(server: RedisServer) -> str:
    return f"sentinel monitor primary 127.0.0.1 {server.port} 1\n"


class Node(NamedTuple):
    """The only node of a cluster, which listens with and without TLS."""

    server: RedisServer
    over_tls: RedisAddress
    trusted: ssl.SSLContext


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start one node for all tests: each start takes 2 s until it accepts writes."""
    folder, tls_port = tmp_path_factory.mktemp("cluster"), free_port()
    files, trusted = tls_files(folder)
    options = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        str(free_port()),
        "--tls-cluster",
        "yes",
        "--tls-port",
        str(tls_port),
        *files,
    ]
    node = Node(RedisServer(folder / "node", *options), RedisAddress("127.0.0.1", tls_port), trusted)
    node.server.start()
    yield node
    node.server.kill()


@pytest.fixture
async def node(started: Node, start: Servers) -> Node:
    async with connected(started.server) as connection, asyncio.timeout(5):
        if b"cluster_slots_assigned:0" in await info(connection):
            await connection.execute("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while True:
            if b"cluster_state:ok" in await info(connection):
                await connection.execute("FLUSHALL")
                return started
            await asyncio.sleep(0.01)


async def info(connection: RedisConnection) -> bytes:
    reply = await connection.execute("CLUSTER", "INFO")
    assert isinstance(reply, bytes)
    return reply


@asynccontextmanager
async def cluster(node: Node, options: RedisOptions | None = None) -> AsyncIterator[RedisClient]:
    client = ClusterClient([address(node.server)], options or RedisOptions())
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def test_sentinels_are_asked_in_turn_and_the_failover_is_followed(start: Servers) -> None:
    first, second = start(), start()
    dead, sentinel = RedisAddress("127.0.0.1", 1), start(sentinel=monitoring(first))
    connection = RedisConnection(sentinel_resolver([dead, address(sentinel)], "primary"), RedisOptions())
    await connection.start()
    await connection.execute("SET", "a", 1)
    async with connected(sentinel) as control, connected(first) as old:
        await control.execute("SENTINEL", "REMOVE", "primary")
        await control.execute("SENTINEL", "MONITOR", "primary", "127.0.0.1", second.port, 1)
        await old.execute("REPLICAOF", "127.0.0.1", second.port)
    with pytest.raises(RedisReplyError, match="READONLY"):
        await connection.execute("SET", "a", 2)
    assert await connection.execute("SET", "a", 3) == b"OK"
    await connection.close()
    async with connected(second) as new:
        assert await new.execute("GET", "a") == b"3"


async def test_sentinels_that_cannot_tell_are_unavailable(start: Servers) -> None:
    plain, sentinel = start(), start(sentinel=monitoring(start()))
    with pytest.raises(Unavailable, match="no sentinel knows") as caught:
        await sentinel_resolver([address(sentinel), address(plain)], "unknown")()
    assert isinstance(caught.value.__cause__, Unavailable)
    with pytest.raises(Unavailable, match="asked 1"):
        await sentinel_resolver([address(sentinel)], "unknown")()


async def test_cluster_replies_as_a_single_server_does(node: Node, start: Servers) -> None:
    plain = start()
    async with cluster(node) as client, connected(plain) as connection:
        assert [await client.execute(*command) for command in SHAPES] == [
            await connection.execute(*command) for command in SHAPES
        ]
        batch = [command for command in SHAPES if command[0] != "XADD"]
        assert await client.execute_many(batch) == await connection.execute_many(batch)
        assert await client.execute_many([]) == []


async def test_cluster_gives_errors_as_a_single_server_does(node: Node, start: Servers) -> None:
    plain = start()
    script = RedisScript("return {KEYS[1], ARGV[1]}")
    async with cluster(node) as client, connected(plain) as connection:
        for redis in (client, connection):
            assert await redis.script(script, ["k"], [1]) == [b"k", b"1"]
            replies = await redis.execute_many([("SET", "a", "x"), ("INCR", "a"), ("LPOP", "a"), ("GET", "a")])
            assert [replies[0], replies[3]] == [b"OK", b"x"]
            codes = [reply.code for reply in replies if isinstance(reply, RedisReplyError)]
            assert codes == ["ERR", "WRONGTYPE"]
            with pytest.raises(RedisReplyError) as caught:
                await redis.execute("INCR", "a")
            assert str(caught.value) == "ERR value is not an integer or out of range"
        with pytest.raises(RedisReplyError) as caught:
            await client.execute("MGET", "a", "b")
        assert caught.value.code == "CROSSSLOT"
        with pytest.raises(Internal):
            await client.execute("GET", cast("str", object()))


async def test_cluster_takes_more_callers_than_connections(node: Node) -> None:
    async with cluster(node) as client:
        replies = await asyncio.gather(*(client.execute("SET", f"k{number}", number) for number in range(500)))
        assert replies == [b"OK"] * 500
        read = await client.execute_many([("GET", f"k{number}") for number in range(500)])
        assert read == [b"%d" % number for number in range(500)]


async def test_cancelled_cluster_callers_leave_others_their_replies(node: Node) -> None:
    async with cluster(node) as client:
        await client.execute_many([("SET", f"k{number}", number) for number in range(200)])
        tasks = [asyncio.create_task(client.execute("GET", f"k{number}")) for number in range(200)]
        await asyncio.sleep(0.005)
        for task in tasks[::3]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for number, outcome in enumerate(outcomes):
            assert isinstance(outcome, asyncio.CancelledError) or outcome == b"%d" % number
        assert await client.execute("GET", "k7") == b"7"


async def test_cluster_node_that_was_away_is_used_again(node: Node) -> None:
    async with cluster(node) as client:
        assert await client.execute("SET", "a", 1) == b"OK"
        node.server.kill()
        with pytest.raises(Unavailable) as caught:
            await client.execute_many([("GET", "a"), ("GET", "b")])
        assert caught.value.__cause__ is not None
        with pytest.raises(Unavailable):
            await client.execute("GET", "a")
        node.server.start()
        await answers(client, ("SET", "a", 2))


async def answers(client: RedisClient, command: Command) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                await client.execute(*command)
                batch = await client.execute_many([command])
            except (Unavailable, RedisReplyError) as error:
                if not isinstance(classify(error), Unavailable):
                    raise
                await asyncio.sleep(0.02)
            else:
                assert batch == [b"OK"]
                return


async def test_cluster_checks_the_password(node: Node) -> None:
    right = RedisOptions(password=lambda: "s3cret")
    async with connected(node.server) as connection:
        await connection.execute("CONFIG", "SET", "requirepass", "s3cret")
        async with cluster(node, right) as client:
            assert await client.execute("SET", "a", 1) == b"OK"
        for wrong in (RedisOptions(), RedisOptions(password=lambda: "guess")):
            with pytest.raises(Unauthenticated):
                await ClusterClient([address(node.server)], wrong).start()
        await connection.execute("CONFIG", "SET", "requirepass", "")


async def test_cluster_over_tls(node: Node) -> None:
    client = ClusterClient([node.over_tls], RedisOptions(tls=node.trusted))
    await client.start()
    assert await client.execute_many([("SET", "a", 1), ("GET", "a")]) == [b"OK", b"1"]
    async with connected(node.server) as connection:
        listed = await connection.execute("CLIENT", "LIST")
        assert isinstance(listed, bytes)
        assert f"laddr=127.0.0.1:{node.over_tls.port}".encode() in listed
    await client.close()
    with pytest.raises(Unavailable):
        await ClusterClient([node.over_tls], RedisOptions(tls=ssl.create_default_context())).start()


async def test_cluster_that_is_not_open_is_closed(start: Servers) -> None:
    client = ClusterClient([RedisAddress("127.0.0.1", 1)], RedisOptions())
    with pytest.raises(Unavailable):
        await client.start()
    for call in (client.execute("PING"), client.execute_many([("PING",)])):
        with pytest.raises(Closed):
            await call
    await client.close()
    with pytest.raises(ConfigError, match="not enabled"):
        await ClusterClient([address(start())], RedisOptions()).start()
