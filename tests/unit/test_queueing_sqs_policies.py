"""What the SQS provider does about the redrive policies of queues that are there."""

from __future__ import annotations

import pytest

from noobly.clients.aws import AwsError
from noobly.queueing.providers._sqs_policies import Policies, Policy, written

from .aws_script import scripted

LOW: object = {"Attributes": written(Policy("arn:dead", 3))}


async def test_a_policy_that_ends_too_early_is_raised_once() -> None:
    aws = scripted(GetQueueAttributes=[LOW], SetQueueAttributes=[{}])
    policies = Policies(aws, receives=6, change=True)
    for _ in range(2):
        await policies.check("q", "url")
    assert aws.calls == ["GetQueueAttributes", "SetQueueAttributes"]
    assert aws.requests[1].attributes == written(Policy("arn:dead", 6))


@pytest.mark.parametrize(
    "attributes",
    [
        written(Policy("arn:dead", 6)),
        {"RedrivePolicy": '{"deadLetterTargetArn": "arn:dead", "maxReceiveCount": "1000"}'},
        {"RedrivePolicy": "{"},
        {},
    ],
    ids=["equal", "higher", "broken", "none"],
)
async def test_another_policy_stays(attributes: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    aws = scripted(GetQueueAttributes=[{"Attributes": attributes}])
    await Policies(aws, receives=6, change=True).check("q", "url")
    assert caplog.records == []


@pytest.mark.parametrize("denied", ["GetQueueAttributes", "SetQueueAttributes"])
@pytest.mark.parametrize("code", ["AccessDenied", "InvalidParameterValue"])
async def test_what_sqs_refuses_is_told(denied: str, code: str, caplog: pytest.LogCaptureFixture) -> None:
    script: dict[str, list[object]] = {
        "GetQueueAttributes": [LOW],
        "SetQueueAttributes": [{}],
        denied: [code],
    }
    policies = Policies(scripted(**script), receives=6, change=True)
    for _ in range(2):
        await policies.check("q", "url")
    (record,) = caplog.records
    assert code in record.getMessage()


async def test_while_sqs_cannot_answer_it_is_asked_again() -> None:
    aws = scripted(GetQueueAttributes=["ServiceUnavailable", LOW], SetQueueAttributes=[{}])
    policies = Policies(aws, receives=6, change=True)
    with pytest.raises(AwsError, match="ServiceUnavailable"):
        await policies.check("q", "url")
    await policies.check("q", "url")
    assert aws.calls == ["GetQueueAttributes"] * 2 + ["SetQueueAttributes"]


async def test_a_queue_that_is_gone_and_dead_letters_are_no_matter(caplog: pytest.LogCaptureFixture) -> None:
    await Policies(scripted(GetQueueAttributes=["QueueDoesNotExist"]), receives=6, change=True).check("q", "url")
    await Policies(scripted(), receives=6, change=True).check("q.dead", "url")
    assert caplog.records == []
