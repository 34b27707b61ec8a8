"""What happens to queues on Redis when servers, connections and consumers end in the middle."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from noobly.core.errors import Conflict, DeadlineExceeded, NooblyError, Unavailable
from noobly.queueing import Outbound, Queues, open_queues
from noobly.testing import OwnedServer, TcpProxy, eventually, private_or_skip

CONSUMER = Path(__file__).parent / "redis_consumer.py"
SOON = {"timeout": 2.5, "breaker_pause": 0.05, "durability": "ignore"}
LEASE = 2.0


@pytest.fixture
def redis() -> Iterator[OwnedServer]:
    with private_or_skip("redis", "--appendonly", "yes") as server:
        yield server


class Traffic:
    """Producers that repeat what failed, and consumers that go on, at one queue."""

    def __init__(self, queues: Queues) -> None:
        self.queues = queues
        self.sent: set[int] = set()
        self.got: Counter[int] = Counter()
        self.failed = 0
        self._next = 0

    @asynccontextmanager
    async def running(self, producers: int = 4, consumers: int = 4) -> AsyncIterator[None]:
        """Let traffic flow for the body; the consumers go on until all is there."""
        stop = asyncio.Event()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            eating = [group.create_task(self._consume()) for _ in range(consumers)]
            sending = [group.create_task(self._produce(stop)) for _ in range(producers)]
            yield
            stop.set()
            await asyncio.wait(sending)
            await eventually(self._all_there, timeout=30)
            for task in eating:
                task.cancel()

    async def _all_there(self) -> bool:
        return self.sent <= self.got.keys()

    async def _produce(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._next += 1
            number = self._next
            try:
                await self.queues.send("q", number)
            except (Unavailable, DeadlineExceeded):
                self.failed += 1
                await asyncio.sleep(0.01)
            else:
                self.sent.add(number)

    async def _consume(self) -> None:
        async for message in self.queues.consume("q", concurrency=5, lease=LEASE):
            self.got[int(message.value)] += 1
            with suppress(NooblyError):  # It comes again, or is done.
                await message.ack()


async def grows(count: Callable[[], int], by: int) -> None:
    """Wait until a number has grown."""
    aim = count() + by

    async def grown() -> bool:
        return count() >= aim

    await eventually(grown, timeout=20)


async def test_redis_killed_in_the_middle_loses_nothing_that_was_acknowledged(redis: OwnedServer) -> None:
    async with open_queues(redis.url, **SOON) as queues:
        traffic = Traffic(queues)
        async with traffic.running():
            for _ in range(2):
                await grows(lambda: len(traffic.got), 300)
                redis.kill()
                await grows(lambda: traffic.failed, 1)
                await asyncio.to_thread(redis.start)
                await grows(lambda: len(traffic.got), 300)
        assert traffic.sent <= traffic.got.keys()
        assert len(traffic.got) - len(traffic.sent) <= traffic.failed


async def test_redis_paused_for_3_seconds_comes_back_by_itself(redis: OwnedServer) -> None:
    async with open_queues(redis.url, **SOON) as queues:
        traffic = Traffic(queues)
        async with traffic.running():
            await grows(lambda: len(traffic.got), 300)
            with paused(redis):
                await grows(lambda: traffic.failed, 4)
                await asyncio.sleep(3)
            await grows(lambda: len(traffic.got), 300)
        assert traffic.sent <= traffic.got.keys()


@contextmanager
def paused(redis: OwnedServer) -> Iterator[None]:
    redis.pause()
    try:
        yield
    finally:
        redis.resume()


async def test_a_consumer_killed_in_the_middle_loses_nothing(redis: OwnedServer) -> None:
    count, together = 5000, 10
    async with open_queues(redis.url, namespace="killed", **SOON) as queues:
        for start in range(0, count, 1000):
            await queues.send_many("q", [Outbound(message=number) for number in range(start, start + 1000)])
        done: Counter[int] = Counter()
        for enough in (count // 4, count // 2):
            done.update(await until_killed(redis.url, together, enough - sum(done.values())))
        while sum(1 for _ in done) < count:
            for one in await queues.receive("q", max=100, wait=2 * LEASE):
                done[int(one.value)] += 1
                await queues.ack("q", one.receipt)
        assert set(done) == set(range(count))
        assert sum(done.values()) - count <= 2 * together
        assert await queues.size("q") == 0


async def until_killed(url: str, together: int, enough: int) -> list[int]:
    """Run a consumer, kill it once it has worked on enough messages, and return all it worked on."""
    arguments = [str(CONSUMER), url, "killed", str(together), str(LEASE)]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    done: list[int] = []
    async with asyncio.timeout(30):
        while len(done) < enough:
            done.append(int(await process.stdout.readline()))
        process.kill()
        done += [int(line) for line in (await process.stdout.read()).splitlines()]
        await process.wait()
    return done


class TestConnection:
    """A proxy on one client's connection, which can be cut or fall silent."""

    async def test_who_waits_hears_again_after_a_cut(self, redis: OwnedServer) -> None:
        async with TcpProxy(redis.host, redis.port) as proxy:
            url = f"redis://{proxy.host}:{proxy.port}"
            async with open_queues(url, **SOON) as ours, open_queues(redis.url, **SOON) as theirs:
                arrived: asyncio.Queue[int] = asyncio.Queue()
                consuming = asyncio.create_task(consume(ours, arrived))
                for turn in range(3):
                    await theirs.send("q", turn)
                    assert await asyncio.wait_for(arrived.get(), 10) == turn
                    await proxy.cut()
                    await theirs.send("q", 10 + turn)
                    proxy.restore()
                    assert await asyncio.wait_for(arrived.get(), 10) == 10 + turn
                consuming.cancel()
                await asyncio.gather(consuming, return_exceptions=True)

    async def test_a_silent_connection_is_given_up(self, redis: OwnedServer) -> None:
        async with TcpProxy(redis.host, redis.port) as proxy:
            url = f"redis://{proxy.host}:{proxy.port}"
            async with open_queues(url, stall_timeout=0.5, **SOON) as ours, open_queues(redis.url, **SOON) as theirs:
                await ours.send("q", 1)
                (held,) = await ours.receive("q", lease=600)
                proxy.blackhole()
                with pytest.raises((DeadlineExceeded, Unavailable)):
                    await ours.ack("q", held.receipt)
                proxy.restore()
                await eventually(lambda: settled(ours, held.receipt), timeout=10)
                stats = await theirs.stats("q")
                assert (stats.ready, stats.in_flight) == (0, 0)

    async def test_calls_under_way_at_a_cut_are_told(self, redis: OwnedServer) -> None:
        async with TcpProxy(redis.host, redis.port) as proxy:
            url = f"redis://{proxy.host}:{proxy.port}"
            async with open_queues(url, **SOON) as ours, open_queues(redis.url, **SOON) as theirs:
                proxy.blackhole()
                calls = [asyncio.create_task(ours.send("q", number)) for number in range(50)]
                await asyncio.sleep(0)
                await proxy.cut()
                errors = await asyncio.gather(*calls, return_exceptions=True)
                assert all(isinstance(error, NooblyError) and error.temporary for error in errors)
                assert len(set(map(id, errors))) == 50
                proxy.restore()
                await eventually(lambda: sends(ours), timeout=10)
                assert await theirs.size("q") >= 1


async def consume(queues: Queues, arrived: asyncio.Queue[int]) -> None:
    async for message in queues.consume("q", lease=LEASE):
        try:
            await message.ack()
        except NooblyError:
            continue
        arrived.put_nowait(int(message.value))


async def settled(queues: Queues, receipt: str) -> bool:
    try:
        await queues.ack("q", receipt)
    except Conflict:
        return True  # The first one took effect, and only its answer was lost.
    except NooblyError:
        return False
    return True


async def sends(queues: Queues) -> bool:
    try:
        await queues.send("q", "after")
    except NooblyError:
        return False
    return True
