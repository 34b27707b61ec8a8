"""The Redis provider, also for Valkey and compatible servers, alone, behind Sentinel or as a cluster.

Each call is one script, so that it happens as a whole or not at all.
Plain messages go through a stream with a consumer group; those that are not to come in the order of their sending wait
in sorted sets. All times are the server's. Those who wait are woken by pushes on the same connection.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Annotated, Literal, cast

import msgspec

from noobly.clients.redis import Arg, RedisConnection, RedisScript, Reply, classify
from noobly.clients.redis_config import RedisConfig, redis_client, redis_listener
from noobly.clients.redis_durability import check_durability
from noobly.clients.redis_reply import RedisReplyError
from noobly.clients.redis_topology import ClusterClient
from noobly.core.checks import Limits
from noobly.core.errors import ConfigError, NooblyError, Unavailable
from noobly.core.joining import portions
from noobly.core.lifecycle import Tasks
from noobly.core.scope import Environment
from noobly.queueing.driver import Can, Counts, Failure, Leased, Posted, Sent
from noobly.queueing.providers import _redis_looks as looks
from noobly.queueing.providers import _redis_scripts as scripts
from noobly.queueing.providers._redis_receiving import Receivers
from noobly.queueing.providers._redis_records import (
    Keys,
    dead_letter,
    escaped,
    flags,
    leased,
    milliseconds,
    packed,
    peeked,
    special,
    whole,
)
from noobly.queueing.providers._redis_replicas import replicated
from noobly.queueing.providers._redis_wakes import Wakes

_log = logging.getLogger("noobly.queueing")

_TOGETHER = 1000
"""Receipts of one script."""
_HEAVIEST = 16 * 1024 * 1024
"""Bytes of the messages of one script, counting 1024 for each besides its body."""
_PATIENCE = 2.0
"""Seconds that claims under way, and what is given back, have at the end; they take far less where all is well."""
_KNOWN = 1000
"""Queues whose keys, and receivers, are remembered."""


class RedisQueueConfig(RedisConfig, frozen=True, kw_only=True):
    """The options of the Redis provider of queueing: those of every Redis provider, and two more.

    Args:
        durability: What happens at the start where the server keeps messages in its memory only: ``warn`` logs it,
            ``require`` refuses to start, ``ignore`` is silent.
        replicas: How many replicas must have a message before sending it returns, so that it outlives a failover.
    """

    durability: Literal["warn", "require", "ignore"] = "warn"
    replicas: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0


class RedisQueues:
    """Queues under ``{namespace:queue}:…``, and the list of their names under ``namespace:queues``."""

    Config = RedisQueueConfig
    scheme = "redis"
    in_process = False
    joins = True
    features = frozenset({Can.PRIORITY, Can.DELAY, Can.DEDUP, Can.ORDER, Can.FAIR, Can.ERRORS, Can.UNCOUNT})
    limits = Limits(value_bytes=64 * 1024 * 1024)

    def __init__(self, config: RedisQueueConfig, environment: Environment) -> None:
        if config.replicas and "+cluster" in config.scheme:
            raise ConfigError("replicas cannot be waited for on a cluster; leave the option replicas out")
        self._config = config
        self._wall = environment.clock.time
        self._client = redis_client(config, environment)
        clustered = isinstance(self._client, ClusterClient)
        self._ears = redis_listener(config, environment) if clustered else cast(RedisConnection, self._client)
        self._wakes = Wakes(self._ears, self._woken, self._missed)
        self._names = f"{escaped(config.namespace)}:queues"
        self._keys: dict[str, Keys] = {}
        self._receivers: dict[str, Receivers] = {}
        self._by_channel: dict[bytes, str] = {}
        self._tasks = Tasks()

    async def start(self, stack: AsyncExitStack) -> None:
        """Connect, and close at the stack's end."""
        await self._client.start()
        stack.push_async_callback(self._client.close)
        if self._ears is not self._client:
            await self._wakes.start(self._config.hosts.count(",") + 1)
            stack.push_async_callback(self._ears.close)
        stack.push_async_callback(self._tasks.close, patience=_PATIENCE)
        await check_durability(self._client, self._config.durability, "messages", _log)

    def classify(self, error: Exception) -> NooblyError | None:
        """Map what the server and the connection raise."""
        return classify(error)

    async def send(self, queue: str, messages: Sequence[Posted], /) -> list[Sent]:
        """See the protocol."""
        sent: list[Sent] = []
        for part in portions(messages, list(map(_weight, messages)), _HEAVIEST):
            try:
                sent += await self._send_part(queue, part)
            except (OSError, NooblyError, RedisReplyError) as error:
                if not sent:
                    raise
                # Those before are stored, which an error would not tell.
                sent += [Sent(one.id, error=str(error)) for one in messages[len(sent) :]]
                break
        if self._config.replicas:
            await replicated(self._client, self._config.replicas, queue)
        return sent

    async def _send_part(self, queue: str, messages: Sequence[Posted]) -> list[Sent]:
        if not any(map(special, messages)):
            args = [part for one in messages for part in (one.id, one.body, one.headers)]
            if await self._client.script(scripts.SEND_PLAIN, self._keys_of(queue).plain, args) != 1:
                await self._enlist(queue)
            return [Sent(one.id) for one in messages]
        reply = await self._run(scripts.SEND, queue, [part for one in messages for part in packed(one)])
        *before, named = cast("list[bytes]", reply)
        if not named:
            await self._enlist(queue)
        pairs = zip(messages, before, strict=True)
        return [Sent(earlier.decode(), duplicate=True) if earlier else Sent(one.id) for one, earlier in pairs]

    async def _enlist(self, queue: str) -> None:
        """Put a queue into the list, which is in another slot, and only then note that it is there.

        It is put there once more, for a purge may have come between.
        """
        await self._client.execute("ZADD", self._names, 0, queue)
        await self._client.execute("HSET", self._keys_of(queue).all[1], "named", 1)
        await self._client.execute("ZADD", self._names, 0, queue)

    async def receive(self, queue: str, most: int, lease: float, wait: float, /) -> list[Leased]:
        """See the protocol."""
        if wait and not self._wakes.listens(channel := self._keys_of(queue).wake):
            await self._listen(channel)
        receivers = self._receivers.get(queue) or self._new_receivers(queue)
        return await receivers.receive(most, lease, wait)

    async def _claim(self, queue: str, most: int, lease: float, waits: bool, /) -> tuple[float | None, list[Leased]]:
        args = (most, milliseconds(lease), self._keys_of(queue).salt, int(waits))
        reply = cast("list[Reply]", await self._run(scripts.CLAIM, queue, args))
        due = whole(reply[0])
        return None if due < 0 else due / 1000, leased(reply[1:])

    async def _give_back(self, queue: str, found: Sequence[Leased]) -> None:
        await self.nack(queue, [Failure(one.receipt, 0.0, "", counts=False) for one in found])

    async def _listen(self, channel: bytes) -> None:
        try:
            await self._wakes.listen(channel)
        except Unavailable:
            # Without the one node that tells of messages, a cluster still has them: they are looked for.
            if self._ears is self._client:
                raise

    def _woken(self, channel: bytes) -> None:
        receivers = self._receivers.get(self._by_channel.get(channel, ""))
        if receivers is not None:
            receivers.wake()

    def _missed(self) -> None:
        for receivers in self._receivers.values():
            receivers.wake()

    def _new_receivers(self, queue: str) -> Receivers:
        if len(self._receivers) >= _KNOWN:
            self._forget()
        receivers = Receivers(queue, self._claim, self._give_back, self._tasks)
        self._receivers[queue] = receivers
        self._by_channel[self._keys_of(queue).wake] = queue
        return receivers

    def _forget(self) -> None:
        """Listen no more for queues from which nobody receives now."""
        for queue in [queue for queue, receivers in self._receivers.items() if receivers.idle]:
            del self._receivers[queue]
            channel = self._keys_of(queue).wake
            del self._by_channel[channel]
            if self._wakes.forget(channel):
                self._tasks.spawn(self._wakes.leave(channel), f"leaving queue {queue!r}")

    async def ack(self, queue: str, receipts: Sequence[str], /) -> list[bool]:
        """See the protocol."""
        good: list[bool] = []
        for part in portions(receipts, [1] * len(receipts), _TOGETHER):
            good += flags(await self._run(scripts.ACK, queue, (self._keys_of(queue).salt, *part)))
        return good

    async def nack(self, queue: str, failures: Sequence[Failure], /) -> list[bool]:
        """See the protocol."""
        good: list[bool] = []
        for start in range(0, len(failures), _TOGETHER):
            part = failures[start : start + _TOGETHER]
            args = [arg for one in part for arg in _given_back(one)]
            good += flags(await self._run(scripts.NACK, queue, args))
        return good

    async def extend(self, queue: str, receipts: Sequence[str], lease: float, /) -> list[bool]:
        """See the protocol."""
        good: list[bool] = []
        for start in range(0, len(receipts), _TOGETHER):
            part = receipts[start : start + _TOGETHER]
            good += flags(await self._run(scripts.EXTEND, queue, (milliseconds(lease), *part)))
        return good

    async def bury(self, queue: str, dead: str, failure: Failure, /) -> bool:
        """See the protocol; on a cluster it is sent to a queue of another slot first, and then deleted."""
        here, there = self._keys_of(queue), self._keys_of(dead)
        if here.slot != there.slot and isinstance(self._client, ClusterClient):
            return await self._carry(queue, dead, failure)
        args = (failure.receipt, _text(failure.reason))
        named = whole(await self._client.script(scripts.BURY, here.all + there.all, args))
        if named == 0:
            with suppress(OSError, NooblyError, RedisReplyError):  # It is buried; the next one will have it listed.
                await self._enlist(dead)
        return named >= 0

    async def _carry(self, queue: str, dead: str, failure: Failure) -> bool:
        found = leased(cast("list[Reply]", await self._run(scripts.HELD, queue, (failure.receipt,))))
        if not found:
            return False
        await self.send(dead, [dead_letter(found[0], _text(failure.reason), self._wall())])
        return (await self.ack(queue, [failure.receipt]))[0]

    async def counts(self, queue: str, /) -> Counts:
        """See the protocol."""
        reply = cast("list[int]", await self._run(looks.COUNTS, queue, ()))
        ready, delayed, in_flight, oldest, paused = reply
        age = None if oldest < 0 else oldest / 1000
        return Counts(ready=ready, delayed=delayed, in_flight=in_flight, oldest=age, paused=bool(paused))

    async def purge(self, queue: str, /) -> int:
        """See the protocol."""
        await self._client.execute("ZREM", self._names, queue)
        return whole(await self._run(looks.PURGE, queue, ()))

    async def queues(self) -> list[str]:
        """See the protocol."""
        reply = await self._client.execute("ZRANGEBYLEX", self._names, "-", "+", "LIMIT", 0, 10_000)
        return [name.decode() for name in cast("list[bytes]", reply)]

    async def peek(self, queue: str, skip: int, most: int, /) -> list[Leased]:
        """See the protocol."""
        reply = cast("list[Reply]", await self._run(looks.PEEK, queue, (skip, most)))
        return [peeked(one) for one in leased(reply)]

    async def pause(self, queue: str, /) -> None:
        """See the protocol."""
        await self._run(looks.PAUSE, queue, ())

    async def resume(self, queue: str, /) -> None:
        """See the protocol."""
        await self._run(looks.RESUME, queue, ())

    async def health(self) -> None:
        """See the protocol."""
        await self._client.execute("ZCARD", self._names)

    async def _run(self, script: RedisScript, queue: str, args: Sequence[Arg]) -> Reply:
        return await self._client.script(script, self._keys_of(queue).all, args)

    def _keys_of(self, queue: str) -> Keys:
        found = self._keys.get(queue)
        if found is None:
            if len(self._keys) >= _KNOWN:
                self._keys.clear()
            found = self._keys[queue] = Keys(self._config.namespace, queue)
        return found


def _weight(message: Posted) -> int:
    return len(message.body) + 1024


def _given_back(one: Failure) -> tuple[Arg, ...]:
    return one.receipt, milliseconds(one.delay), _text(one.reason), int(one.counts)


def _text(reason: str) -> str:
    """Return an error's text as UTF-8 can carry it."""
    return reason.encode(errors="replace").decode()
