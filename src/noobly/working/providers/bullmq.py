"""The BullMQ provider: jobs in Redis as BullMQ keeps them, shared with its producers and workers in Node.

Every move is one of BullMQ's own scripts (https://docs.bullmq.io), run on the multiplexed connection; what BullMQ has
no word for, cancelling, expiry and exact rates, stands beside it under names of our own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, ClassVar, cast

import msgspec

from noobly.clients.redis import Command, Execute, RedisClient, RedisConnection, RedisReplyError, Reply, classify
from noobly.clients.redis_config import RedisConfig, redis_client
from noobly.core.checks import Limits
from noobly.core.clock import fresh_id
from noobly.core.config import Config, Secret
from noobly.core.errors import NooblyError
from noobly.core.lifecycle import Tasks
from noobly.core.scope import Environment
from noobly.working.driver import Added, Beat, Claim, Claimed, Hold, JobRecord, NewJob, Outcome, Retention, State
from noobly.working.providers import _bullmq_adding as adding
from noobly.working.providers import _bullmq_ended as ended
from noobly.working.providers import _bullmq_looks as looks
from noobly.working.providers._bullmq_claiming import Claims
from noobly.working.providers._bullmq_jobs import escaped, flags, milliseconds
from noobly.working.providers._bullmq_scripts import ALL, CANCEL, BullQueue, evaluated, packed
from noobly.working.providers._bullmq_watch import Ends

_KNOWN = 1000
"""Queues that are remembered."""


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

    def redis(self) -> RedisConfig:
        """Return the options of the Redis client."""
        own = {name: getattr(self, name) for name in self.__struct_fields__ if name != "prefix"}
        return RedisConfig(**{**own, "scheme": self.scheme.replace("bullmq", "redis", 1)})


class BullJobs:
    """Jobs under ``prefix:queue:…``. Times are those of the callers' clocks, as with BullMQ itself."""

    Config = BullConfig
    scheme = "bullmq"
    in_process = False
    apart = True
    limits = Limits()

    def __init__(self, config: BullConfig, environment: Environment) -> None:
        self._config, self._environment = config, environment
        self._client = redis_client(config.redis(), environment)
        self._tasks = Tasks()
        self._wall = environment.clock.time
        self._claims = Claims(self._client, self._connect, self._tasks, self._wall)
        self._queues: dict[str, BullQueue] = {}
        self._ends: dict[str, Ends] = {}

    def _connect(self) -> RedisClient:
        return redis_client(self._config.redis(), self._environment)

    async def start(self, stack: AsyncExitStack) -> None:
        """Connect, and close at the stack's end."""
        cast(RedisConnection, self._client).on_connect(_teach)
        await self._client.start()
        stack.push_async_callback(self._client.close)
        stack.push_async_callback(self._tasks.close)

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

    async def beat(self, queue: str, holds: Sequence[Hold], lease: float, /) -> list[Beat]:
        """See the protocol."""
        if not holds:
            return []
        place, ids = self._queue(queue), [escaped(hold.id) for hold in holds]
        until = max(1, round(1000 * lease))
        # One by one, for the answer names jobs, and one may be held by two tokens.
        kept = [
            place.command("extendLocks", place.base, packed([hold.token]), packed([id]), until)
            for hold, id in zip(holds, ids, strict=True)
        ]
        *lost, asked = await self._client.execute_many([*kept, ("SMISMEMBER", place.key(ended.CANCELLING), *ids)])
        return [
            Beat.LOST if _good(gone) else Beat.CANCELLED if cancelled else Beat.KEPT
            for gone, cancelled in zip(lost, cast("list[int]", _good(asked)), strict=True)
        ]

    async def settle(self, queue: str, outcomes: Sequence[Outcome], /) -> list[bool]:
        """See the protocol."""
        place, now = self._queue(queue), self._now()
        known = await self._flags(queue, place, outcomes)
        parts = [ended.settle(place, one, known[one.hold.id], now) for one in outcomes]
        replies = await self._client.execute_many([part[0] for part in parts])
        stood = [_good(reply) == 0 for reply in replies]
        beside = [command for part, good in zip(parts, stood, strict=True) if good for command in part[1:]]
        gone = [escaped(one.hold.id) for one, good in zip(outcomes, stood, strict=True) if good and one.verdict.final]
        self._claims.settled(queue, [one.hold.id for one in outcomes])
        forgotten: list[Command] = [("SREM", place.key(ended.CANCELLING), *gone)] if gone else []
        await self._client.execute_many([*beside, *forgotten, ("ZADD", place.key("marker"), 0, "0")])
        return stood

    async def _flags(
        self, queue: str, place: BullQueue, outcomes: Sequence[Outcome]
    ) -> dict[str, Mapping[str, bool | int]]:
        """Return what BullMQ wants to know of each job, which those know that claimed it here."""
        known = {one.hold.id: self._claims.flags(queue, one.hold.id) for one in outcomes}
        unknown = [id for id, found in known.items() if found is None]
        replies = await self._client.execute_many([("HGET", place.key(escaped(id)), "opts") for id in unknown])
        read = {id: flags({b"opts": cast(bytes, reply or b"{}")}) for id, reply in zip(unknown, replies, strict=True)}
        return {id: found if found is not None else read[id] for id, found in known.items()}

    async def report(self, queue: str, id: str, progress: bytes, lines: Sequence[str], /) -> bool:
        """See the protocol."""
        place, job = self._queue(queue), escaped(id)
        commands: list[Command] = [("EXISTS", place.key(job))]
        if progress:
            commands.append(place.command("updateProgress", job, progress, JOB=job))
        commands += [place.command("addLog", job, line, 1000, JOB=job, LOGS=f"{job}:logs") for line in lines]
        return bool(_good((await self._client.execute_many(commands))[0]))

    async def get(self, queue: str, id: str, wait: float, /) -> JobRecord | None:
        """See the protocol."""
        place = self._queue(queue)
        if not wait:
            return await looks.get(self._client, place, queue, id)
        ends = self._ends.setdefault(queue, Ends(self._connect, place.key("events"), self._tasks))
        await ends.begin(self._client)
        found = await looks.get(self._client, place, queue, id)
        if found is None or found.state.final:
            return found
        await ends.wait(escaped(id), wait)
        return await looks.get(self._client, place, queue, id)

    async def logs(self, queue: str, id: str, /) -> list[str]:
        """See the protocol."""
        reply = await self._client.execute("LRANGE", self._queue(queue).key(f"{escaped(id)}:logs"), 0, -1)
        return [line.decode(errors="replace") for line in cast("list[bytes]", reply)]

    async def children(self, queue: str, id: str, /) -> list[JobRecord]:
        """See the protocol."""
        return await looks.children(self._client, self._config.prefix, self._queue(queue), id)

    async def page(self, queue: str, states: Sequence[State], skip: int, most: int, /) -> list[JobRecord]:
        """See the protocol."""
        return await looks.page(self._client, self._queue(queue), queue, states, skip, most)

    async def cancel(self, queue: str, id: str, /) -> State | None:
        """See the protocol."""
        place, job, token = self._queue(queue), escaped(id), fresh_id()
        names = ("active", "wait", "paused", "prioritized", "delayed", "waiting-children", ended.CANCELLING)
        keys = [place.key(job), *map(place.key, names)]
        answer = await self._client.execute(*evaluated(CANCEL, keys, [job, token]))
        if answer == b"held":
            await self.settle(queue, [looks.cancelled(Hold(id, token))])
        if answer == b"running":
            return State.RUNNING
        found = await looks.get(self._client, place, queue, id)
        return found.state if found else None

    async def rerun(self, queue: str, id: str, /) -> bool:
        """See the protocol."""
        queued = await looks.rerun(self._client, self._queue(queue), queue, id)
        self._claims.wake(queue)
        return queued

    async def remove(self, queue: str, id: str, /) -> bool:
        """See the protocol."""
        place, job = self._queue(queue), escaped(id)
        command = place.command("removeJob", job, 0, place.base, JOB=job)
        existed, removed = await self._client.execute_many([("EXISTS", place.key(job)), command])
        if _good(existed) != 1 or _good(removed) != 1:
            return False
        await looks.forget(self._client, place, [job])
        return True

    async def counts(self, queue: str, /) -> dict[State, int]:
        """See the protocol."""
        return await looks.counts(self._client, self._queue(queue))

    async def queues(self) -> list[str]:
        """See the protocol."""
        return await looks.queues(self._client, self._config.prefix)

    async def sweep(self, queue: str, retention: Retention, /) -> int:
        """See the protocol."""
        return await looks.sweep(self._client, self._queue(queue), retention, self._now())

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


async def _teach(execute: Execute) -> None:
    """Let a new session know all scripts, so that they can be named by their digests."""
    await asyncio.gather(*(execute("SCRIPT", "LOAD", script.source) for script in (*ALL, *adding.FLOWS)))
