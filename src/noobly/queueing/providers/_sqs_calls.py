"""Calls to one queue in SQS, ten messages in each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

from noobly.clients.aws import AwsError, AwsJson
from noobly.queueing.providers._sqs_wire import (
    ABSENT,
    STALE,
    Entry,
    Handle,
    HandleBatch,
    HandledBatch,
    Message,
    Receive,
    Received,
    SendBatch,
    SentBatch,
)

T = TypeVar("T")
Work: TypeAlias = Callable[[], Awaitable[T]]
Outcome: TypeAlias = "bool | BaseException"
"""Whether the receipt of a delivery was good, or why SQS did not do what was asked."""

_TOGETHER = 8
"""Calls under way at once for one call of the driver."""
_TEN = 10
_SILENT = "SQS does not say whether it has stored the message"


async def every(works: Sequence[Work[T]]) -> list[T]:
    """Return what works give, some of them at once; after the first error, which is raised, no more are begun."""
    found = await outcomes(works, _TOGETHER)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [one for one in found if not isinstance(one, BaseException)]


async def outcomes(works: Sequence[Work[T]], together: int) -> list[T | BaseException]:
    """Return what works give or raise, so many at once; an error is also the outcome of those it lets not begin."""
    found: list[T | BaseException] = []
    for start in range(0, len(works), together):
        found += await asyncio.gather(*(work() for work in works[start : start + together]), return_exceptions=True)
        if error := next((one for one in found if isinstance(one, BaseException)), None):
            found += [error] * (len(works) - len(found))
            break
    return found


class Calls:
    """What is asked of a queue."""

    def __init__(self, aws: AwsJson) -> None:
        self._aws = aws

    async def send(self, url: str, entries: Sequence[Entry]) -> list[str | AwsError]:
        """Send a batch and return, for each message, SQS's id or why it was not stored."""
        answer = await self._aws.call("SendMessageBatch", SendBatch(queue_url=url, entries=list(entries)), SentBatch)
        stored = {one.id: one.message_id for one in answer.successful}
        failed = {one.id: AwsError(one.code, one.message) for one in answer.failed}
        return [stored.get(one.id) or failed.get(one.id) or AwsError("", _SILENT) for one in entries]

    async def receive(self, url: str, most: int, lease: int, wait: int) -> list[Message]:
        """Receive up to ten messages."""
        request = Receive(queue_url=url, max_number_of_messages=most, visibility_timeout=lease, wait_time_seconds=wait)
        return (await self._aws.call("ReceiveMessage", request, Received)).messages

    async def delete(self, url: str, handles: Sequence[str]) -> list[Outcome]:
        """Delete deliveries; return for each whether SQS took the handle."""
        return await self._handle("DeleteMessageBatch", url, [Handle(id="", receipt_handle=one) for one in handles])

    async def hide(self, url: str, handles: Sequence[tuple[str, int]]) -> list[Outcome]:
        """Let deliveries come again after so many seconds; return for each whether SQS took the handle."""
        asked = [Handle(id="", receipt_handle=handle, visibility_timeout=seconds) for handle, seconds in handles]
        return await self._handle("ChangeMessageVisibilityBatch", url, asked)

    async def _handle(self, operation: str, url: str, handles: Sequence[Handle]) -> list[Outcome]:
        parts = [handles[start : start + _TEN] for start in range(0, len(handles), _TEN)]
        done = await outcomes([partial(self._part, operation, url, part) for part in parts], _TOGETHER)
        found: list[Outcome] = []
        for part, one in zip(parts, done, strict=True):
            found += [one] * len(part) if isinstance(one, BaseException) else one
        return found

    async def _part(self, operation: str, url: str, part: Sequence[Handle]) -> list[Outcome]:
        entries = [
            Handle(id=str(number), receipt_handle=one.receipt_handle, visibility_timeout=one.visibility_timeout)
            for number, one in enumerate(part)
        ]
        try:
            answer = await self._aws.call(operation, HandleBatch(queue_url=url, entries=entries), HandledBatch)
        except AwsError as error:
            if error.code in ABSENT:
                return [False] * len(part)
            raise
        failed = {one.id: AwsError(one.code, one.message) for one in answer.failed}
        return [_outcome(failed.get(one.id)) for one in entries]


def _outcome(error: AwsError | None) -> Outcome:
    """Return what became of a delivery; what failed for its receipt's sake was no good."""
    if error is None:
        return True
    return False if error.code in STALE and not beyond(error) else error


def beyond(outcome: Outcome) -> bool:
    """Return whether a delivery failed because it would be hidden for over 12 hours since it was received."""
    return isinstance(outcome, AwsError) and outcome.code in STALE and "VisibilityTimeout" in outcome.message


def settled(found: Sequence[Outcome]) -> list[bool]:
    """Return whether each receipt was good.

    Raises:
        AwsError: SQS did not do it, for another reason.
    """
    if error := next((one for one in found if isinstance(one, BaseException)), None):
        raise error
    return [one is True for one in found]
