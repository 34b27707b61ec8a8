"""What is particular to the portable type, to its parts, and to the memory provider."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import msgspec
import pytest

from noobly.core.binding import Layer
from noobly.core.checks import Limits
from noobly.core.clock import Seconds, pause
from noobly.core.errors import InvalidArgument, PermissionDenied, RateLimited, Unavailable
from noobly.core.lifecycle import Tasks
from noobly.core.operation import Call, Driver, Operation
from noobly.core.scope import Environment
from noobly.layers.opening import Request, open_driver, split
from noobly.queueing import (
    Consumption,
    Delivery,
    Message,
    Outbound,
    QueueOptions,
    Queues,
    Returned,
    consuming,
    open_queues,
)
from noobly.queueing.driver import Posted, QueueDriver, Sent
from noobly.queueing.handling import handle
from noobly.queueing.messages import Value
from noobly.queueing.packing import unending
from noobly.queueing.providers import REGISTRY
from noobly.queueing.receipts import handed, receipt_of
from noobly.testing import FakeClock, eventually
from noobly.testing import queueing as suite


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def queues(clock: FakeClock) -> AsyncIterator[Queues]:
    async with open_queues(environment=Environment(clock=clock)) as queues:
        yield queues


async def one(queues: Queues, queue: str = "q") -> Delivery[Value]:
    (found,) = await queues.receive(queue)
    return found


class TestSuite:
    def test_no_two_themes_have_a_test_of_one_name(self) -> None:
        """For one of them would never run."""
        names = [name for theme in suite.QueueSuite.__bases__ for name in vars(theme) if name.startswith("test_")]
        assert len(names) > 100
        assert len(names) == len(set(names))

    def test_all_themes_are_in_the_suite(self) -> None:
        themes = {getattr(suite, name) for name in suite.__all__ if name.endswith("Theme")}
        assert set(suite.QueueSuite.__bases__) == themes


class TestMemoryBounds:
    async def test_so_many_messages(self) -> None:
        async with open_queues("memory://?max_messages=3") as queues:
            await queues.send_many("a", [Outbound(message=1)] * 2)
            with pytest.raises(RateLimited, match="full with 2 messages"):
                await queues.send_many("b", [Outbound(message=1)] * 2)
            assert await queues.size("b") == 0
            await queues.send("b", 1)
            with pytest.raises(RateLimited):
                await queues.send("a", 1)
            await queues.ack("a", (await one(queues, "a")).receipt)
            await queues.send("a", 1)

    async def test_so_many_bytes(self) -> None:
        async with open_queues(f"memory://?max_bytes={100_000}") as queues:
            await queues.send("q", b"x" * 40_000)
            await queues.send("q", b"x" * 40_000)
            with pytest.raises(RateLimited):
                await queues.send("q", b"x" * 40_000)
            await queues.dequeue("q")
            await queues.send("q", b"x" * 40_000, headers={"h": "1"})

    async def test_dead_letters_count_too(self) -> None:
        async with open_queues("memory://?max_messages=2") as queues:
            for _ in range(2):
                await queues.send("q", 1)
                await queues.reject("q", (await one(queues)).receipt)
            with pytest.raises(RateLimited):
                await queues.send("q", 1)
            assert await queues.purge("q.dead") == 2
            await queues.send("q", 1)

    async def test_a_redrive_that_fails_holds_nothing(self) -> None:
        async with open_queues("memory://?max_messages=1") as queues:
            await queues.send("q", 1)
            await queues.reject("q", (await one(queues)).receipt)
            with pytest.raises(RateLimited):  # Each is sent before it is deleted, and there is room for one.
                await queues.redrive("q")
            assert (await one(queues, "q.dead")).value == 1

    async def test_a_receipt_is_no_good_for_the_same_message_sent_again(self, queues: Queues) -> None:
        await queues.send("q", 1)
        old = (await one(queues)).receipt
        await queues.reject("q", old)
        await queues.purge("q")
        await queues.redrive("q")
        again = (await one(queues)).receipt
        assert await queues.ack_many("q", [old, again]) == [False, True]

    async def test_two_memories_share_nothing(self) -> None:
        async with open_queues() as here, open_queues() as there:
            await here.send("q", 1)
            assert await there.queues() == []

    async def test_a_receiver_that_is_called_and_gives_up_calls_the_next(self, queues: Queues) -> None:
        tasks = [asyncio.create_task(queues.receive("q", wait=10)) for _ in range(3)]
        await asyncio.sleep(0)
        await queues.send("q", 1)
        tasks[0].cancel()
        # Without the call, each would look again only after 2 seconds.
        done, waiting = await asyncio.wait(tasks[1:], timeout=1.5, return_when=asyncio.FIRST_COMPLETED)
        assert [[one.value for one in task.result()] for task in done] == [[1]]
        for task in waiting:
            task.cancel()
        await asyncio.wait(tasks)


class TestTimes:
    @pytest.mark.parametrize(("given", "wanted"), [(None, 0.0), (0, 0.0), (0.0, 0.0), (5, 5.0), (0.5, 0.5)])
    def test_a_pause_may_be_none_at_all(self, given: Seconds | None, wanted: float) -> None:
        found = pause(given, "delay")
        assert (found, type(found)) == (wanted, float)

    @pytest.mark.parametrize("given", [-1, False, True, "0", float("nan"), 1e10])
    def test_what_is_no_pause(self, given: Seconds) -> None:
        with pytest.raises(InvalidArgument, match="delay"):
            pause(given, "delay")


class TestReceipts:
    def test_they_say_what_is_needed(self) -> None:
        found = handed("12gabc.3")
        assert (found.receipt, found.deliveries, found.grouped) == ("abc.3", 12, True)
        assert not handed("1m1").grouped
        assert (handed("3mid x y").receipt, handed("3mid x y").id, handed("3mx").id) == ("x y", "id", "")
        assert [receipt_of(text) for text in ("3mid x y", "3m x y", "3mx", "12mid x", "3mïd x")] == [
            "x y", "x y", "x", "x", "x",
        ]  # fmt: skip
        assert handed("1m" + "x" * 4096).receipt == "x" * 4096

    @pytest.mark.parametrize(
        "text", ["", "1", "m", "1m", "1xabc", "-1mabc", "1234567890mabc", "1m" + "x" * 4097, "1mid "]
    )
    def test_what_is_none(self, text: str) -> None:
        for read in (handed, receipt_of):
            with pytest.raises(InvalidArgument, match="receipt"):
                read(text)

    @pytest.mark.parametrize("id", ["their id", "x" * 257, "", "ïd"])
    async def test_messages_of_any_id_can_be_answered(self, queues: Queues, id: str) -> None:
        await queues._driver.send("q", [Posted(id=id, body=b"1")])
        await queues.ack("q", (await one(queues)).receipt)
        await queues._driver.send("q", [Posted(id=id, body=b"1")])
        await queues.reject("q", (await one(queues)).receipt)


class TestForeignMessages:
    """Messages that somebody else put into the store."""

    async def test_plain_json_is_read(self, queues: Queues) -> None:
        await queues._driver.send("q", [Posted(id="theirs", body=b' {"a": [1]} ')])
        found = await one(queues)
        assert (found.id, found.value, found.headers) == ("theirs", {"a": [1]}, {})

    async def test_what_a_later_release_sends_is_not_guessed_at(self, queues: Queues) -> None:
        await queues._driver.send("q", [Posted(id="later", body=b"1", headers='{"c": 7}')])
        assert await queues.receive("q") == []
        (dead,) = await queues.dead_letters("q")
        assert "does not know" in dead.last_error

    @pytest.mark.parametrize("headers", ["", "{no json", '{"h":{"a":"b"}}'])
    def test_what_has_no_end_stays_as_it_is(self, headers: str) -> None:
        assert unending(headers) == headers

    def test_an_end_is_taken_off(self) -> None:
        assert unending('{"x": 5.0}') == ""
        assert msgspec.json.decode(unending('{"x": 5.0, "c": 1, "h": {"a": "b"}}')) == {"c": 1, "h": {"a": "b"}}


def failing(*names: str, times: int = 1) -> Layer:
    """Let some operations fail as if the server were away, so many times each."""
    left = dict.fromkeys(names, times)

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        async def failed(*args: object) -> object:
            if left.get(operation.name, 0):
                left[operation.name] -= 1
                raise Unavailable(f"{operation.name} is away")
            return await inner(*args)

        return failed

    return layer


@pytest.fixture
async def faulty(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[Queues]:
    """Open queues some of whose operations fail."""
    asked = Request(url="memory://", inner=[failing(*request.param)])
    async with AsyncExitStack() as stack:
        settings = split(asked, QueueOptions)
        opened = await open_driver(stack, REGISTRY, QueueDriver, settings, asked, Environment(clock=clock))
        queues = Queues(opened.driver, opened.scope, opened.options)
        stack.push_async_callback(queues.close)
        yield queues


async def test_what_is_nested_too_deep_to_be_answered_is_quarantined(queues: Queues) -> None:
    deep = b"[" * 880 + b"]" * 880
    await queues._driver.send("q", [Posted(id="deep", body=deep), Posted(id="good", body=b"1")])
    (found,) = await queues.receive("q", max=2)
    assert found.id == "good"
    (dead,) = await queues.dead_letters("q")
    assert "too many others" in dead.last_error


class TestFaults:
    @pytest.mark.parametrize("faulty", [("bury",)], indirect=True)
    async def test_what_cannot_be_buried_comes_again(
        self, faulty: Queues, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        await faulty._driver.send("q", [Posted(id="bad", body=b"{")])
        assert await faulty.receive("q") == []
        assert "message bad of queue 'q' could not be put among its dead letters" in caplog.text
        assert (await faulty.stats("q")).in_flight == 1
        clock.advance(31)
        assert await faulty.receive("q") == []
        assert (await faulty.stats("q")).dead == 1

    @pytest.mark.parametrize("faulty", [("ack",)], indirect=True)
    async def test_what_came_too_late_and_cannot_be_dropped_comes_again(
        self, faulty: Queues, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        await faulty.send("q", 1, ttl=1)
        clock.advance(2)
        assert await faulty.receive("q") == []
        assert "could not be dropped" in caplog.text

    @pytest.mark.parametrize("faulty", [("receive",)], indirect=True)
    async def test_consuming_waits_for_a_store_that_is_away(
        self, faulty: Queues, caplog: pytest.LogCaptureFixture
    ) -> None:
        await faulty.send("q", 1)
        message = await asyncio.wait_for(anext(faulty.consume("q")), 5)
        assert message.value == 1
        assert "cannot be received from; trying again" in caplog.text

    @pytest.mark.parametrize("faulty", [("ack",)], indirect=True)
    async def test_a_message_whose_acknowledgement_failed_is_kept_from_nobody(
        self, faulty: Queues, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        done: list[int] = []

        async def work(message: Message[Value]) -> None:
            done.append(message.delivery.deliveries)

        await faulty.send("q", 1)
        task = asyncio.create_task(faulty.work("q", work))
        await eventually(lambda: "comes again" in caplog.text)
        clock.advance(31)
        await faulty.resume("q")  # Who waits for a message looks again, as by a real clock when the lease has ended.
        await eventually(lambda: len(done) == 2)
        assert done == [1, 2]
        task.cancel()
        await asyncio.wait([task])

    @pytest.mark.parametrize("faulty", [("ack", "nack")], indirect=True)
    async def test_an_iteration_outlives_what_cannot_be_settled(
        self, faulty: Queues, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(3):
            await faulty.send("q", number)
        seen = []
        async with faulty.consume("q") as messages:
            async for message in messages:
                async with message as value:
                    seen.append(value)
                    if value == 1:
                        raise ValueError("bad")
                if len(seen) == 3:
                    messages.stop()
        assert seen == [0, 1, 2]
        assert caplog.text.count("could not be settled and comes again") == 2

    @pytest.mark.parametrize("faulty", [("ack",)], indirect=True)
    async def test_who_acknowledges_by_hand_hears_of_it(self, faulty: Queues) -> None:
        await faulty.send("q", 1)
        async with faulty.consume("q") as messages:
            message = await anext(messages)
            with pytest.raises(Unavailable):
                await message.ack()
            await message.ack()

    @pytest.mark.parametrize("faulty", [("extend",)], indirect=True)
    async def test_a_heartbeat_tries_again(self, faulty: Queues, caplog: pytest.LogCaptureFixture) -> None:
        await faulty.send("q", 1)
        messages = faulty.consume("q")
        message = await anext(messages)
        await messages.beat()
        assert "could not be extended" in caplog.text
        assert messages.holds(message)
        await messages.beat()
        assert not message.lost


class Stub:
    """Queues whose receivers get what a test says."""

    def __init__(self, *answers: list[Delivery[Value]] | Exception) -> None:
        self.answers = list(answers)
        self.extended = 0
        self.released: list[str] = []
        self.asked: list[str] = []
        self.standing: set[str] | None = None

    async def receive(
        self, queue: str, *, max: int, wait: Seconds | None, lease: Seconds | None
    ) -> list[Delivery[Value]]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ack_many(self, queue: str, receipts: Sequence[str]) -> list[bool]:
        return [True for _ in receipts]

    async def nack(self, queue: str, receipt: str, *, delay: Seconds | None = None, reason: str = "") -> Returned:
        return Returned(0.0)

    async def reject(self, queue: str, receipt: str, *, reason: str = "") -> None:
        raise Unavailable("away")

    async def release_many(self, queue: str, receipts: Sequence[str]) -> list[bool]:
        self.released += receipts
        return [True for _ in receipts]

    async def extend_many(self, queue: str, receipts: Sequence[str], lease: Seconds | None = None) -> list[bool]:
        self.extended += 1
        self.asked += receipts
        return [self.standing is None or receipt in self.standing for receipt in receipts]


def delivery(value: Value = 1) -> Delivery[Value]:
    return Delivery(id="id", queue="q", value=value, receipt="1mx", deliveries=1, sent_at=0.0)


class TestConsuming:
    async def test_what_waiting_cannot_mend_is_raised(self) -> None:
        messages = Consumption(Stub(PermissionDenied("no")), Tasks(), "q", object, concurrency=1, lease=30)
        with pytest.raises(PermissionDenied):
            await anext(messages)

    async def test_one_warning_for_a_long_absence(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(consuming, "_LONGEST_PAUSE", 0.01)
        tasks = Tasks()
        stub = Stub(Unavailable("a"), Unavailable("b"), [delivery()])
        messages = Consumption(stub, tasks, "q", object, concurrency=1, lease=30)
        assert (await anext(messages)).value == 1
        assert caplog.text.count("trying again") == 1
        await tasks.close()

    async def test_stopping_ends_the_pause(self) -> None:
        failure = Unavailable("away", retry_after=60)
        messages = Consumption(Stub(failure), Tasks(), "q", object, concurrency=1, lease=30)
        task = asyncio.create_task(anext(messages, None))
        await asyncio.sleep(0)
        messages.stop()
        assert await asyncio.wait_for(task, 5) is None

    async def test_what_cannot_be_rejected_holds_nothing_up(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        tasks = Tasks()
        stub = Stub([delivery("text")], [delivery(5)])
        messages = Consumption(stub, tasks, "q", int, concurrency=1, lease=30)
        assert (await anext(messages)).value == 5
        assert "could not be put among the dead letters" in caplog.text
        await tasks.close()

    async def test_what_lost_its_lease_before_it_was_handed_out_is_not(self) -> None:
        tasks = Tasks()
        late = msgspec.structs.replace(delivery(2), receipt="1mlate")
        stub = Stub([delivery(), late], PermissionDenied("the end"))
        messages = Consumption(stub, tasks, "q", object, concurrency=2, lease=30)
        assert (await anext(messages)).value == 1
        stub.standing = {"1mx"}
        await messages.beat()
        with pytest.raises(PermissionDenied):
            await anext(messages)
        await messages.close()
        assert stub.released == ["1mx"]
        await tasks.close()

    async def test_after_its_consumer_only_what_is_in_hands_is_kept(self) -> None:
        tasks = Tasks()
        stub = Stub([delivery(), msgspec.structs.replace(delivery(2), receipt="1mlate")])
        gc.disable()
        try:
            messages = Consumption(stub, tasks, "q", object, concurrency=2, lease=0.03)
            message = await anext(messages)
            del messages
            stub.asked.clear()
            await eventually(lambda: bool(stub.asked))
            assert set(stub.asked) == {"1mx"}
            assert not message.lost
            del message
            await eventually(lambda: not tasks._running)
        finally:
            gc.enable()

    async def test_as_many_plain_handlers_at_once_as_were_asked_for(self, queues: Queues) -> None:
        together = threading.Barrier(40)
        names: set[str] = set()

        def work(message: Message[Value]) -> None:
            together.wait(20)
            names.add(threading.current_thread().name)

        await queues.send_many("q", [Outbound(message=number) for number in range(40)])
        task = asyncio.create_task(queues.work("q", work, concurrency=40))
        await eventually(lambda: len(names) == 40, timeout=20)
        task.cancel()
        await asyncio.wait([task])
        await eventually(lambda: not names & {thread.name for thread in threading.enumerate()})

    async def test_no_grace(self, queues: Queues) -> None:
        begun = asyncio.Event()

        async def work(message: Message[Value]) -> None:
            begun.set()
            await asyncio.Event().wait()

        await queues.send("q", 1)
        task = asyncio.create_task(queues.work("q", work, grace=0))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert (await one(queues)).deliveries == 1

    async def test_a_failure_is_told_once_with_where_it_happened(
        self, queues: Queues, caplog: pytest.LogCaptureFixture
    ) -> None:
        await queues.send("q", 1)
        message = await anext(queues.consume("q"))
        async with message:
            raise ValueError("bad luck")
        (told,) = [record for record in caplog.records if "failed" in record.message]
        assert told.exc_info is not None
        assert isinstance(told.exc_info[1], ValueError)

    async def test_leases_are_extended_until_nobody_holds_the_consumption(self) -> None:
        tasks, stub = Tasks(), Stub([delivery()])
        messages = Consumption(stub, tasks, "q", object, concurrency=1, lease=0.03)
        message = await anext(messages)
        await eventually(lambda: stub.extended >= 2)
        assert not message.lost
        del messages, message
        gc.collect()
        await eventually(lambda: not tasks._running)

    async def test_a_callable_object_may_be_async(self) -> None:
        done: list[Value] = []

        class Handler:
            async def __call__(self, message: Message[Value]) -> None:
                await asyncio.sleep(0)
                done.append(message.value)

        tasks, stub = Tasks(), Stub([delivery()], PermissionDenied("the end"))
        messages = Consumption(stub, tasks, "q", object, concurrency=2, lease=30)
        with pytest.raises(PermissionDenied):
            await handle(messages, Handler(), 5.0)
        assert done == [1]
        await tasks.close()


class TestTyped:
    async def test_types_without_a_name(self, queues: Queues) -> None:
        either = queues.typed("q", int | str)  # type: ignore[var-annotated]  # a union is no class
        await either.send("text")
        with pytest.raises(InvalidArgument, match=r"int \| str"):
            await either.send([])
        (found,) = await either.receive()
        assert found.value == "text"

    async def test_bytes(self, queues: Queues) -> None:
        raw = queues.typed("q", bytes)
        await raw.send(b"\xff")
        assert (await raw.receive())[0].value == b"\xff"


class Partial:
    """A driver that stores every other message."""

    scheme = "partial"
    in_process = True
    limits = Limits()
    features: frozenset[object] = frozenset()

    async def send(self, queue: str, messages: Sequence[Posted]) -> list[Sent]:
        return [Sent(one.id, error="" if number % 2 else "no room") for number, one in enumerate(messages)]


class TestPartOfABatch:
    async def test_each_has_a_fate_of_its_own(self, queues: Queues) -> None:
        queues._driver = queues._calls._driver = Partial()  # type: ignore[assignment]  # as much of one as it takes
        sent = await queues.send_many("q", [Outbound(message=number) for number in range(4)])
        assert [one.error for one in sent] == ["no room", "", "no room", ""]
        with pytest.raises(Unavailable, match="did not take the message: no room"):
            await queues.send("q", 1)
