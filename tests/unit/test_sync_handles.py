"""The blocking facade of what queues and jobs hand out: typed queues, messages, handles, workers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from noobly.core.errors import Conflict, DeadlineExceeded, InvalidArgument, NotFound
from noobly.core.lifecycle import Handle
from noobly.queueing import Consumption, Message, TypedQueue
from noobly.settings import Instance, Settings
from noobly.sync import SyncNoobly
from noobly.working import JobFailed, JobHandle, State

SETTINGS = Settings(services={"queueing": {"default": Instance(url="memory://", options={"backoff": 0.001})}})


class Order(msgspec.Struct):
    id: int


@pytest.fixture
def noobly() -> Iterator[SyncNoobly]:
    with SyncNoobly.open(settings=SETTINGS) as opened:
        yield opened


class TestQueues:
    def test_messages_come_and_go(self, noobly: SyncNoobly) -> None:
        queues = noobly.queueing
        queues.send("q", {"order": 7}, priority=5)
        (delivery,) = queues.receive("q", wait=1)
        assert (delivery.value, queues.stats("q").in_flight) == ({"order": 7}, 1)
        queues.ack("q", delivery.receipt)
        with pytest.raises(Conflict):
            queues.ack("q", delivery.receipt)
        assert queues.dequeue("q", "nothing") == "nothing"

    def test_typed_queues(self, noobly: SyncNoobly) -> None:
        orders = noobly.queueing.typed("orders", Order)
        assert (orders.name, orders.type) == ("orders", Order)
        orders.send(Order(1))
        noobly.queueing.send("orders", "no order")
        assert [one.value for one in orders.receive(max=10)] == [Order(1)]
        assert len(noobly.queueing.dead_letters("orders")) == 1
        with pytest.raises(InvalidArgument):
            orders.send("no order")

    def test_consuming(self, noobly: SyncNoobly) -> None:
        for number in range(3):
            noobly.queueing.send("q", number)
        seen = []
        with noobly.queueing.consume("q") as messages:
            assert messages.queue == "q"
            for message in messages:
                with message as value:
                    seen.append((value, message.delivery.deliveries))
                    if seen == [(0, 1)]:
                        raise LookupError("the first time")
                if len(seen) == 4:
                    messages.stop()
        assert sorted(seen) == [(0, 1), (0, 2), (1, 1), (2, 1)]
        assert noobly.queueing.size("q") == 0

    def test_a_body_that_is_interrupted_gives_its_message_back(self, noobly: SyncNoobly) -> None:
        noobly.queueing.send("q", 1)
        with noobly.queueing.consume("q") as messages, pytest.raises(KeyboardInterrupt), next(messages):
            raise KeyboardInterrupt
        (again,) = noobly.queueing.receive("q", wait=5)
        assert again.deliveries == 1  # It was stopped, and has not failed.

    def test_a_message_is_settled_by_hand(self, noobly: SyncNoobly) -> None:
        noobly.queueing.send("q", 1)
        messages = noobly.queueing.typed("q", int).consume()
        next(messages).reject("no use")
        messages.stop()
        assert list(messages) == []
        assert noobly.queueing.dead_letters("q")[0].last_error == "no use"


class TestJobs:
    def test_a_worker_beside_the_program(self, noobly: SyncNoobly) -> None:
        jobs = noobly.working

        @jobs.task(retries=2, backoff=0.001)
        def square(number: int, job: object) -> int:
            job.log(f"attempt {job.attempt}")
            if job.attempt == 1:
                raise ConnectionError
            return number * number

        with jobs.working(concurrency=2):
            handle = jobs.enqueue(square, 7)
            assert handle.result(20) == 49
            first, trace, second = handle.logs()
            assert (handle.status(), first, second) == (State.SUCCEEDED, "attempt 1", "attempt 2")
            assert trace.splitlines()[-1] == "ConnectionError"
            assert "noobly/working" not in trace
            assert jobs.handle(handle.id, queue=handle.queue).job().attempts == 2
            assert jobs.batch([jobs.spec(square, 2)], then=square, args=3).result(20) == 9
            with pytest.raises(JobFailed):
                jobs.enqueue("nothing", retries=0).result(20)

    def test_handles_raise_what_the_async_ones_do(self, noobly: SyncNoobly) -> None:
        handle = noobly.working.enqueue("later", delay=60)
        assert "JobHandle" in repr(handle)
        with pytest.raises(DeadlineExceeded):
            handle.result(0.01)
        assert handle.cancel() is State.CANCELLED
        with pytest.raises(NotFound):
            noobly.working.handle("nobody").job()


@pytest.mark.parametrize("kind", [TypedQueue, Consumption, Message, JobHandle])
def test_no_coroutine_of_a_handle_is_left(noobly: SyncNoobly, kind: type[Handle]) -> None:
    noobly.queueing.send("q", 1)
    with noobly.queueing.consume("q") as messages:
        made = {
            TypedQueue: noobly.queueing.typed("q", int),
            Consumption: messages,
            Message: next(messages),
            JobHandle: noobly.working.handle("x"),
        }[kind]
        for name, original in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                assert not inspect.iscoroutinefunction(getattr(type(made), name))
                assert getattr(type(made), name).__doc__ == original.__doc__
        with pytest.raises(AttributeError):
            made._lease  # noqa: B018
        with pytest.raises(AttributeError):
            made.thing  # noqa: B018


def test_many_threads_share_a_queue(noobly: SyncNoobly) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: noobly.queueing.send("q", number), range(100)))
        found = list(pool.map(lambda _: noobly.queueing.dequeue("q"), range(100)))
    assert sorted(found) == list(range(100))
