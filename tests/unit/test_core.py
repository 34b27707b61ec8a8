"""Errors, checks, events, metrics and tasks."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from datetime import timedelta

import pytest
from prometheus_client import generate_latest

from noobly.core.checks import Limits, Many, Pairs, Payload, Text, Whole
from noobly.core.clock import seconds
from noobly.core.codec import Codec, decode, encode, storable
from noobly.core.errors import Internal, InvalidArgument, MissingDependency, NooblyError, NotFound, TooLarge, by_code
from noobly.core.events import Bus, Event, OperationFinished
from noobly.core.lifecycle import Tasks
from noobly.core.meter import OVERFLOW, Meter

LIMITS = Limits(value_bytes=4)


class TestErrors:
    def test_every_code_leads_back_to_its_class(self) -> None:
        def tree(base: type[NooblyError]) -> list[type[NooblyError]]:
            return [base, *(found for child in base.__subclasses__() for found in tree(child))]

        own = [kind for kind in tree(NooblyError)[1:] if kind.__module__ == "noobly.core.errors"]
        assert len(own) == 17
        assert {by_code(kind.code) for kind in own} == set(own)
        assert by_code("nonsense") is Internal

    def test_codes_and_statuses_are_stable(self) -> None:
        assert (NotFound.code, NotFound.status, NotFound.temporary) == ("not_found", 404, False)
        assert issubclass(MissingDependency, ImportError)

    def test_the_message_is_the_text(self) -> None:
        assert NooblyError("what", retry_after=2).message == "what"
        assert NooblyError().message == ""


class TestChecks:
    @pytest.mark.parametrize("value", ["a", "ab", "ü"])
    def test_good_text(self, value: str) -> None:
        assert Text(1, 2).compile("name", LIMITS)(value) is None  # type: ignore[func-returns-value]

    @pytest.mark.parametrize("value", ["", "abc", 1, None, b"a", "\udfff"])
    def test_bad_text(self, value: object) -> None:
        with pytest.raises(InvalidArgument, match="name"):
            Text(1, 2).compile("name", LIMITS)(value)

    @pytest.mark.parametrize("value", [0, 4, True, 1.0, "1"])
    def test_bad_whole_numbers(self, value: object) -> None:
        with pytest.raises(InvalidArgument):
            Whole(1, 3).compile("count", LIMITS)(value)

    def test_payloads(self) -> None:
        check = Payload().compile("data", LIMITS)
        check(b"1234")
        with pytest.raises(TooLarge, match="5 bytes"):
            check(b"12345")
        with pytest.raises(InvalidArgument):
            check(bytearray(b"1"))

    def test_members_and_pairs_are_checked_one_by_one(self) -> None:
        many = Many(Text(1, 2), 2).compile("names", LIMITS)
        many(["a", "b"])
        pairs = Pairs(Text(1, 2), Payload(), 2).compile("entries", LIMITS)
        pairs([("a", b"1")])
        for bad in (["a", ""], "ab", None):
            with pytest.raises(InvalidArgument):
                many(bad)
        for worse in ([("", b"1")], [("a", "1")], {"a": b"1"}):
            with pytest.raises(InvalidArgument):
                pairs(worse)
        with pytest.raises(TooLarge):
            many(["a"] * 3)
        with pytest.raises(TooLarge):
            pairs([("a", b"1")] * 3)


class TestSeconds:
    def test_numbers_and_timedeltas(self) -> None:
        assert (seconds(None, "ttl"), seconds(2, "ttl"), seconds(timedelta(minutes=1), "ttl")) == (None, 2.0, 60.0)

    @pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), True, "5", timedelta(0), 1e10])
    def test_everything_else_is_refused(self, bad: object) -> None:
        with pytest.raises(InvalidArgument, match="ttl"):
            seconds(bad, "ttl")  # type: ignore[arg-type]


def _left() -> int:
    """Return how many levels of the interpreter's stack are left."""
    return sys.getrecursionlimit() - len(inspect.stack(0))


class TestCodec:
    def test_text_that_utf_8_can_carry(self) -> None:
        assert storable("a lone \ud800 half") == "a lone \\ud800 half"
        assert storable("naïve 鍵") == "naïve 鍵"

    @pytest.mark.parametrize("codec", [Codec.JSON, Codec.MSGPACK])
    def test_round_trips(self, codec: Codec) -> None:
        value = {"a": [1, 2.5, None, True, "ü"]}
        assert decode(encode(value, codec, "k"), codec, object, "k") == value

    def test_what_cannot_be_carried_is_refused(self) -> None:
        loop: list[object] = []
        loop.append(loop)
        for bad in (object(), {1, object()}, "\ud800", loop):
            with pytest.raises(InvalidArgument, match="the value for k cannot be stored"):
                encode(bad, Codec.JSON, "k")
        with pytest.raises(InvalidArgument):
            encode("text", Codec.RAW, "k")

    @pytest.mark.parametrize("codec", [Codec.JSON, Codec.MSGPACK])
    def test_what_could_not_be_written_everywhere_is_refused(self, codec: Codec) -> None:
        def nested(levels: int) -> object:
            value: object = []
            for _ in range(levels):
                value = [value]
            return value

        assert encode(nested(600), codec, "k")
        with pytest.raises(InvalidArgument, match="too many others"):
            encode(nested(_left() - 50), codec, "k")

    def test_wide_values_are_not_deep(self) -> None:
        wide = [{"lines": [{"sku": "[[[["}]}] * 2000
        assert decode(encode(wide, Codec.JSON, "k"), Codec.JSON, object, "k") == wide

    def test_a_wrong_type_and_damage_are_told_apart(self) -> None:
        with pytest.raises(InvalidArgument, match="not a int"):
            decode(b'"x"', Codec.JSON, int, "k")
        with pytest.raises(Internal, match="damaged"):
            decode(b"{", Codec.JSON, object, "k")


