"""What happens to queues on SQS when connections, calls and receivers end in the middle."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from noobly.core.clock import fresh_id
from noobly.core.errors import Conflict, DeadlineExceeded, NooblyError, Unavailable
from noobly.queueing import Queues, open_queues
from noobly.testing import OwnedServer, TcpProxy, eventually, private_or_skip

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def sqs() -> Iterator[OwnedServer]:
    with private_or_skip("ministack") as server:
        yield server


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
async def proxy(sqs: OwnedServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(sqs.host, sqs.port) as proxy:
        yield proxy


@asynccontextmanager
async def opened(port: int, namespace: str = "", **options: object) -> AsyncIterator[Queues]:
    given = {"timeout": 3.0, "breaker_pause": 0.05, "namespace": namespace or fresh_id()[:12], **options}
    async with open_queues("sqs://eu-west-1", endpoint=f"http://127.0.0.1:{port}", **given) as queues:
        yield queues


async def test_a_server_that_is_gone_and_comes_back(proxy: TcpProxy) -> None:
    async with opened(proxy.port) as queues:
        await queues.send("q", 1)
        (held,) = await queues.receive("q")
        await proxy.cut()
        with pytest.raises(Unavailable, match="reached"):
            await queues.send("q", 2)
        with pytest.raises(Unavailable):
            await queues.ack("q", held.receipt)
        proxy.restore()

        async def acknowledged() -> bool:
            with suppress(Unavailable):
                await queues.ack("q", held.receipt)
                return True
            return False

        await eventually(acknowledged)
        assert await queues.size("q") == 0


async def test_an_answer_that_never_came(proxy: TcpProxy) -> None:
    """The receipt is still good, and deleting twice is deleting once."""
    async with opened(proxy.port, timeout=0.5) as queues:
        await queues.send("q", 1)
        (held,) = await queues.receive("q")
        proxy.blackhole()
        with pytest.raises(DeadlineExceeded):
            await queues.ack("q", held.receipt)
        with pytest.raises(DeadlineExceeded):
            await queues.reject("q", held.receipt)
        proxy.restore()

        async def settled() -> bool:
            with suppress(Unavailable, DeadlineExceeded):
                with suppress(Conflict):
                    await queues.ack("q", held.receipt)
                stats = await queues.stats("q")
                return stats.ready + stats.in_flight == 0
            return False

        await eventually(settled)


async def test_a_receiver_that_vanishes(sqs: OwnedServer) -> None:
    namespace = fresh_id()[:12]
    async with opened(sqs.port, namespace) as gone:
        await gone.send("q", 1)
        assert len(await gone.receive("q", lease=1)) == 1
    async with opened(sqs.port, namespace) as queues:
        (again,) = await queues.receive("q", wait=20)
        assert (again.value, again.deliveries) == (1, 2)


@pytest.mark.parametrize("fifo", [False, True])
async def test_a_receive_that_is_cancelled_loses_nothing(sqs: OwnedServer, fifo: bool) -> None:
    async with opened(sqs.port, fifo=fifo) as queues:
        await queues.send("q", "first")
        await queues.dequeue("q")
        for number in range(5):
            waiting = asyncio.create_task(queues.receive("q", wait=20, lease=1))
            await asyncio.sleep(0)
            sending = asyncio.create_task(queues.send("q", number))
            await asyncio.sleep(0.01 * number)
            waiting.cancel()
            await asyncio.gather(sending, waiting, return_exceptions=True)
        found: set[object] = set()
        while len(found) < 5:
            batch = await queues.receive("q", max=10, wait=20, lease=600)
            assert batch
            found.update(one.value for one in batch)
        assert found == set(range(5))


@pytest.mark.parametrize("fifo", [False, True])
async def test_what_comes_for_a_receiver_that_is_gone_is_given_back(sqs: OwnedServer, fifo: bool) -> None:
    """Long before its lease ends."""
    namespace = fresh_id()[:12]
    async with opened(sqs.port, namespace, fifo=fifo) as queues:
        await queues.send("q", "first")
        await queues.dequeue("q")
        waiting = asyncio.create_task(queues.receive("q", wait=20, lease=600))
        await asyncio.sleep(0.2)
        waiting.cancel()
        await asyncio.wait([waiting])
        await queues.send("q", "second")
        await asyncio.sleep(0.2)
    async with opened(sqs.port, namespace, fifo=fifo) as queues:
        assert [one.value for one in await queues.receive("q", wait=20)] == ["second"]


async def test_nothing_that_was_sent_is_lost_while_connections_break(sqs: OwnedServer, proxy: TcpProxy) -> None:
    """Producers repeat what failed; what was acknowledged twice was delivered twice, and none is missing."""
    namespace = fresh_id()[:12]
    sent: set[int] = set()
    got: Counter[int] = Counter()
    async with opened(proxy.port, namespace, lease=2) as queues, asyncio.timeout(60):
        await queues.send("q", -1)

        async def produce(number: int) -> None:
            for turn in range(10):
                while True:
                    with suppress(NooblyError):
                        await queues.send("q", 100 * number + turn)
                        break
                    await asyncio.sleep(0.01)
                sent.add(100 * number + turn)

        async def consume() -> None:
            while True:
                with suppress(NooblyError):
                    for one in await queues.receive("q", max=5, wait=1):
                        got[one.value] += 1
                        await queues.ack("q", one.receipt)
                await asyncio.sleep(0)

        consumers = [asyncio.create_task(consume()) for _ in range(4)]
        producing = asyncio.gather(*map(produce, range(8)))
        for _ in range(5):
            await asyncio.sleep(0.1)
            await proxy.cut()
            proxy.restore()
        await producing
        await eventually(lambda: sent <= got.keys(), timeout=30)
        for one in consumers:
            one.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
