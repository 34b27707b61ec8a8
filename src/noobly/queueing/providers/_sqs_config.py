"""The options of the SQS provider."""

from __future__ import annotations

from typing import Annotated

import msgspec

from noobly.clients.aws import AwsConfig


class SqsConfig(AwsConfig, frozen=True, kw_only=True):
    """The options of the SQS provider, besides those of AWS.

    Args:
        namespace: What the names of queues begin with; empty for the names that users give them.
        fifo: Whether queues are FIFO queues, which have order and dedup, but neither delays nor fairness.
        fair: Whether tenants are told to SQS, which then keeps one with many messages from holding up the others.
        create: Whether a queue that is missing is made with its first message, and the redrive policy raised of one
            that is there.
        retention: Seconds for which SQS keeps a message, in queues that are made here; a dead letter, 14 days.
        max_deliveries: That of the service's options: after one more, SQS itself puts a message among the dead letters.
        ask_all: Whether a receive that shall not wait asks all of SQS's servers, which takes up to a second where
            there is nothing; otherwise it asks some of them, and may miss messages.
    """

    namespace: str = "noobly"
    fifo: bool = False
    fair: bool = False
    create: bool = True
    retention: Annotated[int, msgspec.Meta(ge=60, le=1_209_600)] = 345_600
    max_deliveries: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    ask_all: bool = False
