"""The worker's heart, which keeps its claims, and its settling, which tells how they ended."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from noobly.core.errors import TooLarge, Unavailable
from noobly.testing import eventually
from noobly.working import Verdict
from noobly.working.driver import Beat, Hold
from noobly.working.heart import Heart
from noobly.working.records import Settled
from noobly.working.settling import Settling

PATIENCE = 20.0


def settled(id):
    return Settled(id=id, token="t", verdict=Verdict.SUCCEEDED)


class TestSettling:
    async def test_what_ends_in_one_turn_is_told_together(self):
        calls = []

        async def settle(queue, attempts):
            calls.append([one.id for one in attempts])
            return [one.id != "b" for one in attempts]

        settling = Settling(settle, "q", 5.0)
        assert await asyncio.gather(*(settling(settled(id)) for id in "abc")) == [True, False, True]
        assert calls == [["a", "b", "c"]]
        await settling.close()

    async def test_a_store_that_is_down_is_asked_again(self, caplog):
        answers = [Unavailable("down"), Unavailable("down"), [True]]

        async def settle(queue, attempts):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        assert await Settling(settle, "q", PATIENCE)(settled("a"))
        assert answers == []
        assert "trying again" in caplog.text

    async def test_patience_ends(self):
        async def settle(queue, attempts):
            raise Unavailable("down")

        settling = Settling(settle, "q", 0.0)
        outcomes = await asyncio.gather(*(settling(settled(id)) for id in "ab"), return_exceptions=True)
        assert [type(one) for one in outcomes] == [Unavailable, Unavailable]
        assert outcomes[0] is not outcomes[1]

    async def test_one_that_is_refused_does_the_others_no_harm(self):
        async def settle(queue, attempts):
            if any(one.id == "big" for one in attempts):
                raise TooLarge("too big")
            return [True] * len(attempts)

        settling = Settling(settle, "q", 5.0)
        outcomes = await asyncio.gather(*(settling(settled(id)) for id in ("a", "big", "b")), return_exceptions=True)
        assert outcomes[0] is True
        assert isinstance(outcomes[1], TooLarge)
        assert outcomes[2] is True

    async def test_closing_waits_for_what_is_under_way(self):
        go, done = asyncio.Event(), []

        async def settle(queue, attempts):
            await go.wait()
            done.append(attempts)
            return [True]

        settling = Settling(settle, "q", 5.0)
        telling = asyncio.create_task(settling(settled("a")))
        await asyncio.sleep(0)
        closing = asyncio.create_task(settling.close())
        await asyncio.sleep(0)
        assert not closing.done()
        go.set()
        await closing
        assert len(done) == 1
        assert await telling


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
    def _heart(self, beats, told):
        @asynccontextmanager
        async def twin():
            yield beats

        return Heart(
            twin,
            lease=0.03,
            told=lambda *what: told.append(what),
            named=lambda *_: None,
            codes={},
        )

    async def test_what_was_lost_is_told(self):
        beats, told = Beats(Beat.KEPT, Unavailable("down"), Beat.KEPT, Beat.CANCELLED), []
        async with self._heart(beats, told) as heart:
            heart.hold("q", Hold("a", "t"))
            await eventually(lambda: told, timeout=PATIENCE)
            heart.drop("q", Hold("a", "t"))
        assert told[0] == ("q", Hold("a", "t"), Beat.CANCELLED)
        assert beats.calls[0] == ("q", [Hold("a", "t")], 0.03)
        assert len(beats.calls) >= 4

    async def test_what_was_dropped_is_not_kept(self):
        beats, told = Beats(Beat.LOST), []
        async with self._heart(beats, told) as heart:
            heart.hold("q", Hold("a", "t"))
            heart.drop("q", Hold("a", "t"))
            heart.hold("q", Hold("b", "t"))
            await eventually(lambda: told, timeout=PATIENCE)
        assert {hold.id for _, holds, _ in beats.calls for hold in holds} == {"b"}

    async def test_a_heart_that_dies_says_so(self):
        async with self._heart(Beats(TooLarge("no way")), []) as heart:
            heart.hold("q", Hold("a", "t"))
            with pytest.raises(TooLarge):
                await asyncio.wait_for(heart.sound(), PATIENCE)
