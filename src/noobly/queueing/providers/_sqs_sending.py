"""Sending messages to SQS, in batches, and what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from noobly.clients.aws import AwsError, classify
from noobly.core.clock import Clock
from noobly.core.errors import Internal
from noobly.queueing.driver import Posted, Sent
from noobly.queueing.providers._sqs_calls import Calls, outcomes
from noobly.queueing.providers._sqs_held import Held, Memory
from noobly.queueing.providers._sqs_packing import DEDUP_WINDOW, Packing, batches
from noobly.queueing.providers._sqs_queues import Directory
from noobly.queueing.providers._sqs_wire import ABSENT, Entry, Failed

_AT_ONCE = 8

Fates = Mapping[str, "str | Failed"]
"""SQS's ids of the messages of a batch, or why they were not stored."""


class Sending:
    """Sends to queues, which are made where they are missing; remembers the dedup keys that were sent here."""

    def __init__(self, queues: Directory, calls: Calls, packing: Packing, clock: Clock) -> None:
        self._queues, self._calls, self._packing = queues, calls, packing
        self._clock = clock
        self._sent: Memory[tuple[str, str], str] = Memory(clock.monotonic)

    async def send(self, queue: str, messages: Sequence[Posted]) -> list[Sent]:
        """Send messages, in order where that is kept, and return each one's fate."""
        parts = list(batches([self._packing.pack(message) for message in messages]))
        began = self._clock.monotonic()
        works = [partial(self._send, queue, part) for part in parts]
        done = await outcomes(works, 1 if self._packing.fifo else _AT_ONCE)
        errors = [one for one in done if isinstance(one, BaseException)]
        if errors and (len(errors) == len(done) or not isinstance(errors[0], Exception)):
            raise errors[0]
        fates = [fate for part, one in zip(parts, done, strict=True) for fate in _fates(part, one)]
        return [self._told(queue, *one, began) for one in zip(messages, fates, strict=True)]

    async def bury(self, dead: str, held: Held, message: Posted, reason: str) -> None:
        """Send a delivered message to the dead letters; again is the same as once on FIFO queues.

        Raises:
            AwsError: SQS refuses it.
        """
        letter = msgspec.structs.replace(
            message,
            first_error=message.first_error or reason,
            last_error=reason or message.last_error,
            attempts=held.deliveries,
            died_at=self._clock.time(),
        )
        entry = self._packing.pack(letter, unique=held.number)
        fate = (await self._send(dead, [entry])).get(entry.id)
        if isinstance(fate, Failed):
            raise AwsError(fate.code, fate.message)

    async def _send(self, queue: str, part: Sequence[Entry]) -> Fates:
        try:
            return await self._calls.send(await self._queues.make(queue), part)
        except AwsError as error:
            if error.code not in ABSENT:
                raise
        self._queues.forget(queue)  # It was deleted meanwhile.
        return await self._calls.send(await self._queues.make(queue), part)

    def _told(self, queue: str, message: Posted, fate: str | Failed, began: float) -> Sent:
        """Return a message's fate; SQS drops duplicates without a word, and only who sent both can tell."""
        if isinstance(fate, Failed):
            return Sent(message.id, error=f"{fate.code}: {fate.message}")
        if message.dedup is None:
            return Sent(message.id)
        if earlier := self._sent.get((queue, message.dedup)):
            return Sent(earlier, duplicate=True)
        self._sent.set((queue, message.dedup), fate, began + DEDUP_WINDOW)
        return Sent(fate)


def _fates(part: Sequence[Entry], done: Fates | BaseException) -> list[str | Failed]:
    """Return what became of the messages of one batch."""
    if isinstance(done, Exception):
        error = classify(done) or Internal(f"{type(done).__name__}: {done}")
        return [Failed(id=one.id, code=error.code, message=error.message) for one in part]
    found: Fates = {} if isinstance(done, BaseException) else done
    return [found.get(one.id) or Failed(id=one.id, message="SQS says nothing of it") for one in part]
