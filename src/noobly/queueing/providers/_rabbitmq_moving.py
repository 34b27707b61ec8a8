"""Storing messages anew, then acknowledging them where they were: giving back, waiting, dying and being postponed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from aio_pika.abc import AbstractIncomingMessage
from msgspec.structs import replace

from noobly.core.errors import NooblyError, Unavailable
from noobly.queueing import names
from noobly.queueing.providers._rabbitmq_holds import Hold, Holds
from noobly.queueing.providers._rabbitmq_ladder import LONGEST
from noobly.queueing.providers._rabbitmq_link import classify
from noobly.queueing.providers._rabbitmq_messages import Letter, pack
from noobly.queueing.providers._rabbitmq_names import Places
from noobly.queueing.providers._rabbitmq_roll import Roll
from noobly.queueing.providers._rabbitmq_sending import Parcel, Sending, demand
from noobly.queueing.providers._rabbitmq_tap import Tap


class Moving:
    """Puts messages where they belong. A message is stored in its new place before it is acknowledged in its old one.

    Args:
        sending: How they are stored.
        places: Where.
        roll: The names of all queues.
        holds: What is held.
        wall: Seconds since the epoch.
    """

    def __init__(self, sending: Sending, places: Places, roll: Roll, holds: Holds, wall: Callable[[], float]) -> None:
        self._sending, self._places, self._roll, self._holds, self._wall = sending, places, roll, holds, wall
        self._count: Counter[str] = Counter()

    def count(self, queue: str) -> int:
        """Return how many messages of a queue are on their way."""
        return self._count[queue]

    def delays(self, queue: str) -> list[str]:
        """Return the names of the delay queues that were made here for a queue, in the order in which messages go."""
        return [delay for delay in self._places.delays(queue) if self._sending.knows(delay)]

    async def strike(self, queue: str) -> None:
        """Take a queue off the roll."""
        demand(await self._sending.publish([self._roll.strike(queue)]), queue)

    async def publish(self, queue: str, parcels: Sequence[Parcel]) -> list[str]:
        """Store messages of a queue, and its name with the first ones."""
        entry = self._roll.enter(queue)
        try:
            failures = await self._sending.publish([*entry, *parcels])
        except BaseException:
            self._roll.doubt(queue)
            raise
        if entry:
            self._roll.seen(self._sending.length(self._places.roll().name))
        return failures[len(entry) :]

    def parcel(self, queue: str, letter: Letter) -> Parcel:
        """Return a message with where it goes now: to its queue, or to wait for a while."""
        main = self._places.main(queue)
        left = letter.due - self._wall() if letter.due else 0.0
        target = main.arguments.get("x-dead-letter-routing-key")
        also = (self._places.main(names.dead(queue)),) if target else ()
        if left <= 0:
            return Parcel(main, pack(replace(letter, due=0.0)), also)
        path = self._places.path(queue, left)
        first, *others = path.places
        # What the server counts down is due when it comes, whatever the clock of its receiver says.
        due = letter.due if left * 1000 > LONGEST else 0.0
        return Parcel(first, pack(replace(letter, due=due)), (*others, main, *also), path.exchange, path.key)

    async def postpone(
        self,
        queue: str,
        tap: Tap,
        messages: Sequence[AbstractIncomingMessage],
        early: Sequence[tuple[AbstractIncomingMessage, Letter]],
    ) -> None:
        """Let messages that came too early wait on; if that fails, all that came with them goes back."""
        try:
            with self._passing(queue, len(early)):
                failures = await self.publish(queue, [self.parcel(queue, letter) for _, letter in early])
            demand(failures, queue)
        except NooblyError:
            await each(tap, messages, "nack")
            raise
        await each(tap, [one for one, _ in early], "ack")

    @contextmanager
    def _passing(self, queue: str, count: int) -> Iterator[None]:
        """Count messages that are nowhere else to be counted while they are stored anew."""
        self._count[queue] += count
        try:
            yield
        finally:
            self._count[queue] -= count

    async def settle(self, holds: Sequence[Hold]) -> None:
        """Acknowledge, and make sure that the server knows; what is uncertain stays held, to be asked for again."""
        try:
            for tap in {hold.tap for hold in holds}:
                await _acknowledge(tap, [hold for hold in holds if hold.tap is tap])
        except Exception:
            for hold in holds:
                self._holds.restore(hold)
            raise

    async def move(self, queue: str, moves: Sequence[tuple[Hold, Parcel]]) -> None:
        """Store messages in a queue, then acknowledge them; one that could not be stored is held on."""
        failures = ["not sent"] * len(moves)
        try:
            with self._passing(moves[0][0].queue if moves else queue, len(moves)):
                failures = await self.publish(queue, [parcel for _, parcel in moves])
        finally:
            kept = [hold for (hold, _), failure in zip(moves, failures, strict=True) if failure]
            for hold in kept:
                self._holds.restore(hold)
        await self.settle([hold for hold, _ in moves if hold not in kept])
        demand(failures, queue)


def failed(hold: Hold, reason: str) -> Letter:
    """Return what is stored of a delivery that failed."""
    letter = hold.letter
    if not reason:
        return letter
    first = letter.message.first_error or reason
    return replace(letter, message=replace(letter.message, first_error=first, last_error=reason))


async def _acknowledge(tap: Tap, holds: Sequence[Hold]) -> None:
    """Acknowledge, once: the server closes a channel on which it is done twice."""
    fresh = [hold.incoming for hold in holds if not hold.answered]
    for hold in holds:
        hold.answered = True
    await each(tap, fresh, "ack")
    await tap.settled()


async def each(tap: Tap, messages: Sequence[AbstractIncomingMessage], how: str) -> None:
    """Answer deliveries: ``ack``; ``reject``, which counts as a failed delivery; ``nack``, which may not.

    The difference is RabbitMQ's since 4.3 (https://www.rabbitmq.com/docs/nack); before, both count.

    Raises:
        Unavailable: The channel was closed, so the server has taken them back.
    """
    await tap.ended()
    try:
        for message in messages:
            tag = message.delivery_tag or 0
            if how == "ack":
                await message.channel.basic_ack(tag, wait=False)
            elif how == "reject":
                await message.channel.basic_reject(tag, requeue=True, wait=False)
            else:
                await message.channel.basic_nack(tag, requeue=True, wait=False)
    except Exception as error:
        raise classify(error) or Unavailable("RabbitMQ has taken the messages back") from error
