"""How queues behave where a call does not say."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from noobly.core.config import Config

Positive = Annotated[float, msgspec.Meta(gt=0, lt=1e10)]


class QueueOptions(Config, frozen=True, kw_only=True):
    """The options of queueing, in ``noobly.toml``, in ``open_queues`` or in the URL.

    Args:
        lease: Seconds a delivery is held for its receiver, who may extend it.
        max_deliveries: How often a message is delivered before it goes to the dead letters.
        backoff: Seconds of the first pause before a message that was given back is delivered again; the next is twice
            as long, each drawn from [0, pause).
        backoff_cap: The longest pause, in seconds.
        dedup_window: Seconds for which a ``dedup`` key is remembered.
        ttl: Seconds after which a message that nobody has received is dropped; None for never.
        groups: What ``group`` means: ``ordered``: its messages are delivered one after another, in order; ``fair``: it
            is a tenant, and tenants are served in turn, among them those without one, together; ``both``: ordered
            within, in turn between them.
        group_failure: What a message of an ordered group does that was given back: ``block``: its group waits for it;
            ``dead``: it goes to the dead letters at once, and the group goes on.
        codec: ``json`` or ``msgpack``, for messages that are not bytes.
        message_bytes: The longest message in bytes.
        depth_queues: Queues whose depth and age ``/metrics`` shows, the first ones by name; each scrape asks the store
            for them, at most every 5 seconds. 0 for none.
    """

    lease: Annotated[float, msgspec.Meta(ge=0.01, le=43_200)] = 30.0
    max_deliveries: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    backoff: Positive = 1.0
    backoff_cap: Positive = 300.0
    dedup_window: Positive = 300.0
    ttl: Positive | None = None
    groups: Literal["ordered", "fair", "both"] = "ordered"
    group_failure: Literal["block", "dead"] = "block"
    codec: Literal["json", "msgpack"] = "json"
    message_bytes: Annotated[int, msgspec.Meta(ge=1, le=64 * 1024 * 1024)] = 1024 * 1024
    depth_queues: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 100
