"""The SQS provider: standard and FIFO queues of Amazon's Simple Queue Service.

SQS counts in whole seconds, so leases, delays and waits are rounded up. A FIFO queue keeps the order of groups only
among messages that are received one by one, so it takes a call for each. SQS forgets the lease of a receipt, so this
process keeps it: a receipt is refused once its lease has ended or the message was delivered again here. Of a receipt
that another process gave out SQS decides, and a standard queue may take an old one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from math import ceil
from typing import TypeAlias

import msgspec

from noobly.clients.aws import AwsClient, AwsError, AwsJson, classify
from noobly.core.checks import Limits
from noobly.core.errors import Conflict, NooblyError, PermissionDenied, Unsupported
from noobly.core.scope import Environment
from noobly.queueing.driver import Can, Counts, Failure, Leased, Posted, Sent
from noobly.queueing.providers._sqs_calls import Calls, Outcome, beyond, settled
from noobly.queueing.providers._sqs_config import SqsConfig
from noobly.queueing.providers._sqs_held import Held, Memory, Receipts
from noobly.queueing.providers._sqs_names import Naming
from noobly.queueing.providers._sqs_packing import MOST_BYTES, TOGETHER, Packing, foreign
from noobly.queueing.providers._sqs_purging import purge
from noobly.queueing.providers._sqs_queues import Directory, Making
from noobly.queueing.providers._sqs_receiving import Arrival, Claim, Receiving
from noobly.queueing.providers._sqs_sending import Sending
from noobly.queueing.providers._sqs_wire import ABSENT

_LONGEST = 43_200
"""Seconds for which SQS hides a message at most."""
_PROBE = "health"
_READY, _DELAYED, _HELD = (f"ApproximateNumberOfMessages{kind}" for kind in ("", "Delayed", "NotVisible"))

Call: TypeAlias = Callable[[str, Sequence[int]], Awaitable[list[Outcome]]]
"""Asks SQS, at a queue's URL, for some of several receipts, by their places."""


