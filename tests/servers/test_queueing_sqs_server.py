"""The SQS provider at a server: messages of other programs, redrive policies, deleted queues, and what only SQS has."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import botocore.session
import msgspec
import pytest

from noobly.clients.aws import AwsClient, AwsError, AwsJson
from noobly.core.clock import fresh_id
from noobly.core.errors import Conflict, InvalidArgument, NotFound, Unauthenticated, Unsupported
from noobly.queueing import Can, Outbound, Queues, names, open_queues
from noobly.queueing.providers import _sqs_held
from noobly.queueing.providers._sqs_names import token
from noobly.queueing.providers._sqs_wire import Failed, HandleBatch, HandledBatch
from noobly.testing import private_or_skip


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with private_or_skip("moto") as server:
        yield server.url


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def namespace() -> str:
    return fresh_id()[:12]


@asynccontextmanager
async def opened(url: str, namespace: str, **options: object) -> AsyncIterator[Queues]:
    async with open_queues("sqs://eu-west-1", endpoint=url, namespace=namespace, timeout=20, **options) as queues:
        yield queues


class Foreign:
    """Another program, with AWS's own client."""

    def __init__(self, url: str, name: str) -> None:
        self.client = botocore.session.Session().create_client("sqs", region_name="eu-west-1", endpoint_url=url)
        self.url: str = self.client.get_queue_url(QueueName=name)["QueueUrl"]

    def attributes(self) -> dict[str, str]:
        found: dict[str, str] = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])[
            "Attributes"
        ]
        return found

    def receive(self, **more: object) -> list[dict[str, Any]]:
        found = self.client.receive_message(QueueUrl=self.url, MessageAttributeNames=["All"], **more)
        return list(found.get("Messages", []))

    def close(self) -> None:
        self.client.close()


@asynccontextmanager
async def foreign(url: str, name: str) -> AsyncIterator[Foreign]:
    other = await asyncio.to_thread(Foreign, url, name)
    yield other
    other.close()


@pytest.mark.servers
async def test_other_programs_send_and_receive_plain_json(moto: str, namespace: str) -> None:
    async with opened(moto, namespace) as queues:
        await queues.send("q", {"a": ["é", 1]}, headers={"h": "1"})
        async with foreign(moto, f"{namespace}-q") as other:
            (theirs,) = await asyncio.to_thread(other.receive)
            assert json.loads(theirs["Body"]) == {"a": ["é", 1]}
            beside = json.loads(theirs["MessageAttributes"]["noobly.message"]["StringValue"])
            assert json.loads(beside["headers"])["h"] == {"h": "1"}
            sent = await asyncio.to_thread(other.client.send_message, QueueUrl=other.url, MessageBody='{"b": 2}')
        (mine,) = await queues.receive("q", wait=5)
        assert (mine.id, mine.value, mine.headers) == (sent["MessageId"], {"b": 2}, {})
        await queues.ack("q", mine.receipt)


@pytest.mark.servers
@pytest.mark.parametrize("fifo", [False, True])
async def test_sqs_itself_buries_what_nobody_acknowledges(moto: str, namespace: str, fifo: bool) -> None:
    async with opened(moto, namespace, fifo=fifo, max_deliveries=2) as queues:
        sent = await queues.send("q", "killer")
        name = f"{namespace}-q{'.fifo' if fifo else ''}"
        async with foreign(moto, name) as other:
            policy = json.loads((await asyncio.to_thread(other.attributes))["RedrivePolicy"])
            assert policy["maxReceiveCount"] == 3
            for _ in range(3):
                assert len(await asyncio.to_thread(other.receive, VisibilityTimeout=0)) == 1
            assert await asyncio.to_thread(other.receive, VisibilityTimeout=0) == []
        (dead,) = await queues.receive(names.dead("q"))
        assert (dead.id, dead.value, dead.last_error) == (sent.id, "killer", "")
        assert await queues.size("q") == 0


