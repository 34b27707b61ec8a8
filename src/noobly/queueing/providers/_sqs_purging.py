"""Emptying a queue in SQS without touching what somebody works on.

PurgeQueue deletes that too, works once a minute, and for a minute deletes what is sent as well; so messages are
received and deleted, and PurgeQueue is for what cannot be had in that way: delayed messages, and very many.
"""

from __future__ import annotations

from functools import partial
from math import ceil

from noobly.clients.aws import AwsError, AwsJson
from noobly.queueing.driver import Counts
from noobly.queueing.providers._sqs_calls import Calls, every, settled
from noobly.queueing.providers._sqs_packing import TOGETHER
from noobly.queueing.providers._sqs_wire import ABSENT, Ask, Nothing

_MANY = 2000
_AT_ONCE = 8
_LEASE = 60
"""Seconds within which a received message is deleted; afterwards it would come again."""
_UNDER_WAY = "PurgeQueueInProgress"


async def purge(aws: AwsJson, url: str, counts: Counts) -> int:
    """Delete the messages of a queue and return how many there were.

    While somebody works on messages, those that wait for their time, or for one of their group, stay.

    Args:
        aws: SQS.
        url: The queue.
        counts: What is in it now.
    """
    if not counts.in_flight and (counts.delayed or counts.ready > _MANY) and await _at_once(aws, url):
        return counts.ready + counts.delayed
    calls, gone = Calls(aws), 0
    while (left := counts.ready - gone) > 0 and (done := await _some(calls, url, ceil(left / TOGETHER), 1)):
        gone += done
    while counts.ready and (done := await _some(calls, url, _AT_ONCE, 0)):  # What has come back meanwhile.
        gone += done
    return gone


async def _at_once(aws: AwsJson, url: str) -> bool:
    """Let SQS delete everything; return false where it did so less than a minute ago, and will not again."""
    try:
        await aws.call("PurgeQueue", Ask(queue_url=url), Nothing)
    except AwsError as error:
        if error.code != _UNDER_WAY and error.code not in ABSENT:
            raise
        return error.code != _UNDER_WAY
    return True


async def _some(calls: Calls, url: str, times: int, wait: int) -> int:
    """Receive and delete up to 80 messages, waiting so long where there is none."""
    works = [partial(calls.receive, url, TOGETHER, _LEASE, wait)] * min(times, _AT_ONCE)
    found = [one for batch in await every(works) for one in batch]
    good = settled(await calls.delete(url, [one.receipt_handle for one in found]))
    # Standard queues may deliver a message twice.
    return len({one.message_id for one, done in zip(found, good, strict=True) if done})