class SqsQueues:
    """Queues in SQS, each with one for its dead letters, under names that SQS takes."""

    Config = SqsConfig
    scheme = "sqs"
    in_process = False
    limits = Limits(value_bytes=MOST_BYTES - 32 * 1024)
    features = frozenset({Can.DELAY})

    def __init__(self, config: SqsConfig, environment: Environment) -> None:
        if config.fifo:
            self.features = frozenset({Can.ORDER, Can.DEDUP})
        elif config.fair:
            self.features = frozenset({Can.DELAY, Can.FAIR})
        self._config = config
        self._now = environment.clock.monotonic
        self._client = AwsClient("sqs", config)
        self._aws = AwsJson(self._client)
        self._calls = Calls(self._aws)
        self._packing = Packing(fifo=config.fifo, fair=config.fair)
        self._naming = Naming(config.namespace, fifo=config.fifo)
        making = Making(
            create=config.create,
            fifo=config.fifo,
            retention=config.retention,
            receives=min(config.max_deliveries + 1, 1000),
        )
        self._queues = Directory(self._aws, self._naming, making)
        together = 1 if config.fifo else TOGETHER
        self._receiving = Receiving(self._queues, self._calls, together, self._now)
        self._receipts = Receipts(self._now)
        self._sending = Sending(self._queues, self._calls, self._packing, environment.clock)
        self._resting: Memory[str, str] = Memory(self._now)
        self._purged: set[str] = set()

    async def start(self, stack: AsyncExitStack) -> None:
        """Find endpoint and credentials, and close the connections at the stack's end."""
        await self._client.start(stack)
        stack.push_async_callback(self._receiving.close)

    def classify(self, error: Exception) -> NooblyError | None:
        """Map what AWS refuses and what the connection raises."""
        return classify(error)

    async def send(self, queue: str, messages: Sequence[Posted], /) -> list[Sent]:
        """See the protocol; where a batch fails and others do not, its messages have the error.

        Raises:
            Unsupported: A delay or the dedup window is none that SQS has.
            TooLarge: A message is too long with all that travels beside it.
        """
        sent = await self._sending.send(queue, messages)
        self._purged.discard(queue)
        return sent

    async def receive(self, queue: str, most: int, lease: float, wait: float, /) -> list[Leased]:
        """See the protocol."""
        now = asyncio.get_running_loop().time
        began = now()
        url = await (self._queues.wait(queue, began + wait) if wait else self._queues.find(queue))
        if url is None:
            return []
        left = ceil(max(0.0, began + wait - now()))
        claim = Claim(queue, url, max(1, ceil(lease)))
        found = await self._receiving.receive(claim, most, left or int(self._config.ask_all))
        return sorted((self._leased(queue, one) for one in found), key=lambda one: one.sent_at)

    def _leased(self, queue: str, arrival: Arrival) -> Leased:
        found = arrival.message
        message = self._packing.unpack(found)
        deliveries = int(found.attributes.get("ApproximateReceiveCount", "1"))
        self._resting.drop(found.message_id)
        held = Held(
            queue=queue,
            handle=found.receipt_handle,
            number=found.message_id,
            message=message,
            foreign=foreign(found),
            deliveries=deliveries,
            until=arrival.until,
        )
        sent_at = int(found.attributes.get("SentTimestamp", "0")) / 1000
        return Leased(message=message, receipt=self._receipts.add(held), deliveries=deliveries, sent_at=sent_at)

    async def ack(self, queue: str, receipts: Sequence[str], /) -> list[bool]:
        """See the protocol."""
        with self._receipts.taken(queue, receipts) as taken:
            handles = self._handles(receipts, taken)
            done = await self._ask(
                queue, handles, lambda url, chosen: self._calls.delete(url, [handles[one] for one in chosen])
            )
            good = settled(done)
        for held, gone in zip(taken, good, strict=True):
            if held is not None and gone:
                self._sending.forget(held)
        return good

    async def nack(self, queue: str, failures: Sequence[Failure], /) -> list[bool]:
        """See the protocol.

        Raises:
            Unsupported: A delay is over 12 hours.
        """
        pauses = [_pause(failure.delay) for failure in failures]
        receipts = [failure.receipt for failure in failures]
        with self._receipts.taken(queue, receipts) as taken:
            good = settled(await self._hide(queue, self._handles(receipts, taken), pauses))
        for held, failure, pause, came in zip(taken, failures, pauses, good, strict=True):
            if held is not None and came:
                self._sending.given_back(held, failure.reason)
                if pause:
                    self._resting.set(held.number, queue, self._now() + pause)
        return good

    async def extend(self, queue: str, receipts: Sequence[str], lease: float, /) -> list[bool]:
        """See the protocol; one that would be held for over 12 hours since it was received is not extended."""
        held = [self._receipts.get(queue, receipt) for receipt in receipts]
        seconds = max(1, _pause(lease))
        done = await self._hide(queue, self._handles(receipts, held), [seconds] * len(held))
        for receipt, one in zip(receipts, done, strict=True):
            if one is True:
                self._receipts.extend(receipt, seconds)
        return settled([False if beyond(one) else one for one in done])

    def _handles(self, receipts: Sequence[str], held: Sequence[Held | None]) -> list[str]:
        return [self._receipts.handle(*one) for one in zip(receipts, held, strict=True)]

    async def _hide(self, queue: str, handles: Sequence[str], pauses: Sequence[int]) -> list[Outcome]:
        async def hide(url: str, chosen: Sequence[int]) -> list[Outcome]:
            return await self._calls.hide(url, [(handles[one], pauses[one]) for one in chosen])

        return await self._ask(queue, handles, hide)

    async def _ask(self, queue: str, handles: Sequence[str], call: Call) -> list[Outcome]:
        """Return what became of each handle; one that is empty is no good."""
        chosen = [number for number, handle in enumerate(handles) if handle]
        url = await self._queues.find(queue) if chosen else None
        done = dict(zip(chosen, await call(url, chosen), strict=True)) if url else {}
        return [done.get(number, False) for number in range(len(handles))]

    async def bury(self, queue: str, dead: str, failure: Failure, /) -> bool:
        """See the protocol: the message is sent to the dead letters and then deleted, and may be in both if that fails.

        Raises:
            Conflict: Another process received the message, or this one has no room to remember it.
        """
        with self._receipts.taken(queue, [failure.receipt]) as (held,):
            if held is None and not self._receipts.handle(failure.receipt, None):
                return False
            if held is None or held.message is None:
                raise Conflict(
                    f"the receipt of queue {queue!r} does not say what the message is, and this process does not know;"
                    " only who received it can put it among the dead letters"
                )
            await self._sending.bury(dead, held, held.message, failure.reason)
            self._purged.discard(dead)
            deleted = await self._ask(queue, [held.handle], lambda url, _: self._calls.delete(url, [held.handle]))
            (gone,) = settled(deleted)
        self._sending.forget(held)
        return gone

    async def counts(self, queue: str, /) -> Counts:
        """See the protocol; messages that others gave back for later count as held."""
        found = await self._counted(queue)
        resting = min(found.in_flight, self._resting.count(queue))
        return msgspec.structs.replace(found, delayed=found.delayed + resting, in_flight=found.in_flight - resting)

    async def _counted(self, queue: str) -> Counts:
        url = await self._queues.find(queue)
        if url is None:
            return Counts()
        try:
            found = await self._queues.attributes(url, [_READY, _DELAYED, _HELD])
        except AwsError as error:
            if error.code not in ABSENT:
                raise
            self._queues.forget(queue)
            return Counts()
        ready, delayed, held = (int(found.get(name, "0")) for name in (_READY, _DELAYED, _HELD))
        return Counts(ready=ready, delayed=delayed, in_flight=held)

    async def purge(self, queue: str, /) -> int:
        """See the protocol; while messages are under a lease, delayed ones and the rest of their groups stay."""
        counts = await self.counts(queue)
        url = await self._queues.find(queue)
        if url is None:
            return 0
        self._purged.add(queue)
        return await purge(self._aws, url, counts)

    async def queues(self) -> list[str]:
        """See the protocol; a purged queue is still there, so of those that others have purged nobody knows."""
        found = await self._queues.all()
        empty = [queue for queue in self._purged.intersection(found) if await self._empty(queue)]
        return [queue for queue in found if queue not in empty]

    async def _empty(self, queue: str) -> bool:
        return await self._counted(queue) == Counts()

    async def health(self) -> None:
        """See the protocol; asks where a queue is, and an answer that this must not be asked is an answer too."""
        self._queues.forget(_PROBE)
        try:
            await self._queues.find(_PROBE)
        except AwsError as error:
            if not isinstance(classify(error), PermissionDenied):
                raise


def _pause(seconds: float) -> int:
    if seconds > _LONGEST:
        raise Unsupported(f"SQS hides a message for {_LONGEST} seconds at most, not {seconds:g}")
    return ceil(seconds)
