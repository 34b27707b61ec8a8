"""Sending messages to SQS, in batches, and what becomes of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import msgspec

from noobly.clients.aws import AwsError, classify
from noobly.core.clock import Clock
from noobly.core.errors import Internal, NooblyError, Unavailable
from noobly.queueing.driver import Posted, Sent
from noobly.queueing.providers._sqs_calls import Calls, Work, outcomes
from noobly.queueing.providers._sqs_held import Held, Memory
from noobly.queueing.providers._sqs_packing import DEDUP_WINDOW, Packing, batches
from noobly.queueing.providers._sqs_queues import Directory
from noobly.queueing.providers._sqs_wire import ABSENT, Entry

_AT_ONCE = 8
_LONGEST_RETENTION = 1_209_600
"""Seconds for which SQS keeps a message at most."""
_MOST_ERRORS = 10_000

_HELD_BACK = "it was not sent, for a message before it was not stored; send what failed again, in order"

Fates: TypeAlias = list[str | AwsError]
"""SQS's ids of the messages of a batch, or why they were not stored."""


class Sending:
    """Sends to queues, which are made where they are missing; remembers this process' dedup keys and first errors."""

    def __init__(self, queues: Directory, calls: Calls, packing: Packing, clock: Clock) -> None:
        self._queues, self._calls, self._packing = queues, calls, packing
        self._clock = clock
        self._sent: Memory[tuple[str, str], str] = Memory(clock.monotonic)
        self._errors: Memory[str, str] = Memory(clock.monotonic, _MOST_ERRORS)

    async def send(self, queue: str, messages: Sequence[Posted]) -> list[Sent]:
        """Send messages, in order where that is kept, and return each one's fate.

        Raises:
            AwsError: Nothing was stored; why the first one was not.
        """
        parts = list(batches([self._packing.pack(message) for message in messages]))
        began = self._clock.monotonic()
        works = [partial(self._send, queue, part) for part in parts]
        done = await (_in_order(works) if self._packing.fifo else outcomes(works, _AT_ONCE))
        fates: list[str | BaseException] = []
        for part, one in zip(parts, done, strict=True):
            fates += [one] * len(part) if isinstance(one, BaseException) else one
        failed = [fate for fate in fates if isinstance(fate, BaseException)]
        if failed and (len(failed) == len(fates) or not all(isinstance(one, Exception) for one in failed)):
            raise failed[0]
        return [self._sent_as(queue, *one, began) for one in zip(messages, fates, strict=True)]

    async def bury(self, dead: str, held: Held, message: Posted, reason: str) -> None:
        """Send a delivered message to the dead letters; again is the same as once on FIFO queues.

        Its first error is the first one this process knows of.

        Raises:
            AwsError: SQS refuses it.
        """
        letter = msgspec.structs.replace(
            message,
            first_error=message.first_error or self._errors.get(held.number) or reason,
            last_error=reason or message.last_error,
            attempts=held.deliveries,
            died_at=self._clock.time(),
        )
        entry = self._packing.letter(letter, held.foreign, held.number)
        (fate,) = await self._send(dead, [entry])
        if isinstance(fate, AwsError):
            raise fate

    def given_back(self, held: Held, reason: str) -> None:
        """Remember why a message was first given back, for its dead letter; SQS has no place for it."""
        if reason and self._errors.get(held.number) is None:
            self._errors.set(held.number, reason, self._clock.monotonic() + _LONGEST_RETENTION)

    def forget(self, held: Held) -> None:
        """Forget that, for the message is gone."""
        self._errors.drop(held.number)

    async def _send(self, queue: str, part: Sequence[Entry]) -> Fates:
        try:
            return await self._calls.send(await self._queues.make(queue), part)
        except AwsError as error:
            if error.code not in ABSENT:
                raise
        self._queues.forget(queue)  # It was deleted meanwhile.
        return await self._calls.send(await self._queues.make(queue), part)

    def _sent_as(self, queue: str, message: Posted, fate: str | BaseException, began: float) -> Sent:
        """Return a message's fate; SQS drops duplicates without a word, and only who sent both can tell."""
        if isinstance(fate, BaseException):
            return Sent(message.id, error=_told(fate))
        if message.dedup is None:
            return Sent(message.id)
        if earlier := self._sent.get((queue, message.dedup)):
            return Sent(earlier, duplicate=True)
        self._sent.set((queue, message.dedup), fate, began + DEDUP_WINDOW)
        return Sent(fate)


async def _in_order(works: Sequence[Work[Fates]]) -> list[Fates | BaseException]:
    """Send batches one after another, until a message is not stored: what is behind it must not overtake it."""
    done: list[Fates | BaseException] = []
    for work in works:
        (one,) = await outcomes([work], 1)
        done.append(one)
        if isinstance(one, BaseException) or any(isinstance(fate, AwsError) for fate in one):
            break
    return done + [Unavailable(_HELD_BACK)] * (len(works) - len(done))


def _told(fate: BaseException) -> str:
    """Return why a message was not stored."""
    error = fate if isinstance(fate, NooblyError) else classify(fate) if isinstance(fate, Exception) else None
    error = error or Internal(f"{type(fate).__name__}: {fate}")
    return f"{error.code}: {error.message}"
