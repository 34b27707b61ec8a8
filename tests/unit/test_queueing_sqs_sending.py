"""What the SQS provider makes of batches that SQS stores in part, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from noobly.clients.aws import AwsError, classify
from noobly.core.errors import InvalidArgument, NooblyError, RateLimited, Unavailable
from noobly.queueing.driver import Posted, Sent
from noobly.queueing.providers._sqs_calls import Calls
from noobly.queueing.providers._sqs_held import Held
from noobly.queueing.providers._sqs_names import Naming
from noobly.queueing.providers._sqs_packing import Packing
from noobly.queueing.providers._sqs_queues import Directory, Making
from noobly.queueing.providers._sqs_sending import Sending
from noobly.queueing.providers._sqs_wire import SendBatch
from noobly.testing import FakeClock

from .aws_script import scripted


def answer(stored: Sequence[int], failed: Sequence[int] = (), code: str = "InternalError") -> object:
    """Return what SQS says of a batch."""
    good = [{"Id": str(one), "MessageId": f"m{one}"} for one in stored]
    bad = [{"Id": str(one), "Code": code, "Message": "try later"} for one in failed]
    return {"Successful": good, "Failed": bad}


def sqs(*answers: object) -> Any:
    url = {"QueueUrl": "http://x/1/q"}
    return scripted(GetQueueUrl=[url], GetQueueAttributes=[{}], SendMessageBatch=list(answers))


def sending(aws: Any, *, fifo: bool = False) -> Sending:
    making = Making(create=True, fifo=fifo, retention=60, receives=6)
    directory = Directory(aws, Naming("", fifo=fifo), making)
    return Sending(directory, Calls(aws), Packing(fifo=fifo, fair=False), FakeClock())


async def sent(aws: Any, count: int, *, fifo: bool = False) -> list[Sent]:
    return await sending(aws, fifo=fifo).send("q", [Posted(id=str(one), body=b"1", group="g") for one in range(count)])


@pytest.mark.parametrize(
    ("code", "kind"),
    [("InternalError", Unavailable), ("RequestThrottled", RateLimited), ("InvalidMessageContents", InvalidArgument)],
)
async def test_when_nothing_was_stored_the_call_fails_as_sqs_says(code: str, kind: type[NooblyError]) -> None:
    with pytest.raises(AwsError, match="try later") as caught:
        await sent(sqs(answer([], [0, 1], code)), 2)
    assert type(classify(caught.value)) is kind


async def test_what_was_not_stored_has_its_error() -> None:
    found = await sent(sqs(answer([0], [1])), 3)
    assert [one.id for one in found] == ["0", "1", "2"]
    assert found[0].error == ""
    assert found[1].error == "unavailable: AWS cannot do it now: InternalError: try later"
    assert found[2].error.startswith("internal: ")
    assert "does not say" in found[2].error


async def test_nothing_of_a_group_overtakes_what_was_not_stored() -> None:
    aws = sqs(answer(range(4), range(4, 10)), answer(range(10)))
    found = await sent(aws, 25, fifo=True)
    assert [bool(one.error) for one in found] == [False] * 4 + [True] * 21
    assert "it was not sent" in found[24].error
    assert aws.calls.count("SendMessageBatch") == 1
    standard = sqs(answer(range(4), range(4, 10)), answer(range(10)))
    assert [bool(one.error) for one in await sent(standard, 20)] == [False] * 4 + [True] * 6 + [False] * 10


async def test_a_batch_that_is_refused_holds_back_those_behind_it() -> None:
    found = await sent(sqs(answer(range(10)), "RequestThrottled", answer(range(10))), 30, fifo=True)
    assert [one.error.partition(":")[0] for one in found] == [""] * 10 + ["rate_limited"] * 10 + ["unavailable"] * 10
    with pytest.raises(AwsError, match="RequestThrottled"):
        await sent(sqs("RequestThrottled"), 30, fifo=True)


async def test_the_first_error_is_the_first_one_known_here() -> None:
    aws = sqs(answer([0]))
    mine, message = sending(aws), Posted(id="i", body=b"1")
    held = Held(queue="q", handle="h", number="m", message=message, deliveries=3, until=0.0)
    for reason in ("", "first", "second"):
        mine.given_back(held, reason)
    await mine.bury("q", held, message, "last")
    mine.forget(held)
    await mine.bury("q", held, message, "last")
    letters = [one.entries[0].message_attributes for one in aws.requests if isinstance(one, SendBatch)]
    errors = [msgspec.json.decode(one["noobly.message"].string_value) for one in letters]
    assert [(one["first_error"], one["last_error"]) for one in errors] == [("first", "last"), ("last", "last")]
