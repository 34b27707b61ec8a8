"""Each layer, as a call through the whole stack shows it."""

from __future__ import annotations

import asyncio
import logging

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from noobly.core.binding import bind, seal
from noobly.core.capability import require
from noobly.core.errors import (
    Closed,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    RateLimited,
    TooLarge,
    Unavailable,
    Unsupported,
)
from noobly.core.events import OperationFinished
from noobly.core.operation import capabilities, operations
from noobly.layers.breaker import Circuit
from noobly.testing import FixedChance, eventually
from noobly.testing.faults import Fault

from .birds import Bird, BirdDriver, Can, Eagle, Nest


async def test_a_good_call_passes_and_is_counted_once() -> None:
    nest = Nest()
    assert await nest.driver.look("owl") == "owl sings"
    assert nest.count("ok") == 1


async def test_the_operations_are_those_that_are_declared() -> None:
    assert [operation.name for operation in operations(BirdDriver)] == ["look", "feed", "listen", "fly"]
    assert [operation.idempotent for operation in operations(BirdDriver)] == [True, False, True, True]


async def test_what_a_protocol_declares_is_read_once_for_all_that_open_it() -> None:
    Nest()
    read = operations.cache_info().misses
    Nest()
    assert operations.cache_info().misses == read


class TestObserve:
    async def test_the_event_tells_the_final_outcome(self) -> None:
        nest = Nest(attempts=3)
        seen: list[OperationFinished] = []
        nest.environment.bus.subscribe(OperationFinished, seen.append)
        nest.faults.plan(Fault.TEMPORARY)
        await nest.driver.look("owl")
        with pytest.raises(InvalidArgument):
            await nest.driver.look("")
        assert [(event.operation, event.outcome) for event in seen] == [("look", "ok"), ("look", "invalid_argument")]
        assert all(event.seconds >= 0 for event in seen)

    async def test_an_error_knows_where_it_came_from(self) -> None:
        nest = Nest(attempts=1)
        nest.faults.plan(Fault.TEMPORARY)
        with pytest.raises(Unavailable) as raised:
            await nest.driver.look("owl")
        error = raised.value
        assert (error.service, error.operation, error.provider) == ("birds", "look", "bird")

    async def test_one_structured_line_at_debug(self, caplog: pytest.LogCaptureFixture) -> None:
        nest = Nest()
        with caplog.at_level(logging.DEBUG, logger="noobly.operation"):
            await nest.driver.look("owl")
        assert [record.levelname for record in caplog.records] == ["DEBUG"]
        assert "birds.look" in caplog.text
        assert "outcome='ok'" in caplog.text
        assert "owl" not in caplog.text

    async def test_a_cancelled_call_is_counted_as_such(self) -> None:
        nest = Nest()
        nest.faults.plan(Fault.DELAY)
        call = asyncio.ensure_future(nest.driver.look("owl"))
        await eventually(lambda: nest.faults.calls)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert nest.count("cancelled") == 1

    async def test_a_span_where_a_tracer_provider_is_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
        nest = Nest()
        await nest.driver.look("owl")
        assert [span.name for span in exporter.get_finished_spans()] == ["birds.look"]
        provider.shutdown()


class TestDeadline:
    async def test_a_call_that_hangs_ends_in_its_time(self) -> None:
        nest = Nest(timeout=0.05)
        nest.faults.plan(Fault.DROP)
        async with asyncio.timeout(5):
            with pytest.raises(DeadlineExceeded, match=r"look took over 0\.05 s"):
                await nest.driver.look("owl")
        assert nest.count("deadline_exceeded") == 1

    async def test_a_cancellation_from_outside_stays_one(self) -> None:
        nest = Nest(timeout=5.0)
        nest.faults.plan(Fault.DROP)
        call = asyncio.ensure_future(nest.driver.look("owl"))
        await eventually(lambda: nest.faults.calls)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    async def test_the_task_goes_on_after_its_call_was_ended(self) -> None:
        nest = Nest(timeout=0.05)
        nest.faults.plan(Fault.DROP)

        async def work() -> str:
            with pytest.raises(DeadlineExceeded):
                await nest.driver.look("owl")
            return await nest.driver.look("owl")

        assert await asyncio.create_task(work()) == "owl sings"

    async def test_an_in_process_provider_has_none(self) -> None:
        bird = Bird()
        bird.in_process = True
        nest = Nest(bird, timeout=0.01)
        nest.faults.plan(Fault.DELAY)
        call = asyncio.ensure_future(nest.driver.look("owl"))
        await eventually(lambda: nest.faults.calls)
        await asyncio.sleep(0.05)
        nest.faults.release()
        assert await call == "owl sings"