class Rang(Event, frozen=True):
    bell: str


class TestEvents:
    def test_by_type_service_and_instance(self) -> None:
        bus, heard = Bus(), []
        bus.subscribe(Rang, lambda event: heard.append(("any", event.bell)))
        bus.subscribe(Rang, lambda event: heard.append(("door", event.bell)), service="door", instance="front")
        bus.emit(Rang("door", "front", "1"))
        bus.emit(Rang("door", "back", "2"))
        bus.emit(Rang("gate", "front", "3"))
        bus.emit(OperationFinished("door", "front", "p", "o", "ok", 0.1))
        assert heard == [("any", "1"), ("door", "1"), ("any", "2"), ("any", "3")]

    def test_unsubscribing_twice_is_once(self) -> None:
        bus, heard = Bus(), []
        end = bus.subscribe(Rang, lambda event: heard.append(event))
        end()
        end()
        bus.emit(Rang("door", "front", "1"))
        assert heard == []
        assert bus.topic(Rang, "door", "front").handlers == ()

    def test_a_handler_that_fails_harms_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        bus, heard = Bus(), []

        def broken(event: Rang) -> None:
            raise ZeroDivisionError

        bus.subscribe(Rang, broken)
        bus.subscribe(Rang, lambda event: heard.append(event))
        with caplog.at_level(logging.ERROR, logger="noobly.events"):
            bus.emit(Rang("door", "front", "1"))
        assert len(heard) == 1
        assert "a handler of Rang failed" in caplog.text


class TestMeter:
    def test_durations_are_cumulative_buckets(self) -> None:
        meter = Meter()
        cell = meter.cell("s", "i", "p", "o", "ok")
        assert meter.cell("s", "i", "p", "o", "ok") is cell
        for took in (1e-7, 0.003, 99.0):
            cell.add(took)
        text = generate_latest(meter.registry).decode()
        labels = 'instance="i",le="{}",operation="o",outcome="ok",provider="p",service="s"'
        for bound, count in (("1e-06", 1), ("0.0025", 1), ("0.005", 2), ("10.0", 2), ("+Inf", 3)):
            assert f"noobly_operation_duration_seconds_bucket{{{labels.format(bound)}}} {count}.0" in text
        assert 'duration_seconds_count{instance="i",operation="o",outcome="ok",provider="p",service="s"} 3.0' in text

    def test_tallies_are_summed_capped_and_end(self) -> None:
        meter = Meter(cap=2)
        rows = [(("a",), 1.0), (("b",), 2.0), (("c",), 3.0), (("d",), 4.0)]
        end = meter.tallies("birds", "Birds seen.", ["kind"], lambda: rows)
        meter.tallies("birds", "Birds seen.", ["kind"], lambda: [(("a",), 10.0)])
        text = generate_latest(meter.registry).decode()
        assert 'birds_total{kind="a"} 11.0' in text
        assert f'birds_total{{kind="{OVERFLOW}"}} 7.0' in text
        end()
        assert 'birds_total{kind="a"} 10.0' in generate_latest(meter.registry).decode()

    def test_gauges_are_shared_by_name(self) -> None:
        meter = Meter()
        assert meter.gauge("g", "G.", ["x"]) is meter.gauge("g", "G.", ["x"])


class TestTasks:
    async def test_close_cancels_and_awaits(self) -> None:
        tasks, ended = Tasks(), []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        task = tasks.spawn(work(), "work")
        await asyncio.sleep(0)
        await tasks.close()
        assert ended == [True]
        assert task.cancelled()

    async def test_an_error_nobody_awaits_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        tasks = Tasks()

        async def fail() -> None:
            raise ZeroDivisionError

        with caplog.at_level(logging.DEBUG, logger="noobly.lifecycle"):
            task = tasks.spawn(fail(), "doomed")
            await asyncio.wait([task])
            await asyncio.sleep(0)
        assert "background task doomed ended with ZeroDivisionError()" in caplog.text

    async def test_what_is_to_be_completed_outlives_its_caller(self) -> None:
        tasks, go_on, done = Tasks(), asyncio.Event(), []

        async def work() -> int:
            await go_on.wait()
            done.append(1)
            return 5

        caller = asyncio.create_task(tasks.complete(work(), "work"))
        for _ in range(2):
            await asyncio.sleep(0)
            caller.cancel()
        await asyncio.sleep(0)
        assert not caller.done()
        go_on.set()
        await asyncio.wait([caller])
        assert caller.cancelled()
        assert done == [1]
        assert await tasks.complete(work(), "work") == 5

    async def test_what_is_completed_ends_with_its_owner(self) -> None:
        tasks = Tasks()
        caller = asyncio.create_task(tasks.complete(asyncio.Event().wait(), "work"))
        await asyncio.sleep(0)
        await tasks.close()
        await asyncio.wait([caller])
        assert caller.cancelled()

    async def test_what_is_completed_may_fail(self) -> None:
        async def work() -> None:
            raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            await Tasks().complete(work(), "work")
