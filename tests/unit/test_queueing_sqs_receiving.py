"""How the SQS provider receives in several calls, and what it gives back when it is cut short."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from noobly.clients.aws import AwsError
from noobly.queueing.providers._sqs_calls import Calls
from noobly.queueing.providers._sqs_names import Naming
from noobly.queueing.providers._sqs_queues import Directory, Making
from noobly.queueing.providers._sqs_receiving import Claim, Receiving
from noobly.queueing.providers._sqs_wire import HandleBatch, HandledBatch, Message, Receive, Received
from noobly.testing import eventually

CLAIM = Claim("q", "http://x/1/q", 600)


class Slow:
    """Answers each ReceiveMessage with ten messages; from the given one on, only every other one ever is."""

    def __init__(self, stuck: int) -> None:
        self.stuck = stuck
        self.asked = 0
        self.given: list[str] = []
        self.hidden: dict[str, int | None] = {}
        self.released = asyncio.Event()

    async def call(self, operation: str, request: msgspec.Struct, _: type[object]) -> object:
        await asyncio.sleep(0)
        if isinstance(request, Receive):
            return await self.receive()
        assert isinstance(request, HandleBatch)
        assert operation == "ChangeMessageVisibilityBatch"
        self.hidden |= {one.receipt_handle: one.visibility_timeout for one in request.entries}
        return HandledBatch()

    async def receive(self) -> Received:
        number, self.asked = self.asked, self.asked + 1
        if number >= self.stuck and number % 2:
            await self.released.wait()
        handles = [f"{number}/{one}" for one in range(10)]
        self.given += handles
        return Received(messages=[Message(message_id=one, receipt_handle=one) for one in handles])


def receiving(aws: Any) -> Receiving:
    making = Making(create=True, fifo=False, retention=60, receives=6)
    directory = Directory(aws, Naming("", fifo=False), making)
    return Receiving(directory, Calls(aws), 10, asyncio.get_running_loop().time)


async def test_what_has_come_goes_back_when_a_later_call_is_cancelled() -> None:
    aws = Slow(stuck=1)
    mine = receiving(aws)
    task = asyncio.create_task(mine.receive(CLAIM, 50, 0))
    await eventually(lambda: len(aws.given) == 30)  # The first round, and two of the four calls of the second.
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    aws.released.set()
    await mine.close()
    assert len(aws.given) == 50
    assert aws.hidden == dict.fromkeys(aws.given, 0)


async def test_what_has_come_stays_when_a_later_call_fails() -> None:
    aws = Slow(stuck=9)
    receive = aws.receive

    async def failing() -> Received:
        if aws.asked:
            raise AwsError("InternalError")
        return await receive()

    aws.receive = failing  # type: ignore[method-assign]
    mine = receiving(aws)
    assert len(await mine.receive(CLAIM, 30, 0)) == 10
    await mine.close()
    assert aws.hidden == {}
