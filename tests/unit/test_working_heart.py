"""The worker's heart, which keeps its claims, and its settling, which tells how they ended."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from noobly.core.errors import PermissionDenied, TooLarge, Unavailable
from noobly.testing import eventually
from noobly.working import Verdict, records
from noobly.working.driver import Beat, Hold, Retrying, State
from noobly.working.heart import Heart
from noobly.working.records import Held, Job
from noobly.working.running import Attempt
from noobly.working.settling import Settling

PATIENCE = 20.0


def attempt(id):
    job = Job(id=id, queue="q", task="t", args=None, state=State.RUNNING)
    return Attempt(Held(job=job, retrying=Retrying(), token="t", fence=1))


class Settled:
    """A settling, and what it was answered."""

    def __init__(self, settle, patience=PATIENCE):
        self.answers = {}
        self.settling = Settling(settle, "q", patience, self._told)

    def _told(self, attempt, settled, answer):
        assert attempt.hold.id == settled.id
        self.answers[settled.id] = answer

    async def tell(self, *ids):
        for id in ids:
            self.settling.tell(attempt(id), records.Settled(id=id, token="t", verdict=Verdict.SUCCEEDED))
        await self.settling.close(PATIENCE)
        return [self.answers[id] for id in ids]


class TestSettling:
    async def test_what_ends_in_one_turn_is_told_together(self):
        calls = []

        async def settle(queue, attempts):
            calls.append([one.id for one in attempts])
            return [one.id != "b" for one in attempts]

        assert await Settled(settle).tell("a", "b", "c") == [True, False, True]
        assert calls == [["a", "b", "c"]]

    async def test_a_store_that_is_down_is_asked_again(self, caplog):
        answers = [Unavailable("down"), Unavailable("down"), [True]]

        async def settle(queue, attempts):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        assert await Settled(settle).tell("a") == [True]
        assert answers == []
        assert "trying again" in caplog.text

    async def test_patience_ends(self):
        async def settle(queue, attempts):
            raise Unavailable("down")

        assert [type(one) for one in await Settled(settle, 0.0).tell("a", "b")] == [Unavailable, Unavailable]

    async def test_one_that_is_refused_does_the_others_no_harm(self):
        async def settle(queue, attempts):
            if any(one.id == "big" for one in attempts):
                raise TooLarge("too big")
            return [True] * len(attempts)

        first, big, last = await Settled(settle).tell("a", "big", "b")
        assert (first, last) == (True, True)
        assert isinstance(big, TooLarge)

    async def test_closing_waits_for_what_is_under_way(self):
        go, done = asyncio.Event(), []

        async def settle(queue, attempts):
            await go.wait()
            done.append(attempts)
            return [True]

        telling = asyncio.create_task(Settled(settle).tell("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not telling.done()
        go.set()
        assert await telling == [True]
        assert len(done) == 1


class Beats:
    """What keeps claims, or does not."""

    def __init__(self, *answers):
        self.answers, self.calls = list(answers), []

    async def beat(self, queue, holds, lease=None):
        self.calls.append((queue, list(holds), lease))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [answer] * len(holds)


class TestHeart:
    def _heart(self, beats, told, holds):
        @asynccontextmanager
        async def twin():
            yield beats

        return Heart(
            twin,
            lease=0.03,
            holds=holds,
            told=lambda *what: told.append(what),
            named=lambda *_: None,
            codes={},
        )

    async def test_what_was_lost_is_told(self):
        beats, told = Beats(Beat.KEPT, Unavailable("down"), Beat.KEPT, Beat.CANCELLED), []
        async with self._heart(beats, told, {("q", Hold("a", "t"))}):
            await eventually(lambda: told, timeout=PATIENCE)
        assert told[0] == ("q", Hold("a", "t"), Beat.CANCELLED)
        assert beats.calls[0] == ("q", [Hold("a", "t")], 0.03)
        assert len(beats.calls) >= 4

    async def test_what_has_ended_is_not_kept(self):
        beats, told, holds = Beats(Beat.LOST), [], {("q", Hold("a", "t"))}
        async with self._heart(beats, told, holds):
            holds.clear()
            holds.add(("q", Hold("b", "t")))
            await eventually(lambda: told, timeout=PATIENCE)
        assert {hold.id for _, holds, _ in beats.calls for hold in holds} == {"b"}

    async def test_a_heart_that_dies_says_so(self):
        async with self._heart(Beats(PermissionDenied("no way")), [], {("q", Hold("a", "t"))}) as heart:
            with pytest.raises(PermissionDenied):
                await asyncio.wait_for(heart.sound(), PATIENCE)

    @pytest.mark.parametrize("turns", [1, 2, 3])
    async def test_a_worker_cancelled_while_it_starts_leaves_no_thread(self, turns):
        before = set(threading.enumerate())
        heart = self._heart(Beats(Beat.KEPT), [], set())

        async def live():
            async with heart:
                await asyncio.Event().wait()

        starting = asyncio.create_task(live())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting], timeout=PATIENCE)
        assert starting.cancelled()
        left = [one for one in threading.enumerate() if one not in before and "heart" in one.name]
        assert left == []