@pytest.mark.servers
async def test_queues_are_made_as_the_options_say(moto: str, namespace: str) -> None:
    async with opened(moto, namespace, retention=1234, fifo=True) as queues:
        await queues.send("q", 1)
        for name, retention in (("q", "1234"), ("q_x2edead", "1209600")):
            async with foreign(moto, f"{namespace}-{name}.fifo") as other:
                found = await asyncio.to_thread(other.attributes)
                assert (found["MessageRetentionPeriod"], found["FifoQueue"]) == (retention, "true")
                assert ("RedrivePolicy" in found) == (name == "q")
    async with opened(moto, namespace, retention=4321, fifo=True, max_deliveries=9) as queues:
        await queues.send("q", 2)  # The queue keeps its retention.
        assert await queues.size("q") == 2


@pytest.mark.servers
@pytest.mark.parametrize("create", [True, False])
async def test_more_deliveries_than_a_queue_was_made_for(
    moto: str, namespace: str, caplog: pytest.LogCaptureFixture, create: bool
) -> None:
    async with opened(moto, namespace, max_deliveries=1) as queues:
        await queues.send("q", 1)
    async with foreign(moto, f"{namespace}-q") as other:
        made = json.loads((await asyncio.to_thread(other.attributes))["RedrivePolicy"])
        with caplog.at_level(logging.WARNING, "noobly.queueing"):
            for _ in range(2):
                async with opened(moto, namespace, max_deliveries=10, create=create) as queues:
                    for _ in range(2):
                        await queues.size("q")
                        await queues.send("q", 2)
        found = json.loads((await asyncio.to_thread(other.attributes))["RedrivePolicy"])
    assert found["deadLetterTargetArn"] == made["deadLetterTargetArn"]
    assert int(found["maxReceiveCount"]) == (11 if create else 2)
    assert caplog.text.count("should be 11 at least") == (0 if create else 2)


