"""What happens to queues on RabbitMQ when the server, the connection or a receiver goes away."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from noobly.core.clock import fresh_id
from noobly.core.errors import DeadlineExceeded, NooblyError, Unavailable
from noobly.queueing import Queues, names, open_queues
from noobly.testing import TcpProxy, eventually, private_or_skip, server_or_skip
from noobly.testing.queueing.theme import LONG, drained, one

from ..rabbit import swept

pytestmark = pytest.mark.servers

VICTIM = Path(__file__).parent / "rabbitmq_victim.py"
LATE = 30.0
"""Seconds within which everything is well again, on a busy machine."""


@pytest.fixture(scope="module")
def shared() -> Iterator[str]:
    with server_or_skip("rabbitmq") as url:
        yield url


@pytest.fixture
async def url(shared: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    async with swept(shared, monkeypatch):
        yield f"{shared}?namespace=faults-{fresh_id()}"


@pytest.fixture
async def proxy(url: str) -> AsyncIterator[TcpProxy]:
    host, port = url.partition("://")[2].partition("?")[0].split(":")
    async with TcpProxy(host, int(port)) as proxy:
        yield proxy


def _through(proxy: TcpProxy, url: str) -> str:
    return f"rabbitmq://{proxy.host}:{proxy.port}?{url.partition('?')[2]}"


async def _insist(queues: Queues, value: object) -> None:
    """Send until it is stored; a message that may have been stored before is sent again all the same."""
    while True:
        try:
            await queues.send("q", value)
        except Unavailable:
            await asyncio.sleep(0.05)
        else:
            return


async def test_a_restarted_server_loses_nothing_and_its_consumer_goes_on() -> None:
    with private_or_skip("rabbitmq") as server:
        async with open_queues(server.url, breaker_pause=0.2, max_deliveries=100) as queues:
            confirmed: set[int] = set()
            found: set[object] = set()

            async def send() -> None:
                for number in range(150):
                    await _insist(queues, number)
                    confirmed.add(number)

            async def consume() -> None:
                async for message in queues.consume("q", concurrency=5):
                    with suppress(NooblyError):
                        async with message as value:
                            found.add(value)

            sending, consuming = asyncio.create_task(send()), asyncio.create_task(consume())
            await eventually(lambda: len(confirmed) > 50, LATE)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await asyncio.wait_for(sending, 2 * LATE)
            await eventually(lambda: found >= confirmed, LATE)
            assert len(confirmed) == 150
            assert not consuming.done()
            consuming.cancel()
            await asyncio.wait([consuming])


async def test_a_cut_connection_gives_everything_back(url: str, proxy: TcpProxy) -> None:
    async with open_queues(_through(proxy, url), breaker_failures=1000) as queues, open_queues(url) as other:
        await queues.send("q", 1)
        held = await one(queues, "q", lease=LONG)
        await proxy.cut()
        again = await one(other, "q", wait=LATE)
        assert (again.value, again.deliveries) == (1, 2)
        with pytest.raises(Unavailable):
            await queues.send("q", 2)
        proxy.restore()
        assert await queues.ack_many("q", [held.receipt]) == [False]
        await other.ack("q", again.receipt)
        await _insist(queues, 3)
        assert 3 in await drained(queues, "q")


async def test_an_acknowledgement_whose_answer_is_lost_is_no_conflict(url: str, proxy: TcpProxy) -> None:
    impatient = {"stall_timeout": 1.0, "attempts": 1, "breaker_failures": 1000}
    async with open_queues(_through(proxy, url), **impatient) as queues, open_queues(url) as other:
        await queues.send("q", 1)
        held = await one(queues, "q")
        proxy.blackhole()
        with pytest.raises(Unavailable):
            await queues.ack("q", held.receipt)
        await proxy.cut()
        for call in (queues.ack, queues.nack, queues.reject):
            with pytest.raises(Unavailable):
                await call("q", held.receipt)
        again = await one(other, "q", wait=LATE)  # Here it had not arrived.
        assert (again.value, again.deliveries) == (1, 2)


async def test_a_receiver_waits_through_a_cut(url: str, proxy: TcpProxy) -> None:
    async with open_queues(_through(proxy, url), breaker_failures=1000) as queues, open_queues(url) as other:
        await other.send("q", 1)
        values: list[object] = []

        async def consume() -> None:
            async for message in queues.consume("q"):
                with suppress(NooblyError):  # The cut may come before the acknowledgement.
                    async with message as value:
                        values.append(value)

        consuming = asyncio.create_task(consume())
        await eventually(lambda: values == [1], LATE)
        await proxy.cut()
        await other.send("q", 2)
        proxy.restore()
        await eventually(lambda: 2 in values, LATE)
        consuming.cancel()
        await asyncio.wait([consuming])
        assert set(values) == {1, 2}


async def test_another_node_is_asked_when_one_goes(url: str, proxy: TcpProxy) -> None:
    host, port = url.partition("://")[2].partition("?")[0].split(":")
    async with TcpProxy(host, int(port)) as second:
        nodes = f"{proxy.host}:{proxy.port},{second.host}:{second.port}"
        async with open_queues(f"rabbitmq://{nodes}?{url.partition('?')[2]}", breaker_failures=1000) as queues:
            await queues.send("q", 1)
            assert second.open == 0
            await proxy.cut()
            await _insist(queues, 2)
            assert {1, 2} <= set(await drained(queues, "q"))
            proxy.restore()
            await second.cut()
            await _insist(queues, 3)
            assert 3 in await drained(queues, "q")


async def test_a_silent_connection_is_given_up(url: str, proxy: TcpProxy) -> None:
    async with open_queues(_through(proxy, url), stall_timeout=0.5, breaker_failures=1000) as queues:
        await queues.send("q", 1)
        proxy.blackhole()
        began = time.monotonic()
        for call in (queues.send("q", 2), queues.receive("q"), queues.size("q")):
            with pytest.raises((Unavailable, DeadlineExceeded)):
                await call
        assert time.monotonic() - began < LATE
        proxy.restore()
        await _insist(queues, 3)
        assert 3 in await drained(queues, "q")


async def test_an_idle_consumer_outlives_heartbeats_and_picks_up_at_once(url: str) -> None:
    async with open_queues(url, heartbeat=1) as queues, open_queues(url) as other:
        await other.send("q", "first")
        await queues.dequeue("q")
        waiting = asyncio.create_task(queues.receive("q", wait=LATE))
        await asyncio.sleep(7)  # Longer than a connection without heartbeats is borne.
        began = time.monotonic()
        await other.send("q", "next")
        assert [each.value for each in await waiting] == ["next"]
        assert time.monotonic() - began < 2


async def test_what_a_killed_receiver_held_comes_again(url: str) -> None:
    async with open_queues(url) as queues:
        await queues.send("q", "killer")
        victim = await asyncio.create_subprocess_exec(sys.executable, str(VICTIM), url, stdout=asyncio.subprocess.PIPE)
        assert victim.stdout is not None
        try:
            assert await asyncio.wait_for(victim.stdout.readline(), LATE) == b"killer\n"
            assert await queues.receive("q") == []
        finally:
            victim.kill()
            await victim.wait()
        again = await one(queues, "q", wait=LATE)
        assert (again.value, again.deliveries) == ("killer", 2)


async def test_messages_that_wait_outlive_a_restart_of_the_server() -> None:
    with private_or_skip("rabbitmq") as server:
        async with open_queues(server.url, breaker_failures=1000) as queues:
            await queues.send("q", "delayed", delay=1.0)
            await queues.send("q", "failed")
            failed = await one(queues, "q", lease=LONG)
            await queues.nack("q", failed.receipt, delay=1.0, reason="bad")
            await queues.send("q", "dead")
            await queues.reject("q", (await one(queues, "q", lease=LONG)).receipt)
            await asyncio.to_thread(server.restart)
            found: dict[object, str] = {}

            async def received() -> bool:
                with suppress(NooblyError):
                    for each in await queues.receive("q", max=10, wait=1, lease=LONG):
                        found[each.value] = each.first_error
                return len(found) == 2

            await eventually(received, 2 * LATE)
            assert found == {"delayed": "", "failed": "bad"}
            assert (await one(queues, names.dead("q"))).value == "dead"
