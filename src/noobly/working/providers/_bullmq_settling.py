"""Settling attempts in BullMQ: what its scripts want to know, what they answer, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from noobly.clients.redis import RedisClient, RedisReplyError, RedisScript, Reply
from noobly.core.clock import fresh_id
from noobly.working.driver import Outcome, Verdict
from noobly.working.providers import _bullmq_ended as ended
from noobly.working.providers._bullmq_claiming import Claims
from noobly.working.providers._bullmq_jobs import CANCELLING, EXPIRING, LASTING, milliseconds
from noobly.working.providers._bullmq_names import held, hold
from noobly.working.providers._bullmq_options import Ending, ending
from noobly.working.providers._bullmq_scripts import CANCEL, EXPIRE, SEIZED_FROM, BullQueue, evaluated
from noobly.working.states import ASKED, LATE

HELD_BY = RedisScript("""
local tokens, found = {}, {}
for i = 2, #ARGV do tokens[ARGV[i]] = true end
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local token = redis.call('GET', ARGV[1] .. id .. ':lock')
  if token and tokens[token] then
    found[#found + 1] = id
    found[#found + 1] = token
  end
end
return found
""")
"""Return the running jobs that are held under some tokens, each with its token."""

_PAGE = 500
"""Jobs that one look lets expire, at most."""


class Settling:
    """Ends attempts, and jobs that wait.

    Args:
        client: The connection.
        claims: Know what BullMQ wants to know of jobs that were claimed here.
        wall: Returns seconds since the epoch.
    """

    def __init__(self, client: RedisClient, claims: Claims, wall: Callable[[], float]) -> None:
        self._client, self._claims, self._wall = client, claims, wall

    async def settle(self, name: str, queue: BullQueue, outcomes: Sequence[Outcome]) -> list[bool]:
        """See the protocol."""
        now, raws = milliseconds(self._wall()), [held(one.hold)[0] for one in outcomes]
        endings = await self._endings(name, queue, raws)
        parts = [ended.steps(queue, one, endings[raw], now) for one, raw in zip(outcomes, raws, strict=True)]
        replies = await ended.tell(self._client, [part.end for part in parts])
        instead = [ended.otherwise(one, reply) for one, reply in zip(outcomes, replies, strict=True)]
        stood = [reply[-1] == 0 for reply in replies]
        beside = [command for part, good in zip(parts, stood, strict=True) if good for command in part.beside]
        over = [raw for raw, one, good in zip(raws, outcomes, stood, strict=True) if good and one.verdict.final]
        beside += [ended.forgo(queue, over)] if over else []
        await self._client.execute_many([*beside, ("ZADD", queue.key("marker"), 0, "0")])
        self._claims.settled(name, [raw for raw, one in zip(raws, instead, strict=True) if one is None])
        if others := [one for one in instead if one is not None]:
            again = iter(await self.settle(name, queue, others))
            stood = [next(again) if one else good for one, good in zip(instead, stood, strict=True)]
        return stood

    async def release(self, name: str, queue: BullQueue, tokens: Sequence[str]) -> None:
        """Let others have what was handed out under some tokens to somebody who does not know of it."""
        asked = evaluated(HELD_BY, [queue.key("active")], [queue.base, *tokens])
        found = [part.decode() for part in cast("list[bytes]", await self._client.execute(*asked))]
        holds = map(hold, found[::2], found[1::2])
        if released := [Outcome(hold=one, verdict=Verdict.RELEASE) for one in holds]:
            await self.settle(name, queue, released)

    async def _endings(self, name: str, queue: BullQueue, raws: Sequence[str]) -> dict[str, Ending]:
        """Return what BullMQ wants to know of each job, which those know that claimed it here."""
        known = {raw: self._claims.ending(name, raw) for raw in raws}
        unknown = [raw for raw, found in known.items() if found is None]
        fields = ("opts", "stacktrace")
        replies = await self._client.execute_many([("HMGET", queue.key(raw), *fields) for raw in unknown])
        read: dict[str, Ending] = {}
        for raw, reply in zip(unknown, replies, strict=True):
            opts, traces = cast("tuple[bytes | None, bytes | None]", _good(reply))
            read[raw] = ending({b"opts": opts or b"{}", b"stacktrace": traces or b"[]"})
        return {raw: found if found is not None else read[raw] for raw, found in known.items()}

    async def cancel(self, name: str, queue: BullQueue, raw: str) -> bool:
        """Cancel a job that waits; return whether it runs, and its end is only asked for."""
        token, keys = fresh_id(), [queue.key(raw), *map(queue.key, SEIZED_FROM)]
        answer = await self._client.execute(*evaluated(CANCEL, keys, [raw, token, CANCELLING]))
        if answer == b"held":
            outcome = Outcome(hold=hold(raw, token), verdict=Verdict.CANCELLED, error=ASKED)
            await self.settle(name, queue, [outcome])
        return answer == b"running"

    async def expire(self, name: str, queue: BullQueue) -> None:
        """End the jobs that nobody has begun in their time."""
        keys, looked = [queue.key(EXPIRING), *map(queue.key, SEIZED_FROM)], _PAGE
        while looked >= _PAGE:
            token, now = fresh_id(), milliseconds(self._wall())
            reply = await self._client.execute(*evaluated(EXPIRE, keys, [queue.base, now, token, LASTING]))
            looked, *ids = cast("tuple[int, *tuple[bytes, ...]]", reply)
            holds = [hold(id.decode(), token) for id in ids]
            late = [Outcome(hold=one, verdict=Verdict.EXPIRED, error=LATE) for one in holds]
            if late:
                await self.settle(name, queue, late)
                await self._client.execute("ZREM", keys[0], *ids)


def _good(reply: Reply | RedisReplyError) -> Reply:
    if isinstance(reply, RedisReplyError):
        raise reply
    return reply
