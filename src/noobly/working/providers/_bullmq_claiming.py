"""Claiming jobs of BullMQ: within a rate, as many as there are, and at once when one comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple, cast

import msgspec

from noobly.clients.redis import Command, RedisClient, RedisReplyError, Reply
from noobly.core.clock import fresh_id
from noobly.working.driver import Bounds, Claim, Claimed, Hold, Outcome, State, Verdict
from noobly.working.providers import _bullmq_ended as ended
from noobly.working.providers._bullmq_jobs import milliseconds, record
from noobly.working.providers._bullmq_names import held, hold
from noobly.working.providers._bullmq_options import Ending, Fields, ending
from noobly.working.providers._bullmq_scheduling import follow
from noobly.working.providers._bullmq_scripts import BOUND, DOOM, GIVE_BACK, TAKE, BullQueue, evaluated, packed
from noobly.working.providers._bullmq_watch import Markers, Watches, forget_idle

_MAX_STALLS = 1_000_000
"""BullMQ shall not fail jobs whose workers vanish; our workers count and decide."""

_NODES_STALLS = 1
"""How often the worker of a job of Node may vanish: the default there (https://docs.bullmq.io, maxStalledCount)."""

_CHECKED = {"stalled": "noobly-stalled", "stalled-check": "noobly-stalled-check"}
"""Keys of our own for the look for vanished workers, so that Node's look, each 30 seconds, does not hold back ours."""

_SOON = 0.001
_LOOK = 1.0
"""Seconds between two looks for jobs whose worker has vanished, by all workers of a queue together, at most."""

_REMEMBERED = 10_000
"""Claimed jobs of which is remembered what BullMQ wants to know at their end; it is read again of others."""

_BOUND_FOR = 10_000
"""Milliseconds for which a bound holds that nobody has repeated, so that none outlives the code that asks for it."""


Unclaimed = Callable[[str, Sequence[str]], None]


class _Place:
    """What is known of one queue that is claimed from."""

    def __init__(self, markers: Markers) -> None:
        self.markers = markers
        self.looking = 0
        self.guess = 1
        self.checked_at = float("-inf")
        self.running = 0

    @property
    def idle(self) -> bool:
        """Whether nobody claims from it."""
        return not self.looking


class _Taken(NamedTuple):
    """Jobs, or the seconds after which it is worth looking again and whether it is the rate that says so."""

    jobs: list[Claimed]
    pause: float
    held_back: bool


class Claims:
    """Claims jobs, and remembers what BullMQ wants to know of them when they end.

    Args:
        client: The connection.
        watches: Own the waiting.
        wall: Returns seconds since the epoch.
        unclaimed: Gives back what came of a queue, under some tokens, when nobody wanted it any more.
    """

    def __init__(
        self, client: RedisClient, watches: Watches, wall: Callable[[], float], *, unclaimed: Unclaimed
    ) -> None:
        self._client, self._watches, self._wall = client, watches, wall
        self._unclaimed = unclaimed
        self._owner = fresh_id()
        self._numbers = count(1)
        self._places: dict[str, _Place] = {}
        self._held: dict[tuple[str, str], Ending] = {}

    def _now(self) -> int:
        return milliseconds(self._wall())

    def ending(self, queue: str, raw: str) -> Ending | None:
        """Return what BullMQ wants to know of a job that ends; None of one that was not claimed here."""
        return self._held.get((queue, raw))

    def settled(self, queue: str, raws: Sequence[str]) -> None:
        """Forget jobs, and let those look who wait for a place among the running ones."""
        for raw in raws:
            self._held.pop((queue, raw), None)
        self.wake(queue)

    def wake(self, queue: str) -> None:
        """Let all look who wait for jobs of a queue here."""
        if queue in self._places:
            self._places[queue].markers.wake()

    async def claim(self, name: str, queue: BullQueue, claim: Claim) -> list[Claimed]:
        """See the protocol."""
        place = self._place(name, queue)
        now = asyncio.get_running_loop().time
        until = now() + claim.wait
        tokens: list[str] = []
        place.looking += 1
        try:
            await self._prepare(place, queue, claim)
            while True:
                heard = place.markers.heard
                taken = await self._take(name, place, queue, claim, tokens)
                left = until - now()
                if taken.jobs or left <= 0:
                    return taken.jobs
                pause = max(_SOON, min(left, taken.pause))
                await (place.markers.rest(self._client, pause) if taken.held_back else place.markers.wait(heard, pause))
        except asyncio.CancelledError:
            self._unclaimed(name, tokens)
            raise
        finally:
            place.looking -= 1

    def _place(self, name: str, queue: BullQueue) -> _Place:
        if name not in self._places:
            forget_idle(self._places)
            self._places[name] = _Place(Markers(self._watches, queue.key("marker")))
        return self._places[name]

    async def _prepare(self, place: _Place, queue: BullQueue, claim: Claim) -> None:
        """Tell BullMQ how many may run, and let it look for jobs whose worker has vanished."""
        interval = min(claim.lease / 3, _LOOK)
        clock, bound = asyncio.get_running_loop().time(), claim.bounds.running
        if clock - place.checked_at < interval and place.running == bound:
            return
        place.checked_at, place.running = clock, bound
        doomed = [queue.key(name) for name in ("noobly-stalled", "active", "noobly-stalled-check")]
        stalled = (_MAX_STALLS, queue.base, self._now(), max(1, round(900 * interval)))
        commands = [
            evaluated(BOUND, [queue.key("meta"), queue.key("marker")], [bound, self._now(), _BOUND_FOR]),
            evaluated(DOOM, doomed, [queue.base, _NODES_STALLS]),
            queue.command("moveStalledJobsToWait", *stalled, **_CHECKED),
        ]
        for reply in await self._client.execute_many(commands):
            if isinstance(reply, RedisReplyError):
                raise reply

    async def _take(self, name: str, place: _Place, queue: BullQueue, claim: Claim, tokens: list[str]) -> _Taken:
        """Take jobs; ``tokens`` tells under which some may be held, for whoever is cancelled meanwhile."""
        tokens.clear()
        wait = min(claim.lease / 3, _LOOK)
        most = claim.most
        if claim.bounds.starts:
            most, wait = await self._admitted(queue, claim.bounds, claim.most, wait)
        found: list[Claimed] = []
        while len(found) < most:
            asked = min(place.guess, most - len(found))
            fresh = [f"{self._owner}:{next(self._numbers)}" for _ in range(asked)]
            tokens += fresh
            replies = await self._client.execute_many([_move(queue, claim, token, self._now()) for token in fresh])
            got = [await self._claimed(name, queue, *one) for one in zip(fresh, replies, strict=True)]
            found += [one for one in got if one is not None]
            if any(one is None for one in got):
                wait = min([wait, *(max(_SOON, due - self._wall()) for due in map(_due, replies) if due is not None)])
                place.guess = max(1, len(found))
                break
            place.guess = min(1000, 2 * place.guess)
        if claim.bounds.starts and most > len(found):
            unused = (most - len(found)) * _cost(claim.bounds)
            await self._client.execute(*evaluated(GIVE_BACK, [queue.key("noobly-rate")], [unused]))
        return _Taken(found, wait, most == 0)

    async def _admitted(self, queue: BullQueue, bounds: Bounds, most: int, wait: float) -> tuple[int, float]:
        asked = [bounds.starts, _cost(bounds), most]
        reply = await self._client.execute(*evaluated(TAKE, [queue.key("noobly-rate")], asked))
        taken, pause = cast("tuple[int, bytes]", reply)
        return taken, (wait if taken else max(_SOON, int(pause) / 1_000_000))

    async def _claimed(self, name: str, queue: BullQueue, token: str, reply: Reply | RedisReplyError) -> Claimed | None:
        if isinstance(reply, RedisReplyError):
            raise reply
        match reply:
            case [list() as flat, bytes() as id, *_] if flat:
                parts = [part for part in flat if isinstance(part, bytes)]
                fields = dict(zip(parts[::2], parts[1::2], strict=False))
            case _:
                return None
        return await self._checked(name, queue, hold(id.decode(), token), fields)

    async def _checked(self, name: str, queue: BullQueue, claim: Hold, fields: Fields) -> Claimed | None:
        raw, _ = held(claim)
        if b"rjk" in fields:
            await follow(self._client, queue, raw, fields, self._now())
        known = ending(fields)
        if b"defa" in fields:  # One of the jobs it runs after has failed, so it fails too.
            reason = fields[b"defa"].decode(errors="replace")
            outcome = Outcome(hold=claim, verdict=Verdict.FAILED, error=reason)
            steps = ended.steps(queue, outcome, known, self._now())
            await self._client.execute_many([ended.uncounted(queue, claim), *steps.end, *steps.beside])
            return None
        if len(self._held) >= _REMEMBERED:
            del self._held[next(iter(self._held))]
        self._held[name, raw] = known
        job = record(name, claim.id, fields, b"active")
        running = msgspec.structs.replace(job, state=State.RUNNING)
        return Claimed(running, claim.token, int(fields.get(b"ats", b"1")))


def _move(queue: BullQueue, claim: Claim, token: str, now: int) -> Command:
    options = {"token": token, "lockDuration": max(1, round(1000 * claim.lease)), "name": claim.worker}
    return queue.command("moveToActive", queue.base, now, packed(options))


def _due(reply: Reply | RedisReplyError) -> float | None:
    """Return when the next delayed job may run, where an answer without a job tells."""
    match reply:
        case [_, _, _, (int() | bytes()) as due] if int(due) > 0:
            return int(due) / 1000
    return None


def _cost(bounds: Bounds) -> int:
    return max(1, round(1_000_000 * bounds.period / bounds.starts))
