"""The TCP proxy, in front of a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from noobly.testing import OwnedServer, TcpProxy, eventually, free_port, private_or_skip

pytestmark = pytest.mark.servers


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, text: str) -> None:
        self.writer.write(f"{text}\r\n".encode())

    async def receive(self) -> str:
        return (await asyncio.wait_for(self.reader.readuntil(b"\r\n"), 5)).decode().strip()

    async def ask(self, text: str) -> str:
        self.send(text)
        return await self.receive()

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


class Clients:
    """Opens clients of one proxy and closes them all."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.opened: list[Client] = []

    async def __call__(self) -> Client:
        client = Client(*await asyncio.open_connection(self.proxy.host, self.proxy.port))
        self.opened.append(client)
        return client


@pytest.fixture(scope="module")
def redis() -> Iterator[OwnedServer]:
    with private_or_skip("redis") as server:
        yield server


@pytest.fixture
async def proxy(redis: OwnedServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(redis.host, redis.port) as running:
        yield running


@pytest.fixture
async def connect(proxy: TcpProxy) -> AsyncIterator[Clients]:
    clients = Clients(proxy)
    yield clients
    for client in clients.opened:
        await client.close()


async def test_it_forwards_and_counts(proxy: TcpProxy, connect: Clients) -> None:
    first, second = await connect(), await connect()
    assert [await first.ask("PING"), await second.ask("ECHO hello")] == ["+PONG", "$5"]
    assert await second.receive() == "hello"
    assert (proxy.connections, proxy.open) == (2, 2)
    assert (proxy.sent, proxy.received) == (len("PING\r\nECHO hello\r\n"), len("+PONG\r\n$5\r\nhello\r\n"))


async def test_large_answers_pass_whole(proxy: TcpProxy, connect: Clients) -> None:
    client, size = await connect(), 4_000_000
    client.writer.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % size + b"x" * size + b"\r\nGET k\r\n")
    assert [await client.receive(), await client.receive()] == ["+OK", f"${size}"]
    assert await client.reader.readexactly(size) == b"x" * size
    assert proxy.received > size


async def test_a_goodbye_from_either_side_passes(proxy: TcpProxy, connect: Clients) -> None:
    leaving, dismissed = await connect(), await connect()
    await leaving.ask("PING")
    leaving.writer.write_eof()
    assert await leaving.reader.read() == b""
    assert await dismissed.ask("QUIT") == "+OK"
    assert await dismissed.reader.read() == b""
    await dismissed.close()
    await eventually(lambda: proxy.open == 0)


async def test_cut_resets_connections_and_refuses_new_ones(proxy: TcpProxy, connect: Clients) -> None:
    client = await connect()
    await client.ask("PING")
    await proxy.cut()
    with pytest.raises(ConnectionResetError):
        await client.reader.read(1)
    with pytest.raises(ConnectionRefusedError):
        await connect()
    assert proxy.open == 0
    await proxy.cut()


async def test_cut_resets_even_a_connection_accepted_in_the_same_turn(proxy: TcpProxy, connect: Clients) -> None:
    client = await connect()
    await eventually(lambda: proxy.connections == 1)
    await proxy.cut()
    with pytest.raises(ConnectionResetError):
        await client.reader.read(1)


async def test_restore_listens_on_the_same_port(proxy: TcpProxy, connect: Clients) -> None:
    port = proxy.port
    await proxy.cut()
    proxy.restore()
    proxy.restore()
    assert proxy.port == port
    assert await (await connect()).ask("PING") == "+PONG"


async def test_a_blackhole_is_silent_and_restore_forwards_what_it_held(proxy: TcpProxy, connect: Clients) -> None:
    old = await connect()
    await old.ask("PING")
    proxy.blackhole()
    young = await connect()
    sent = proxy.sent
    old.send("PING")
    young.send("PING")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(old.reader.read(1), 0.05)
    assert (proxy.open, proxy.sent) == (2, sent)
    proxy.restore()
    assert [await old.receive(), await young.receive()] == ["+PONG", "+PONG"]


async def test_delay_holds_each_direction_back(proxy: TcpProxy, connect: Clients) -> None:
    client, loop = await connect(), asyncio.get_running_loop()
    proxy.delay(0.05)
    started = loop.time()
    await client.ask("PING")
    assert loop.time() - started >= 0.1
    proxy.restore()
    started = loop.time()
    await client.ask("PING")
    assert loop.time() - started < 0.05


async def test_a_server_that_dies_is_seen_through_the_proxy() -> None:
    with private_or_skip("redis") as server:
        async with TcpProxy(server.host, server.port) as proxy:
            client = await Clients(proxy)()
            await client.ask("PING")
            server.kill()
            assert await client.reader.read() == b""
            await client.close()
            await eventually(lambda: proxy.open == 0)


async def test_a_target_that_refuses_resets_the_client() -> None:
    async with TcpProxy("127.0.0.1", free_port()) as proxy:
        client = await Clients(proxy)()
        with pytest.raises(ConnectionResetError):
            await client.reader.read(1)
        await client.close()
        await eventually(lambda: proxy.open == 0)


async def test_leaving_with_open_connections_leaves_no_task(redis: OwnedServer) -> None:
    before = asyncio.all_tasks()
    async with TcpProxy(redis.host, redis.port) as proxy:
        clients = [await Clients(proxy)() for _ in range(20)]
        await asyncio.gather(*(client.ask("PING") for client in clients))
    assert asyncio.all_tasks() == before
    for client in clients:
        await client.close()
