"""The parts of the SQS provider: names, sizes, and how it takes what SQS answers."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noobly.clients.aws import AwsError
from noobly.core.config import load, parse_url
from noobly.core.errors import ConfigError, TooLarge, Unsupported
from noobly.core.scope import Environment
from noobly.queueing import Can
from noobly.queueing.driver import Counts, Posted
from noobly.queueing.providers._sqs_calls import Calls, outcomes, settled
from noobly.queueing.providers._sqs_names import Naming, token, told
from noobly.queueing.providers._sqs_packing import MOST_BYTES, Packing, batches, foreign
from noobly.queueing.providers._sqs_purging import purge
from noobly.queueing.providers._sqs_queues import Directory, Making
from noobly.queueing.providers._sqs_wire import Entry, Message, Value
from noobly.queueing.providers.sqs import SqsConfig, SqsQueues

from .aws_script import scripted

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
FITTING = r"[A-Za-z0-9_-]{1,80}"


# Names


@given(NAMES, st.booleans())
def test_a_name_fits_and_comes_back(name: str, fifo: bool) -> None:
    naming = Naming("app", fifo=fifo)
    place = naming.place(name)
    assert len(place.name) <= 80
    assert set(place.name.removesuffix(".fifo")) <= set(
        map(chr, (*range(48, 58), *range(65, 91), *range(97, 123), 45, 95))
    )
    assert place.name.endswith(".fifo") == fifo
    assert (told(place.tags) if naming.digested(place.name) else naming.queue(place.name)) == name
    assert bool(place.tags) == naming.digested(place.name)
    assert all(len(value) <= 256 for value in place.tags.values())


@given(NAMES, NAMES)
def test_two_names_have_two_places(one: str, other: str) -> None:
    naming = Naming("", fifo=False)
    assert (naming.place(one).name == naming.place(other).name) == (one == other)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("orders", "app-orders"),
        ("my_queue-2", "app-my_queue-2"),
        ("orders.dead", "app-orders_x2edead"),
        ("a_x2eb", "app-a_x5fx2eb"),
        ("é", "app-_xc3_xa9"),
    ],
)
def test_names_stay_readable(name: str, place: str) -> None:
    assert Naming("app", fifo=False).place(name).name == place


def test_names_of_others_are_none_of_ours() -> None:
    assert Naming("app", fifo=False).queue("other-orders") is None
    assert Naming("app", fifo=False).queue("app-orders.fifo") is None
    assert Naming("app", fifo=True).queue("app-orders") is None
    assert Naming("", fifo=False).queue("orders") == "orders"
    with pytest.raises(ConfigError, match="too long"):
        Naming("n" * 60, fifo=False)


@given(NAMES, NAMES)
def test_groups_and_keys_fit(one: str, other: str) -> None:
    assert 1 <= len(token(one)) <= 128
    assert all("!" <= character <= "~" for character in token(one))
    assert (token(one) == token(other)) == (one == other)


# Packing

PACKING = Packing(fifo=False, fair=False)
FIFO = Packing(fifo=True, fair=False)


def received(entry: Entry, group: str = "") -> Message:
    """Return an entry as SQS hands it out."""
    return Message(
        message_id="sqs-id",
        receipt_handle="handle",
        body=entry.message_body,
        attributes={"MessageGroupId": entry.message_group_id or group},
        message_attributes=entry.message_attributes,
    )


@given(st.binary(max_size=200), st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_a_message_comes_back(body: bytes, text: str) -> None:
    posted = Posted(id="id", body=body, headers=text, first_error=text, last_error=text, attempts=3, died_at=1.5)
    entry = PACKING.pack(posted)
    for part in (entry.message_body, entry.message_attributes["noobly.message"].string_value):
        assert part
        assert all(character in "\t\n\r" or " " <= character < "\ufffe" or character > "\uffff" for character in part)
    assert PACKING.unpack(received(entry)) == posted


def test_text_stays_text_and_bytes_say_so() -> None:
    assert PACKING.pack(Posted(id="i", body='{"é": 1}'.encode())).message_body == '{"é": 1}'
    assert list(PACKING.pack(Posted(id="i", body=b"1")).message_attributes) == ["noobly.message"]
    for body, text, encoding in ((b"\xff\x00", "/wA=", "base64"), (b"\x00", "AA==", "base64"), (b"", "-", "empty")):
        entry = PACKING.pack(Posted(id="i", body=body))
        assert (entry.message_body, entry.message_attributes["noobly.encoding"].string_value) == (text, encoding)


def test_a_message_of_somebody_else() -> None:
    message = Message(message_id="m", receipt_handle="h", body="[1]", attributes={"MessageGroupId": "g"})
    assert PACKING.unpack(message) == Posted(id="m", body=b"[1]")
    assert FIFO.unpack(message) == Posted(id="m", body=b"[1]", group="g")
    assert Packing(fifo=False, fair=True).unpack(message) == Posted(id="m", body=b"[1]", tenant="g")


def test_what_travels_beside_may_be_broken() -> None:
    entry = PACKING.pack(Posted(id="i", body=b"\xff"))
    broken = {name: msgspec.structs.replace(one, string_value="{") for name, one in entry.message_attributes.items()}
    message = msgspec.structs.replace(received(entry), body="é", message_attributes=broken)
    assert PACKING.unpack(message) == Posted(id="sqs-id", body="é".encode())
    damaged = msgspec.structs.replace(received(entry), body="no base64!")
    assert PACKING.unpack(damaged).body == b"no base64!"


def test_delays_are_whole_seconds_up_to_15_minutes() -> None:
    assert [PACKING.pack(Posted(id="i", body=b"1", delay=one)).delay_seconds for one in (0, 0.01, 1.5, 900)] == [
        0, 1, 2, 900,
    ]  # fmt: skip
    with pytest.raises(Unsupported, match="schedule"):
        PACKING.pack(Posted(id="i", body=b"1", delay=900.5))


def test_the_groups_and_keys_of_fifo_queues() -> None:
    one, other = (FIFO.pack(Posted(id="same", body=b"1")) for _ in range(2))
    assert one.message_group_id != other.message_group_id
    assert one.message_deduplication_id != other.message_deduplication_id
    entry = FIFO.pack(Posted(id="i", body=b"1", group="g", dedup="key", window=300))
    assert (entry.message_group_id, entry.message_deduplication_id) == ("g", "key")
    odd = FIFO.pack(Posted(id="i", body=b"1", group="é"))
    assert FIFO.unpack(received(odd)).group == "é"
    assert FIFO.letter(Posted(id="i", body=b"1"), {}, "u").message_deduplication_id == "u"
    with pytest.raises(Unsupported, match="dedup_window to 300"):
        FIFO.pack(Posted(id="i", body=b"1", dedup="key", window=60))


def test_a_message_with_a_key_has_the_id_of_sqs() -> None:
    entry = FIFO.pack(Posted(id="mine", body=b"1", dedup="key", window=300))
    assert FIFO.unpack(received(entry)).id == "sqs-id"


def test_sizes() -> None:
    most = SqsQueues.limits.value_bytes
    assert PACKING.pack(Posted(id="i", body=b"x" * most))
    with pytest.raises(TooLarge, match=str(MOST_BYTES)):
        PACKING.pack(Posted(id="i", body=b"\xff" * most))
    with pytest.raises(TooLarge):
        PACKING.pack(Posted(id="i", body=b"x" * (MOST_BYTES - 1000)))
    assert PACKING.pack(Posted(id="i", body=b"x" * most, headers="h" * 16_000, last_error="e" * 1000, died_at=1.0))


def letter(body: bytes, attributes: dict[str, Value], error: str = "") -> Entry:
    message = Message(message_id="m", receipt_handle="h", body=body.decode(), message_attributes=attributes)
    posted = msgspec.structs.replace(PACKING.unpack(message), first_error=error, last_error=error, died_at=1.0)
    return PACKING.letter(posted, foreign(message), "m")


@pytest.mark.parametrize(("room", "kept"), [(4000, 1000), (600, 100), (200, 0)])
def test_a_dead_letter_keeps_what_there_is_room_for_of_its_errors(room: int, kept: int) -> None:
    entry = letter(b"x" * (MOST_BYTES - room), {}, "e" * 1000)
    found = PACKING.unpack(received(entry))
    assert (found.first_error, found.last_error, found.died_at) == ("e" * kept, "e" * kept, 1.0)


def test_a_dead_letter_without_room_for_anything_is_what_came() -> None:
    text = {"trace": Value(string_value="t", data_type="String")}
    full = {f"a{number}": Value(string_value="v", data_type="String") for number in range(10)}
    assert letter(b"x" * MOST_BYTES, {}).message_attributes == {}
    assert letter(b"x" * (MOST_BYTES - 12), text).message_attributes == text
    assert letter(b"x", full).message_attributes == full


def test_a_dead_letter_keeps_the_attributes_of_others() -> None:
    theirs = {
        "trace": Value(string_value="t", data_type="String"),
        "bytes": Value(binary_value="eA==", data_type="Binary"),
    }
    entry = letter(b"x", theirs | PACKING.pack(Posted(id="i", body=b"\xff")).message_attributes)
    assert set(entry.message_attributes) == {*theirs, "noobly.message"}
    assert {name: entry.message_attributes[name] for name in theirs} == theirs


def test_batches_have_ten_messages_and_a_mebibyte() -> None:
    small = [PACKING.pack(Posted(id=str(one), body=b"1")) for one in range(25)]
    assert [[one.id for one in batch] for batch in batches(small)] == [
        [str(one) for one in range(size)] for size in (10, 10, 5)
    ]
    long = [PACKING.pack(Posted(id="i", body=b"x" * 400_000)) for _ in range(5)]
    assert [len(batch) for batch in batches(long)] == [2, 2, 1]
    assert list(batches([])) == []


# Calls


async def test_after_an_error_nothing_more_is_begun() -> None:
    begun: list[int] = []

    async def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise AwsError("InternalError")
        return number

    done = await outcomes([lambda number=number: work(number) for number in range(6)], 2)
    assert begun == [0, 1]
    assert done[0] == 0
    assert all(isinstance(one, AwsError) for one in done[1:])


async def test_somebody_else_makes_the_queue_meanwhile() -> None:
    url = {"QueueUrl": "http://x/1/q"}
    for code in ("QueueNameExists", "QueueAlreadyExists"):
        aws = scripted(GetQueueUrl=["QueueDoesNotExist", url], CreateQueue=[code])
        making = Making(create=True, fifo=False, retention=60, receives=6)
        assert await Directory(aws, Naming("", fifo=False), making).make("q.dead") == "http://x/1/q"
        assert aws.calls == ["GetQueueUrl", "CreateQueue", "GetQueueUrl"]


async def test_many_senders_make_a_queue_once_and_many_receivers_look_in_turn() -> None:
    aws = scripted(GetQueueUrl=["QueueDoesNotExist"], CreateQueue=[{"QueueUrl": "http://x/1/q"}])
    directory = Directory(aws, Naming("", fifo=False), Making(create=True, fifo=False, retention=60, receives=6))
    until = asyncio.get_running_loop().time() + 20
    waiting = [asyncio.create_task(directory.wait("q.dead", until)) for _ in range(20)]
    await asyncio.sleep(0)
    made = await asyncio.gather(*(directory.make("q.dead") for _ in range(20)))
    assert {*made, *await asyncio.gather(*waiting)} == {"http://x/1/q"}
    assert aws.calls.count("CreateQueue") == 1
    assert aws.calls.count("GetQueueUrl") <= 3


async def test_listing_goes_on_from_page_to_page() -> None:
    pages: list[object] = [
        {"QueueUrls": ["http://x/1/app-b", "http://x/1/other"], "NextToken": "t"},
        {"QueueUrls": ["http://x/1/app-a"]},
    ]
    making = Making(create=True, fifo=False, retention=60, receives=6)
    assert await Directory(scripted(ListQueues=pages), Naming("app", fifo=False), making).all() == ["a", "b"]


@pytest.mark.parametrize(
    ("code", "counts", "gone", "calls"),
    [
        (None, Counts(ready=5, delayed=2), 7, ["PurgeQueue"]),
        (None, Counts(ready=1_000_000), 1_000_000, ["PurgeQueue"]),
        ("QueueDoesNotExist", Counts(ready=5, delayed=2), 7, ["PurgeQueue"]),
        ("PurgeQueueInProgress", Counts(delayed=2), 0, ["PurgeQueue"]),
        (None, Counts(delayed=2, in_flight=1), 0, []),
        (None, Counts(), 0, []),
    ],
)
async def test_purging_takes_the_way_that_spares_most(
    code: str | None, counts: Counts, gone: int, calls: list[str]
) -> None:
    aws = scripted(PurgeQueue=[code or {}])
    assert await purge(aws, "url", counts) == gone
    assert aws.calls == calls


async def test_purging_by_receiving() -> None:
    one = {"Messages": [{"MessageId": "m", "ReceiptHandle": "h"}]}
    aws = scripted(PurgeQueue=["PurgeQueueInProgress"], ReceiveMessage=[one, {}], DeleteMessageBatch=[{}])
    assert await purge(aws, "url", Counts(ready=1, delayed=1)) == 1
    with pytest.raises(AwsError, match="AccessDenied"):
        await purge(scripted(PurgeQueue=["AccessDenied"]), "url", Counts(delayed=1))


async def test_failures_within_a_batch() -> None:
    async def deleted(code: str, message: str = "") -> list[bool]:
        failed = {"Failed": [{"Id": "1", "Code": code, "Message": message}]}
        return settled(await Calls(scripted(DeleteMessageBatch=[failed])).delete("url", ["a", "b"]))

    assert await deleted("ReceiptHandleIsInvalid") == [True, False]
    assert await deleted("InvalidParameterValue", "The receipt handle has expired.") == [True, False]
    with pytest.raises(AwsError, match="InternalError"):
        await deleted("InternalError")
    with pytest.raises(AwsError, match="VisibilityTimeout"):
        await deleted("InvalidParameterValue", "Total VisibilityTimeout is beyond the limit")


async def test_each_delivery_has_its_outcome() -> None:
    failed: list[object] = [{"Failed": [{"Id": "3", "Code": "InternalError"}]}, "RequestThrottled"]
    done = await Calls(scripted(ChangeMessageVisibilityBatch=failed)).hide("url", [("h", 1)] * 12)
    assert [one is True for one in done] == [True] * 3 + [False] + [True] * 6 + [False] * 2
    assert [str(one) for one in done if one is not True] == ["InternalError"] + ["RequestThrottled"] * 2


# Options


def test_options_of_the_url() -> None:
    config = load(SqsConfig, parse_url("sqs://eu-west-1?namespace=app&fifo=true&retention=60&create=false"), {})
    assert (config.region, config.namespace, config.fifo, config.retention) == ("eu-west-1", "app", True, 60)
    with pytest.raises(ConfigError, match="retention"):
        load(SqsConfig, parse_url("sqs://eu-west-1?retention=59"), {})
    with pytest.raises(ConfigError, match="access_key"):
        load(SqsConfig, parse_url("sqs://eu-west-1?access_key=x"), {})


def test_what_each_kind_of_queue_can() -> None:
    def features(**options: bool) -> frozenset[Can]:
        return SqsQueues(SqsConfig(**options), Environment()).features

    assert features() == {Can.DELAY}
    assert features(fair=True) == {Can.DELAY, Can.FAIR}
    assert features(fifo=True) == {Can.ORDER, Can.DEDUP}
