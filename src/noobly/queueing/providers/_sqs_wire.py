"""What SQS is asked and answers, by the names of its API: one struct for each part that is used."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

STALE = frozenset({"ReceiptHandleIsInvalid", "InvalidIdFormat", "MessageNotInflight", "InvalidParameterValue"})
"""What SQS says of a receipt that is no good; a FIFO queue says InvalidParameterValue of one that has expired."""
ABSENT = frozenset({"QueueDoesNotExist", "NonExistentQueue"})


class Shape(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """Base of all of them."""


class Value(Shape, frozen=True):
    """A message attribute: text, or bytes as base64."""

    string_value: str = ""
    binary_value: str = ""
    data_type: str = ""


def weight(attributes: Mapping[str, Value]) -> int:
    """Return the bytes of attributes as SQS counts them, names and types included."""
    return sum(
        len(name) + len(one.data_type) + len(one.string_value.encode()) + len(one.binary_value) * 3 // 4
        for name, one in attributes.items()
    )


class Entry(Shape, frozen=True):
    """A message of a batch; ``id`` counts within the batch."""

    id: str
    message_body: str
    delay_seconds: int = 0
    message_attributes: dict[str, Value] = {}
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendBatch(Shape, frozen=True):
    """SendMessageBatch."""

    queue_url: str
    entries: list[Entry]


class Stored(Shape, frozen=True):
    """A message that was stored."""

    id: str
    message_id: str = ""


class Failed(Shape, frozen=True):
    """A member of a batch that failed."""

    id: str
    code: str = ""
    message: str = ""


class SentBatch(Shape, frozen=True):
    """The answer to SendMessageBatch."""

    successful: list[Stored] = []
    failed: list[Failed] = []


class Receive(Shape, frozen=True):
    """ReceiveMessage."""

    queue_url: str
    max_number_of_messages: int
    visibility_timeout: int
    wait_time_seconds: int | None = None
    message_system_attribute_names: list[str] = msgspec.field(
        default_factory=lambda: ["ApproximateReceiveCount", "SentTimestamp", "MessageGroupId"]
    )
    message_attribute_names: list[str] = msgspec.field(default_factory=lambda: ["All"])


class Message(Shape, frozen=True):
    """A received message; ``attributes`` are those of SQS, ``message_attributes`` its sender's."""

    message_id: str
    receipt_handle: str
    body: str = ""
    attributes: dict[str, str] = {}
    message_attributes: dict[str, Value] = {}


class Received(Shape, frozen=True):
    """The answer to ReceiveMessage."""

    messages: list[Message] = []


class Handle(Shape, frozen=True):
    """A delivery of a batch, and for ChangeMessageVisibilityBatch the seconds until it is visible again."""

    id: str
    receipt_handle: str
    visibility_timeout: int | None = None


class HandleBatch(Shape, frozen=True):
    """DeleteMessageBatch and ChangeMessageVisibilityBatch."""

    queue_url: str
    entries: list[Handle]


class HandledBatch(Shape, frozen=True):
    """The answer to these."""

    failed: list[Failed] = []


class Named(Shape, frozen=True):
    """GetQueueUrl."""

    queue_name: str


class Create(Shape, frozen=True, rename={"queue_name": "QueueName", "attributes": "Attributes", "tags": "tags"}):
    """CreateQueue; SQS writes its tags small."""

    queue_name: str
    attributes: dict[str, str] = {}
    tags: dict[str, str] = {}


class Located(Shape, frozen=True):
    """The answer to both."""

    queue_url: str


class Ask(Shape, frozen=True):
    """GetQueueAttributes, PurgeQueue and ListQueueTags."""

    queue_url: str
    attribute_names: list[str] = []


class Attributes(Shape, frozen=True):
    """The answer to GetQueueAttributes."""

    attributes: dict[str, str] = {}


class SetAttributes(Shape, frozen=True):
    """SetQueueAttributes."""

    queue_url: str
    attributes: dict[str, str]


class Tagged(Shape, frozen=True):
    """The answer to ListQueueTags."""

    tags: dict[str, str] = {}


class Listing(Shape, frozen=True):
    """ListQueues."""

    max_results: int
    queue_name_prefix: str = ""
    next_token: str | None = None


class Listed(Shape, frozen=True):
    """The answer to it."""

    queue_urls: list[str] = []
    next_token: str | None = None


class Nothing(Shape, frozen=True):
    """An answer that says nothing."""
