"""The BullMQ provider: jobs in Redis as BullMQ keeps them, shared with its producers and workers in Node.

Every move is one of BullMQ's own scripts (https://docs.bullmq.io), run on the multiplexed connection; what BullMQ has
no word for, cancelling, expiry and exact rates, stands beside it under names of our own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, ClassVar, Literal, cast

import msgspec

from noobly.clients.redis import Command, RedisClient, RedisConnection, RedisReplyError, Reply, classify
from noobly.clients.redis_config import RedisConfig, redis_client
from noobly.clients.redis_durability import check_durability
from noobly.clients.redis_taught import TaughtClient
from noobly.core.checks import Limits
from noobly.core.config import Config, Secret
from noobly.core.errors import NooblyError
from noobly.core.lifecycle import Tasks
from noobly.core.scope import Environment
from noobly.working.driver import (
    Added,
    Beat,
    Claim,
    Claimed,
    Hold,
    JobRecord,
    NewJob,
    Outcome,
    Retention,
    State,
)
from noobly.working.providers import _bullmq_adding as adding
from noobly.working.providers import _bullmq_looks as looks
from noobly.working.providers import _bullmq_sweeping as sweeping
from noobly.working.providers._bullmq_claiming import Claims
from noobly.working.providers._bullmq_jobs import CANCELLING, milliseconds
from noobly.working.providers._bullmq_names import escaped, held
from noobly.working.providers._bullmq_scripts import ALL, BullQueue, packed
from noobly.working.providers._bullmq_settling import HELD_BY, Settling
from noobly.working.providers._bullmq_watch import Ends, Watches, forget_idle

_log = logging.getLogger("noobly.working")

_KNOWN = 1000
"""Queues that are remembered."""

_CLOSING = 1.0
"""Seconds that giving back has at the end what cancelled claims brought."""


class BullConfig(Config, frozen=True, kw_only=True):
    """The options of the BullMQ provider.

    Args:
        scheme: ``bullmq``, ``bullmqs`` for TLS, ``bullmq+sentinel``, ``bullmqs+sentinel``.
        hosts: ``host:port``, several with commas between for sentinels.
        path: The database's number; for Sentinel, the primary's name and the number: ``mymaster/0``.
        prefix: What all keys begin with, the same as in Node.
        username: The user, for servers with access lists.
        password: The password, by reference.
        sentinel_password: The sentinels' own password, by reference.
        ca: The file with the certificates to trust, instead of the system's.
        cert: The file with this client's certificate.
        cert_key: The file with its key.
        connect_timeout: Seconds to connect and log in.
        stall_timeout: Seconds without any answer after which a connection is given up.
        max_in_flight: Commands under way at once on the connection.
        durability: What happens at the start where the server keeps jobs in its memory only: ``warn`` logs it,
            ``require`` refuses to start, ``ignore`` is silent.
    """

    url_parts: ClassVar[Mapping[str, str]] = RedisConfig.url_parts

    scheme: str = "bullmq"
    hosts: str = "localhost:6379"
    path: str = ""
    prefix: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] = "bull"
    username: str | None = None
    password: Secret | None = None
    sentinel_password: Secret | None = None
    ca: str | None = None
    cert: str | None = None
    cert_key: str | None = None
    connect_timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    stall_timeout: Annotated[float, msgspec.Meta(gt=2)] = 5.0
    max_in_flight: Annotated[int, msgspec.Meta(gt=0)] = 10_000
    durability: Literal["warn", "require", "ignore"] = "warn"

    def redis(self) -> RedisConfig:
        """Return the options of the Redis client."""
        own = {name: getattr(self, name) for name in self.__struct_fields__ if name not in ("prefix", "durability")}
        return RedisConfig(**{**own, "scheme": self.scheme.replace("bullmq", "redis", 1)})


class BullJobs:
    """Jobs under ``prefix:queue:…``. Times are those of the callers' clocks, as with BullMQ itself."""

    Config = BullConfig
    scheme = "bullmq"
    in_process = False
    apart = True
    told: ClassVar[Mapping[str, object]] = {"durability": "ignore"}
    """Options of a second driver for the same jobs, which need not say again what the first one has said."""

    limits = Limits()

    def __init__(self, config: BullConfig, environment: Environment) -> None:
        self._config, self._environment = config, environment
        self._connection = redis_client(config.redis(), environment)
        self._client = TaughtClient(self._connection, (*ALL, *adding.FLOWS, HELD_BY, sweeping.OURS))
        self._tasks = Tasks()
        self._wall = environment.clock.time
        self._watches = Watches(self._connect, self._tasks)
        self._releasing = Tasks()
        self._claims = Claims(self._client, self._watches, self._wall, unclaimed=self._give_back)
        self._settling = Settling(self._client, self._claims, self._wall)
        self._queues: dict[str, BullQueue] = {}
        self._ends: dict[str, Ends] = {}
        self._swept: dict[str, dict[str, int]] = {}

    def _connect(self) -> RedisClient:
        return redis_client(self._config.redis(), self._environment)

    async def start(self, stack: AsyncExitStack) -> None:
        """Connect, and close at the stack's end."""
        cast(RedisConnection, self._connection).on_connect(self._client.teach)
        await self._client.start()
        stack.push_async_callback(self._client.close)
        stack.push_async_callback(self._tasks.close)
        stack.push_async_callback(self._releasing.close, patience=_CLOSING)
        await check_durability(self._client, self._config.durability, "jobs", _log)

    def classify(self, error: Exception) -> NooblyError | None:
        """Map what the server and the connection raise."""
        return classify(error)

    def _now(self) -> int:
        return milliseconds(self._wall())

    def _queue(self, name: str) -> BullQueue:
        found = self._queues.get(name)
        if found is None:
            if len(self._queues) >= _KNOWN:
                self._queues.clear()
            found = self._queues[name] = BullQueue(self._config.prefix, escaped(name))
        return found

    async def add(self, jobs: Sequence[NewJob], /) -> list[Added]:
        """See the protocol."""
        commands, sent = adding.add_commands(jobs, self._queue, self._now())
        replies = await self._client.execute_many([("MULTI",), *commands, ("EXEC",)])
        return adding.added(jobs, sent, replies[-1])

    async def claim(self, queue: str, claim: Claim, /) -> list[Claimed]:
        """See the protocol."""
        return await self._claims.claim(queue, self._queue(queue), claim)

    def _give_back(self, queue: str, tokens: Sequence[str]) -> None:
        """Let others have what was claimed for a worker that was cancelled meanwhile."""
        if tokens:
            releasing = self._settling.release(queue, self._queue(queue), tokens)
            self._releasing.spawn(releasing, f"giving back to queue {queue!r}")

    async def beat(self, queue: str, holds: Sequence[Hold], lease: float, /) -> list[Beat]:
        """See the protocol."""
        if not holds:
            return []
        place, claims = self._queue(queue), [held(one) for one in holds]
        until = max(1, round(1000 * lease))
        # One by one, for the answer names jobs, and one may be held by two tokens.
        commands: list[Command] = []
        for raw, token in claims:
            commands += [
                place.command("extendLocks", place.base, packed([token]), packed([raw]), until),
                ("HEXISTS", place.key(raw), CANCELLING),
            ]
        replies = [_good(reply) for reply in await self._client.execute_many(commands)]
        return [
            Beat.LOST if gone else Beat.CANCELLED if cancelled else Beat.KEPT
            for gone, cancelled in zip(replies[::2], replies[1::2], strict=True)
        ]

    async def settle(self, queue: str, outcomes: Sequence[Outcome], /) -> list[bool]:
        """See the protocol."""
        return await self._settling.settle(queue, self._queue(queue), outcomes)

    async def report(self, queue: str, id: str, progress: bytes, lines: Sequence[str], /) -> bool:
        """See the protocol."""
        place = self._queue(queue)
        job = await looks.find(self._client, place, id)
        return await looks.report(self._client, place, job, progress, lines)

    async def wait(self, queue: str, id: str, wait: float, /) -> JobRecord | None:
        """See the protocol."""
        place = self._queue(queue)
        job = await looks.find(self._client, place, id)
        if not wait:
            return await looks.get(self._client, place, queue, job)
        ends = self._ends_of(queue, place)
        await ends.begin(self._client)
        found = await looks.get(self._client, place, queue, job)
        if found is None or found.state.final:
            return found
        await ends.wait(job, wait)
        return await looks.get(self._client, place, queue, job)

    def _ends_of(self, queue: str, place: BullQueue) -> Ends:
        if queue not in self._ends:
            forget_idle(self._ends)
            self._ends[queue] = Ends(self._watches, place.key("events"))
        return self._ends[queue]

    async def logs(self, queue: str, id: str, /) -> list[str]:
        """See the protocol."""
        place = self._queue(queue)
        job = await looks.find(self._client, place, id)
        reply = await self._client.execute("LRANGE", place.key(f"{job}:logs"), 0, -1)
        return [line.decode(errors="replace") for line in cast("list[bytes]", reply)]

    async def children(self, queue: str, id: str, /) -> list[JobRecord]:
        """See the protocol."""
        place = self._queue(queue)
        job = await looks.find(self._client, place, id)
        return await looks.children(self._client, self._config.prefix, place, job)

    async def page(self, queue: str, states: Sequence[State], skip: int, most: int, /) -> list[JobRecord]:
        """See the protocol."""
        return await looks.page(self._client, self._queue(queue), queue, states, skip, most)

    async def cancel(self, queue: str, id: str, /) -> State | None:
        """See the protocol."""
        place = self._queue(queue)
        job = await looks.find(self._client, place, id)
        if await self._settling.cancel(queue, place, job):
            return State.RUNNING
        found = await looks.get(self._client, place, queue, job)
        return found.state if found else None

    async def rerun(self, queue: str, id: str, /) -> bool:
        """See the protocol."""
        place = self._queue(queue)
        job = await looks.find(self._client, place, id)
        queued = await looks.rerun(self._client, place, queue, job)
        self._claims.wake(queue)
        return queued

    async def remove(self, queue: str, id: str, /) -> bool:
        """See the protocol."""
        place = self._queue(queue)
        return await looks.remove(self._client, place, await looks.find(self._client, place, id))

    async def counts(self, queue: str, /) -> dict[State, int]:
        """See the protocol."""
        return await looks.counts(self._client, self._queue(queue))

    async def queues(self) -> list[str]:
        """See the protocol."""
        return await looks.queues(self._client, self._config.prefix)

    async def sweep(self, queue: str, retention: Retention, /) -> int:
        """See the protocol."""
        if len(self._swept) >= _KNOWN:
            self._swept.clear()
        place, swept = self._queue(queue), self._swept.setdefault(queue, {})
        await self._settling.expire(queue, place)
        return await sweeping.sweep(self._client, place, retention, self._now(), swept)

    async def pause(self, queue: str, /) -> None:
        """See the protocol."""
        await looks.pause(self._client, self._queue(queue))

    async def resume(self, queue: str, /) -> None:
        """See the protocol."""
        await looks.resume(self._client, self._queue(queue))
        self._claims.wake(queue)

    async def paused(self, queue: str, /) -> bool:
        """See the protocol."""
        return bool(await self._client.execute("HEXISTS", self._queue(queue).key("meta"), "paused"))

    async def health(self) -> None:
        """See the protocol."""
        await self._client.execute("PING")


def _good(reply: Reply | RedisReplyError) -> Reply:
    if isinstance(reply, RedisReplyError):
        raise reply
    return reply
