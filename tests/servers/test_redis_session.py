from __future__ import annotations

import asyncio
import ssl
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from noobly.clients.redis import (
    Execute,
    RedisAddress,
    RedisConnection,
    RedisOptions,
    RedisReplyError,
    Reply,
    classify,
)
from noobly.core.errors import (
    Closed,
    ConfigError,
    Conflict,
    Internal,
    NooblyError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

from .redis_server import (
    PROGRAM,
    Servers,
    at,
    connected,
    issue,
    outcomes,
    tls_files,
    until_up,
)

pytestmark = pytest.mark.skipif(not Path(PROGRAM).exists(), reason="redis-server is not installed")


async def test_password_is_checked_and_never_shown(start: Servers) -> None:
    server = start("--requirepass", "s3cret")
    right = RedisOptions(username="default", password=lambda: "s3cret", database=3, client_name="noobly-test")
    async with connected(server, options=right) as connection:
        info = await connection.execute("CLIENT", "INFO")
        assert isinstance(info, bytes)
        assert b"name=noobly-test" in info
        assert b" db=3 " in info
    for wrong in (RedisOptions(), RedisOptions(password=lambda: "guess"), RedisOptions(username="nobody")):
        connection = RedisConnection(at(server), wrong)
        with pytest.raises(Unauthenticated) as caught:
            await connection.start()
        assert "guess" not in "".join(traceback.format_exception(caught.value))
        with pytest.raises(Closed):
            await connection.execute("PING")
    assert "s3cret" not in repr(right)
    assert "database=3" in repr(right)


async def test_server_without_resp3_is_named_and_the_password_stays_hidden(start: Servers) -> None:
    server = start("--rename-command", "HELLO", "")
    connection = RedisConnection(at(server), RedisOptions(password=lambda: "s3cret"))
    with pytest.raises(Unsupported, match="RESP3") as caught:
        await connection.start()
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


async def test_database_that_is_not_there_is_a_configuration_error(start: Servers) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        await RedisConnection(at(start()), RedisOptions(database=999)).start()


async def test_command_beyond_the_permissions_is_refused(start: Servers) -> None:
    server = start("--user", "reader", "on", ">pw", "~*", "+get")
    async with connected(server, options=RedisOptions(username="reader", password=lambda: "pw")) as connection:
        with pytest.raises(RedisReplyError) as caught:
            await connection.execute("SET", "a", 1)
    assert isinstance(classify(caught.value), PermissionDenied)


async def test_tls_works_and_a_foreign_authority_is_refused(start: Servers, tmp_path: Path) -> None:
    files, trusted = tls_files(tmp_path)
    server = start(*files, tls=True)
    foreign = ssl.create_default_context()
    trustme.CA().configure_trust(foreign)
    value = bytes(2 << 20)
    async with connected(server, options=RedisOptions(tls=trusted)) as connection:
        await connection.execute("SET", "a", value)
        assert await asyncio.gather(*(connection.execute("GET", "a") for _ in range(5))) == [value] * 5
        server.pause()
        tasks = issue(connection, ("PING",))
        await asyncio.sleep(0.01)
        server.kill()
        assert isinstance((await outcomes(tasks))[0], Unavailable)
    server.start()
    with pytest.raises(Unavailable, match="certificate verify failed"):
        await RedisConnection(at(server), RedisOptions(tls=foreign)).start()


async def test_unix_socket_works(start: Servers, tmp_path: Path) -> None:
    path = str(tmp_path / "redis.sock")
    start("--unixsocket", path)

    async def resolve() -> RedisAddress:
        return RedisAddress(path=path)

    connection = RedisConnection(resolve, RedisOptions())
    await connection.start()
    assert await connection.execute("ECHO", path) == path.encode()
    await connection.close()
    assert str(RedisAddress(path=path)) == path


async def test_invalidations_arrive_also_after_a_reconnect(start: Servers) -> None:
    server, pushed, lost = start(), asyncio.Queue[list[Reply]](), asyncio.Event()

    async def track(execute: Execute) -> None:
        await execute("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "user:")

    connection = RedisConnection(at(server), RedisOptions())
    connection.on_connect(track)
    connection.on_push(pushed.put_nowait)
    connection.on_disconnect(lost.set)
    await connection.start()
    for name in ("user:1", "user:2"):
        async with connected(server) as other:
            await other.execute("SET", name, "x")
        async with asyncio.timeout(5):
            assert await pushed.get() == [b"invalidate", [name.encode()]]
        await connection.execute("SET", "other:1", "x")
        server.kill()
        server.start()
        async with asyncio.timeout(5):
            await lost.wait()
            lost.clear()
        await until_up(connection)
    assert pushed.empty()
    await connection.close()


async def test_defect_in_a_handler_is_internal(start: Servers) -> None:
    async def fail(_: Execute) -> None:
        raise ValueError("a defect")

    connection = RedisConnection(at(start()), RedisOptions())
    connection.on_connect(fail)
    with pytest.raises(Internal, match="a defect"):
        await connection.start()


async def test_connection_lost_while_handlers_run_is_not_used(start: Servers) -> None:
    async def quit(execute: Execute) -> None:
        await execute("QUIT")
        for _ in range(2):
            with suppress(Unavailable):
                while True:
                    await execute("PING")

    connection = RedisConnection(at(start()), RedisOptions())
    connection.on_connect(quit)
    with pytest.raises(Unavailable, match="lost"):
        await connection.start()


def test_options_that_let_no_command_pass_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_in_flight"):
        RedisOptions(max_in_flight=0)
    with pytest.raises(ConfigError, match="stall_timeout"):
        RedisOptions(stall_timeout=-1)


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b":1\r\n:2\r\n", b"*0\r\n"])
async def test_peer_that_is_no_redis_is_refused(answer: bytes | None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = await reader.read(1_000)
        writer.write(received if answer is None else answer)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        async def resolve() -> RedisAddress:
            return RedisAddress("127.0.0.1", port)

        with pytest.raises(Unavailable):
            await RedisConnection(resolve, RedisOptions()).start()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RedisReplyError.parse("LOADING Redis is loading the dataset in memory"), Unavailable),
        (RedisReplyError.parse("OOM command not allowed"), Unavailable),
        (RedisReplyError.parse("BUSY Redis is busy running a script"), Unavailable),
        (RedisReplyError.parse("TRYAGAIN Multiple keys request during rehashing of slot"), Unavailable),
        (RedisReplyError.parse("CLUSTERDOWN Hash slot not served"), Unavailable),
        (RedisReplyError.parse("MASTERDOWN Link with MASTER is down"), Unavailable),
        (RedisReplyError.parse("ERR max number of clients reached"), Unavailable),
        (RedisReplyError.parse("NOAUTH Authentication required."), Unauthenticated),
        (RedisReplyError.parse("WRONGTYPE Operation against a key"), Conflict),
        (ConnectionResetError("reset"), Unavailable),
        (TimeoutError(), Unavailable),
        (Closed("closed"), Closed),
        (RedisReplyError.parse("ERR syntax error"), None),
        (ValueError("a defect"), None),
    ],
)
def test_errors_have_one_place_in_the_tree(error: BaseException, kind: type[NooblyError] | None) -> None:
    found = classify(error)
    assert (type(found) if found else None) is kind
    assert found is None or found.message