class TestLimit:
    async def test_calls_wait_for_a_place_and_too_many_are_refused(self) -> None:
        nest = Nest(concurrency=1, waiting=1)
        nest.faults.plan(Fault.DELAY)
        first = asyncio.ensure_future(nest.driver.look("owl"))
        await eventually(lambda: nest.faults.calls)
        second = asyncio.ensure_future(nest.driver.look("jay"))
        await asyncio.sleep(0)
        with pytest.raises(RateLimited, match="too many calls"):
            await nest.driver.look("tit")
        assert nest.faults.calls == {"look": 1}
        nest.faults.release()
        assert await asyncio.gather(first, second) == ["owl sings", "jay sings"]

    async def test_calls_that_wait_for_something_to_come_take_no_places_from_others(self) -> None:
        nest = Nest(concurrency=1, waiting=2)
        nest.faults.plan(Fault.DELAY, times=2, operation="listen")
        listening = [asyncio.ensure_future(nest.driver.listen()) for _ in range(2)]
        await eventually(lambda: nest.faults.calls.get("listen") == 2)
        assert await nest.driver.look("owl") == "owl sings"
        with pytest.raises(RateLimited):
            await nest.driver.listen()
        nest.faults.release()
        assert await asyncio.gather(*listening) == ["silence", "silence"]

    async def test_a_waiting_call_that_is_cancelled_gives_its_place_back(self) -> None:
        nest = Nest(concurrency=1, waiting=1)
        nest.faults.plan(Fault.DELAY)
        first = asyncio.ensure_future(nest.driver.look("owl"))
        await eventually(lambda: nest.faults.calls)
        second = asyncio.ensure_future(nest.driver.look("jay"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        third = asyncio.ensure_future(nest.driver.look("tit"))
        nest.faults.release()
        assert await asyncio.gather(first, third) == ["owl sings", "tit sings"]


class TestBreaker:
    async def test_it_opens_after_failures_and_closes_after_a_good_trial(self) -> None:
        nest = Nest(attempts=1, breaker_failures=3, breaker_pause=10.0)
        nest.faults.plan(Fault.TEMPORARY, times=3)
        for _ in range(3):
            with pytest.raises(Unavailable, match="planned"):
                await nest.driver.look("owl")
        assert nest.circuit.state is Circuit.OPEN
        with pytest.raises(Unavailable, match="circuit is open") as raised:
            await nest.driver.look("owl")
        assert raised.value.retry_after == pytest.approx(10.0)
        assert nest.faults.calls == {"look": 3}
        nest.clock.advance(10.0)
        assert await nest.driver.look("owl") == "owl sings"
        assert nest.circuit.state is Circuit.CLOSED

    async def test_a_failed_trial_opens_it_again(self) -> None:
        nest = Nest(attempts=1, breaker_failures=1, breaker_pause=10.0)
        nest.faults.plan(Fault.TEMPORARY, times=2)
        with pytest.raises(Unavailable):
            await nest.driver.look("owl")
        nest.clock.advance(10.0)
        with pytest.raises(Unavailable, match="planned"):
            await nest.driver.look("owl")
        with pytest.raises(Unavailable, match="circuit is open"):
            await nest.driver.look("owl")

    async def test_only_one_trial_at_a_time_and_a_cancelled_one_is_given_back(self) -> None:
        nest = Nest(attempts=1, breaker_failures=1, breaker_pause=10.0)
        nest.faults.plan(Fault.TEMPORARY)
        with pytest.raises(Unavailable):
            await nest.driver.look("owl")
        nest.clock.advance(10.0)
        nest.faults.plan(Fault.DELAY)
        trial = asyncio.ensure_future(nest.driver.look("owl"))
        await eventually(lambda: nest.faults.calls["look"] == 2)
        with pytest.raises(Unavailable, match="circuit is open"):
            await nest.driver.look("jay")
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        assert await nest.driver.look("owl") == "owl sings"

    async def test_a_trial_that_waits_for_something_to_come_holds_up_only_others_that_wait(self) -> None:
        nest = Nest(attempts=1, breaker_failures=1, breaker_pause=10.0)
        nest.faults.plan(Fault.TEMPORARY)
        with pytest.raises(Unavailable):
            await nest.driver.look("owl")
        nest.clock.advance(10.0)
        nest.faults.plan(Fault.DELAY)
        waiting = asyncio.ensure_future(nest.driver.listen())
        await eventually(lambda: nest.faults.calls.get("listen") == 1)
        with pytest.raises(Unavailable, match="circuit is open"):
            await nest.driver.listen()
        assert await nest.driver.look("owl") == "owl sings"
        assert nest.circuit.state is Circuit.CLOSED
        nest.faults.release()
        assert await waiting == "silence"

    async def test_missed_deadlines_count(self) -> None:
        nest = Nest(timeout=0.02, attempts=1, breaker_failures=1, breaker_pause=10.0)
        nest.faults.plan(Fault.DROP)
        with pytest.raises(DeadlineExceeded):
            await nest.driver.look("owl")
        assert nest.circuit.state is Circuit.OPEN

    async def test_the_callers_own_mistakes_do_not_count(self) -> None:
        nest = Nest(breaker_failures=1)
        with pytest.raises(InvalidArgument):
            await nest.driver.look("")
        assert nest.circuit.state is Circuit.CLOSED


class TestAttempt:
    async def test_what_a_later_attempt_raises_is_classified_too(self) -> None:
        nest = Nest(attempts=2, backoff=0.001)
        nest.bird.raises = OSError("a storm")
        with pytest.raises(Unavailable, match="the nest is gone: a storm") as raised:
            await nest.driver.look("owl")
        assert raised.value.__cause__ is nest.bird.raises
        assert nest.faults.calls == {"look": 2}

    async def test_it_keeps_its_place_and_its_deadline_while_it_pauses(self) -> None:
        nest = Nest(attempts=2, backoff=60.0, backoff_cap=60.0, timeout=0.05, concurrency=1, waiting=0)
        nest.environment.chance = FixedChance(0.5)
        nest.faults.plan(Fault.TEMPORARY)
        call = asyncio.ensure_future(nest.driver.look("owl"))
        await eventually(lambda: nest.faults.calls)
        with pytest.raises(RateLimited):
            await nest.driver.look("jay")
        with pytest.raises(DeadlineExceeded):
            await call
        assert await nest.driver.look("tit") == "tit sings"


class TestValidate:
    async def test_they_are_refused_as_such_while_the_circuit_is_open(self) -> None:
        nest = Nest(attempts=1, breaker_failures=1, breaker_pause=10.0)
        nest.faults.plan(Fault.TEMPORARY)
        with pytest.raises(Unavailable):
            await nest.driver.look("owl")
        with pytest.raises(InvalidArgument):
            await nest.driver.look("")
        assert nest.circuit.state is Circuit.OPEN

    async def test_bad_arguments_never_reach_the_provider(self) -> None:
        nest = Nest()
        for bad in ("", "x" * 9, 5, None, "\ud800"):
            with pytest.raises(InvalidArgument):
                await nest.driver.look(bad)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="bytes"):
            await nest.driver.feed("owl", "text")  # type: ignore[arg-type]
        with pytest.raises(TooLarge, match="11 bytes"):
            await nest.driver.feed("owl", b"x" * 11)
        assert nest.faults.calls == {}


class TestRequire:
    async def test_what_a_provider_lacks_is_refused_before_it_is_asked(self) -> None:
        nest = Nest()
        with pytest.raises(Unsupported, match="fly"):
            await nest.driver.fly()
        assert nest.faults.calls == {}

    async def test_what_it_has_works_and_is_derived(self) -> None:
        assert capabilities(BirdDriver, Eagle()) == {Can.FLY}
        assert capabilities(BirdDriver, Bird()) == frozenset()
        assert await Nest(Eagle()).driver.fly() == "up"

    async def test_what_its_server_lacks_is_refused_too(self) -> None:
        eagle = Eagle()
        eagle.lacks = frozenset({Can.FLY})  # type: ignore[attr-defined]
        with pytest.raises(Unsupported, match="its server lacks fly"):
            await Nest(eagle).driver.fly()

    async def test_requiring_it_fails_at_once(self) -> None:
        with pytest.raises(Unsupported, match="bird lacks fly"):
            require([Can.FLY], capabilities(BirdDriver, Bird()), "bird")

    async def test_a_provider_without_a_core_operation_cannot_be_bound(self) -> None:
        class Stone:
            scheme = "stone"
            in_process = True
            limits = Bird.limits

        with pytest.raises(TypeError, match=r"birds\.look"):
            bind(BirdDriver, Stone(), [])  # type: ignore[arg-type]


class TestRetry:
    async def test_idempotent_calls_are_tried_again_and_counted_once(self) -> None:
        nest = Nest(attempts=3, backoff=0.001)
        nest.faults.plan(Fault.TEMPORARY, times=2)
        assert await nest.driver.look("owl") == "owl sings"
        assert nest.faults.calls == {"look": 3}
        assert (nest.count("ok"), nest.count("unavailable")) == (1, 0)

    async def test_attempts_are_bounded(self) -> None:
        nest = Nest(attempts=3, backoff=0.001)
        nest.faults.plan(Fault.TEMPORARY, times=9)
        with pytest.raises(Unavailable):
            await nest.driver.look("owl")
        assert nest.faults.calls == {"look": 3}

    async def test_others_are_never_tried_again(self) -> None:
        nest = Nest(attempts=3)
        nest.faults.plan(Fault.LOSE, operation="feed")
        with pytest.raises(Unavailable):
            await nest.driver.feed("owl", b"xx")
        assert nest.bird.seeds == 2
        assert nest.faults.calls == {"feed": 1}

    async def test_permanent_errors_are_not_tried_again(self) -> None:
        nest = Nest(attempts=3)
        nest.faults.plan(Fault.PERMANENT)
        with pytest.raises(Internal):
            await nest.driver.look("owl")
        assert nest.faults.calls == {"look": 1}

    async def test_a_duplicated_call_takes_effect_twice(self) -> None:
        nest = Nest()
        nest.faults.plan(Fault.DUPLICATE)
        assert await nest.driver.feed("owl", b"x") == 2


class TestClassify:
    async def test_what_the_provider_knows_becomes_the_suites_own(self) -> None:
        nest = Nest(attempts=1)
        nest.bird.raises = ConnectionResetError("wind")
        with pytest.raises(Unavailable, match="the nest is gone") as raised:
            await nest.driver.look("owl")
        assert isinstance(raised.value.__cause__, ConnectionResetError)

    async def test_what_it_does_not_know_is_internal(self) -> None:
        nest = Nest()
        nest.bird.raises = ZeroDivisionError("feathers")
        with pytest.raises(Internal, match="bird failed in look: ZeroDivisionError") as raised:
            await nest.driver.look("owl")
        assert isinstance(raised.value.__cause__, ZeroDivisionError)


async def test_a_sealed_driver_refuses_every_call() -> None:
    nest = Nest(Eagle())
    seal(nest.driver, BirdDriver, "the nest is closed")
    for call in (lambda: nest.driver.look("owl"), lambda: nest.driver.feed("owl", b""), lambda: nest.driver.fly()):
        with pytest.raises(Closed, match="the nest is closed"):
            await call()
    assert nest.faults.calls == {}