@pytest.mark.servers
async def test_health_is_an_answer_of_any_kind(moto: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(code: str) -> Callable[..., Awaitable[bytes]]:
        async def post(*_: object) -> bytes:
            raise AwsError(code)

        return post

    async with opened(moto, namespace) as queues:
        driver = queues._driver
        await driver.health()
        monkeypatch.setattr(AwsClient, "post", refusing("AccessDenied"))
        await driver.health()
        monkeypatch.setattr(AwsClient, "post", refusing("ExpiredToken"))
        with pytest.raises(Unauthenticated, match="expired"):
            await driver.health()


@pytest.mark.servers
async def test_without_create_a_missing_queue_is_an_error(moto: str, namespace: str) -> None:
    async with opened(moto, namespace, create=False) as queues:
        with pytest.raises(NotFound, match=f"{namespace}-q"):
            await queues.send("q", 1)
        assert await queues.receive("q") == []
        assert await queues.queues() == []


@pytest.mark.servers
async def test_a_queue_that_was_deleted(moto: str, namespace: str) -> None:
    async with opened(moto, namespace) as queues:
        await queues.send("q", 1)
        (held,) = await queues.receive("q")
        async with foreign(moto, f"{namespace}-q") as other:
            await asyncio.to_thread(other.client.delete_queue, QueueUrl=other.url)
        assert await queues.ack_many("q", [held.receipt]) == [False]
        assert await queues.size("q") == 0
        assert await queues.receive("q") == []
        assert await queues.purge("q") == 0
        await queues.send("q", 2)
        assert [one.value for one in await queues.receive("q", wait=5)] == [2]


@pytest.mark.servers
async def test_sending_to_a_queue_that_was_deleted(moto: str, namespace: str) -> None:
    async with opened(moto, namespace) as queues:
        await queues.send("q", 1)
        async with foreign(moto, f"{namespace}-q") as other:
            await asyncio.to_thread(other.client.delete_queue, QueueUrl=other.url)
        await queues.send("q", 2)
        assert [one.value for one in await queues.receive("q", wait=5)] == [2]


@pytest.mark.servers
async def test_dead_letters_that_sqs_refuses(moto: str, namespace: str) -> None:
    async with opened(moto, namespace) as queues:
        await queues.send("q", "x" * 2000)
        async with foreign(moto, f"{namespace}-q_x2edead") as other:
            smallest = {"MaximumMessageSize": "1024"}
            await asyncio.to_thread(other.client.set_queue_attributes, QueueUrl=other.url, Attributes=smallest)
        (held,) = await queues.receive("q")
        with pytest.raises(InvalidArgument, match="1024"):
            await queues.reject("q", held.receipt)
        await queues.ack("q", held.receipt)  # It is still held.


@pytest.mark.servers
@pytest.mark.parametrize("body", ['{"b": 2}', f'"{"x" * (1024 * 1024 - 2)}"', "no json"], ids=["short", "long", "odd"])
async def test_messages_of_others_die_as_they_came(moto: str, namespace: str, body: str) -> None:
    theirs = {
        "trace": {"DataType": "String", "StringValue": "t"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\xff"},
    }
    sent = {"MessageBody": body} | ({} if len(body) > 1000 else {"MessageAttributes": theirs})
    async with opened(moto, namespace) as queues:
        await queues.send("q", 1)
        await queues.dequeue("q")
        async with foreign(moto, f"{namespace}-q") as other:
            await asyncio.to_thread(lambda: other.client.send_message(QueueUrl=other.url, **sent))
        for held in await queues.receive("q", wait=5):
            await queues.reject("q", held.receipt, reason="no")
        assert ((await queues.stats("q")).dead, await queues.size("q")) == (1, 0)
        async with foreign(moto, f"{namespace}-q_x2edead") as other:
            (dead,) = await asyncio.to_thread(other.receive)
    found = dead.get("MessageAttributes", {})
    assert dead["Body"] == body
    assert {name: found[name] for name in found if name in theirs} == sent.get("MessageAttributes", {})


@pytest.mark.servers
@pytest.mark.parametrize("fifo", [False, True])
async def test_a_dead_letter_has_the_first_error_of_its_process(moto: str, namespace: str, fifo: bool) -> None:
    async with opened(moto, namespace, fifo=fifo, max_deliveries=3) as queues:
        await queues.send("q", 1)
        for number in range(3):
            (held,) = await queues.receive("q", wait=5)
            await queues.nack("q", held.receipt, delay=0, reason=f"error {number}")
        (dead,) = await queues.receive(names.dead("q"), wait=5)
        assert (dead.first_error, dead.last_error) == ("error 0", "error 2")


@pytest.mark.servers
async def test_a_receiver_waits_for_a_queue_to_be_made(moto: str, namespace: str) -> None:
    async with opened(moto, namespace) as here, opened(moto, namespace) as there:
        for sender in (here, there):
            queue = f"by {sender is here}"
            waiting = asyncio.create_task(here.receive(queue, wait=20))
            await asyncio.sleep(0)
            await sender.send(queue, 1)
            assert [one.value for one in await waiting] == [1]


@pytest.mark.servers
async def test_only_who_received_it_can_bury_it(moto: str, namespace: str) -> None:
    async with opened(moto, namespace) as here, opened(moto, namespace) as there:
        await here.send("q", 1)
        (held,) = await here.receive("q")
        with pytest.raises(Conflict, match="only who received it"):
            await there.reject("q", held.receipt)
        await there.extend("q", held.receipt, 100)
        await here.reject("q", held.receipt)
        assert (await here.stats("q")).dead == 1


@pytest.mark.servers
async def test_what_did_not_fit_in_memory_is_not_buried_but_answered(
    moto: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqs_held, "_MOST_BYTES", 0)
    async with opened(moto, namespace) as queues:
        await queues.send("q", 1)
        (held,) = await queues.receive("q")
        with pytest.raises(Conflict, match="only who received it"):
            await queues.reject("q", held.receipt)
        await queues.nack("q", held.receipt, delay=0)
        (held,) = await queues.receive("q", wait=5)
        await queues.ack("q", held.receipt)


@pytest.mark.servers
async def test_a_message_that_sqs_refuses_fails_alone(moto: str, namespace: str) -> None:
    async with opened(moto, namespace) as queues:
        await queues.send("q", "first")
        async with foreign(moto, f"{namespace}-q") as other:
            smallest = {"MaximumMessageSize": "1024"}
            await asyncio.to_thread(other.client.set_queue_attributes, QueueUrl=other.url, Attributes=smallest)
        sent = await queues.send_many("q", [Outbound(message=n) for n in range(10)] + [Outbound(message="x" * 2000)])
        assert [bool(one.error) for one in sent] == [False] * 10 + [True]
        assert sent[10].error.startswith("invalid_argument: ")
        with pytest.raises(InvalidArgument, match="1024"):
            await queues.send("q", "x" * 2000)


@pytest.mark.servers
@pytest.mark.parametrize("code", ["InvalidParameterValue", "InvalidAddress"])
async def test_a_lease_that_cannot_be_extended_ends_alone(
    moto: str, namespace: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    async def call(aws: AwsJson, operation: str, request: HandleBatch, answer: type[HandledBatch]) -> HandledBatch:
        if operation != "ChangeMessageVisibilityBatch":
            return await usual(aws, operation, request, answer)
        good = msgspec.structs.replace(request, entries=request.entries[1:])
        failed = Failed(id="0", code=code, message="Total VisibilityTimeout is beyond the limit [43200 seconds]")
        found = await usual(aws, operation, good, answer)
        return msgspec.structs.replace(found, failed=[*found.failed, failed])

    usual = AwsJson.call
    async with opened(moto, namespace) as queues:
        await queues.send_many("q", [Outbound(message=number) for number in range(2)])
        first, second = await queues.receive("q", max=10, wait=5, lease=1)
        with monkeypatch.context() as patched:
            patched.setattr(AwsJson, "call", call)
            if code == "InvalidParameterValue":
                assert await queues.extend_many("q", [first.receipt, second.receipt], 600) == [False, True]
            else:
                with pytest.raises(InvalidArgument, match="43200"):
                    await queues.extend_many("q", [first.receipt, second.receipt], 600)
        (again,) = await queues.receive("q", max=10, wait=20)
        assert again.id == first.id
        assert await queues.ack_many("q", [first.receipt, second.receipt]) == [False, True]


@pytest.mark.servers
async def test_tenants_are_told_to_sqs(moto: str, namespace: str) -> None:
    async with opened(moto, namespace, fair=True, groups="fair", require=[Can.FAIR]) as queues:
        await queues.send("q", 1, group="tenant é")
        await queues.send("q", 2, group="plain")
        async with foreign(moto, f"{namespace}-q") as other:
            more = {"MaxNumberOfMessages": 10, "VisibilityTimeout": 0, "MessageSystemAttributeNames": ["All"]}
            found = await asyncio.to_thread(lambda: other.receive(**more))
        assert {one["Attributes"]["MessageGroupId"] for one in found} == {token("tenant é"), "plain"}
        groups = {one.value: one.group for one in await queues.receive("q", max=10, wait=5)}
        assert groups == {1: "tenant é", 2: "plain"}


@pytest.mark.servers
async def test_a_receive_that_asks_all_servers(moto: str, namespace: str) -> None:
    async with opened(moto, namespace, ask_all=True) as queues:
        await queues.send("q", 1)
        assert [one.value for one in await queues.receive("q")] == [1]
        now = asyncio.get_running_loop().time
        began = now()
        assert await queues.receive("q") == []
        assert now() - began >= 0.9


@pytest.mark.servers
async def test_delays_beyond_twelve_hours(moto: str, namespace: str) -> None:
    async with opened(moto, namespace) as queues:
        await queues.send("q", 1)
        (held,) = await queues.receive("q")
        with pytest.raises(Unsupported, match="43200"):
            await queues.nack("q", held.receipt, delay=50_000)
        await queues.ack("q", held.receipt)


@pytest.mark.servers
async def test_purging_spares_what_is_worked_on_and_what_waits_meanwhile(moto: str, namespace: str) -> None:
    async with opened(moto, namespace) as queues:
        for number in range(25):
            await queues.send("q", number)
        await queues.send("q", "later", delay=600)
        (held,) = await queues.receive("q")
        assert await queues.purge("q") == 24
        await queues.ack("q", held.receipt)
        assert await queues.size("q") == 1
        assert await queues.purge("q") == 1  # Now nobody works on any.
        assert await queues.size("q") == 0
        assert await queues.queues() == []
        async with opened(moto, namespace) as others:
            await others.send("q", 1)
        assert await queues.queues() == ["q"]
