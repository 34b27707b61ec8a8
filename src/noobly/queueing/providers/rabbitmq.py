"""The RabbitMQ provider: quorum queues, publisher confirms, and leases kept in this process.

RabbitMQ knows no leases: a message is held by the connection that received it. So a receipt is good only in the process
that received it, and a message whose receiver dies comes again when the server notices. A message can be held for
``longest_lease`` seconds, which must be less than the server's ``consumer_timeout``. Delays are counted down in the
server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity
from msgspec.structs import replace

from noobly.core.checks import Limits
from noobly.core.errors import NooblyError
from noobly.core.lifecycle import Tasks
from noobly.core.scope import Environment
from noobly.queueing.driver import Can, Counts, Failure, Leased, Posted, Sent
from noobly.queueing.providers._rabbitmq_config import RabbitmqConfig, limit
from noobly.queueing.providers._rabbitmq_desk import Desk
from noobly.queueing.providers._rabbitmq_holds import Hold, Holds
from noobly.queueing.providers._rabbitmq_link import RabbitLink, classify, uncut
from noobly.queueing.providers._rabbitmq_messages import Letter, returns, unpack
from noobly.queueing.providers._rabbitmq_moving import Moving, each, failed
from noobly.queueing.providers._rabbitmq_names import Places
from noobly.queueing.providers._rabbitmq_receiving import LOOK, Taps
from noobly.queueing.providers._rabbitmq_roll import Roll
from noobly.queueing.providers._rabbitmq_sending import Sending, demand
from noobly.queueing.providers._rabbitmq_tap import Tap, Waiting

_MOST_BYTES = 16 * 1024 * 1024
"""What RabbitMQ 4 takes by default."""
_GRACE = 1.0
"""Seconds that receivers have when the provider is closed."""


class RabbitmqQueues:
    """Queues on RabbitMQ 3.10 or later. Sending and receiving have connections of their own.

    Of messages under a lease, and of delayed ones, ``counts`` knows only those that this process holds and has delayed.
    """

    Config = RabbitmqConfig
    scheme = "rabbitmq"
    in_process = False
    limits = Limits(value_bytes=_MOST_BYTES)
    features = frozenset({Can.DELAY, Can.ERRORS, Can.UNCOUNT})
    classify = staticmethod(classify)

    def __init__(self, config: RabbitmqConfig, environment: Environment) -> None:
        self.limits = Limits(value_bytes=_MOST_BYTES, lease=config.longest_lease)
        self._wall = environment.clock.time
        self._tasks = Tasks()
        self._near = RabbitLink(config, self._tasks, "receiving")
        self._far = RabbitLink(config, self._tasks, "sending")
        self._places = Places(config.namespace, limit(config))
        self._desk = Desk(self._near)
        self._taps = Taps(self._near, self._tasks)
        self._roll = Roll(self._near, self._tasks, self._places.roll())
        self._holds = Holds(environment.clock, config.longest_lease, self._lapse)
        self._moving = Moving(
            Sending(self._far, self._places.rungs()), self._places, self._roll, self._holds, self._wall
        )
        self._waiting: dict[Waiting, asyncio.Future[None]] = {}

    async def start(self, stack: AsyncExitStack) -> None:
        """Connect, and close at the stack's end."""
        stack.push_async_callback(self._close)
        await uncut(self._tasks, self._desk.ping())

    async def _close(self) -> None:
        """Let receivers end, for the client closes the channel of a call that is cancelled, and says so in the log."""
        self._holds.close()
        for waiting in self._waiting:
            waiting.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await asyncio.gather(*self._waiting.values(), return_exceptions=True)
                await self._taps.ended()
        await self._tasks.close()
        await self._near.close()
        await self._far.close()

    async def send(self, queue: str, messages: Sequence[Posted], /) -> list[Sent]:
        """See the protocol."""
        now = self._wall()
        letters = [Letter(message=one, sent_at=now, due=now + one.delay if one.delay else 0.0) for one in messages]
        failures = await uncut(self._tasks, self._store(queue, letters))
        return [Sent(one.id, error=failure) for one, failure in zip(messages, failures, strict=True)]

    async def _store(self, queue: str, letters: Sequence[Letter]) -> list[str]:
        parcels = [self._moving.parcel(queue, letter) for letter in letters]
        failures = await self._moving.publish(queue, parcels)
        if all(failures):
            demand(failures, queue)
        self._taps.made(self._places.name(queue))
        return failures

    async def receive(self, queue: str, most: int, lease: float, wait: float, /) -> list[Leased]:
        """See the protocol."""
        waiting = Waiting()

        def gone(work: asyncio.Task[list[Leased]]) -> None:
            waiting.stop()
            work.add_done_callback(lambda _: self._hand_back(queue, work))

        return await uncut(self._tasks, self._received(queue, most, lease, wait, waiting), gone)

    async def _received(self, queue: str, most: int, lease: float, wait: float, waiting: Waiting) -> list[Leased]:
        self._waiting[waiting] = done = asyncio.get_running_loop().create_future()
        try:
            return await self._receive(queue, most, lease, wait, waiting)
        finally:
            del self._waiting[waiting]
            done.set_result(None)

    async def _receive(self, queue: str, most: int, lease: float, wait: float, waiting: Waiting) -> list[Leased]:
        now, name = asyncio.get_running_loop().time, self._places.name(queue)
        began = now()
        until = began + wait
        while True:
            last = now() >= until
            tap = await self._taps.open(name, partial(self._surplus, queue), began if last else now() - LOOK)
            messages = await self._taken(tap, most, until - now(), waiting) if tap is not None else []
            found = await self._leased(queue, tap, messages, lease) if tap is not None else []
            if found or last or waiting.over or (tap is not None and now() >= until):
                return found
            if tap is None:
                await self._taps.appears(name, waiting, until - now())

    async def _taken(self, tap: Tap, most: int, wait: float, waiting: Waiting) -> list[AbstractIncomingMessage]:
        tap.users += 1
        try:
            return await tap.take(most, wait, waiting)
        except NooblyError as error:
            if isinstance(error.__cause__, ChannelNotFoundEntity):
                return []  # Somebody has deleted the queue.
            raise
        finally:
            tap.users -= 1

    async def _leased(
        self, queue: str, tap: Tap, messages: Sequence[AbstractIncomingMessage], lease: float
    ) -> list[Leased]:
        """Lease what is due; what waits longer than the server can let it at a stretch waits on."""
        now = self._wall()
        letters = [(one, unpack(one)) for one in messages]
        early = [(one, letter) for one, letter in letters if letter.due > now]
        if early:
            await self._moving.postpone(queue, tap, messages, early)
        return [self._lease(queue, tap, one, letter, lease) for one, letter in letters if letter.due <= now]

    def _lease(self, queue: str, tap: Tap, incoming: AbstractIncomingMessage, letter: Letter, lease: float) -> Leased:
        letter = replace(letter, deliveries=letter.deliveries + returns(incoming) + 1)
        hold = Hold(queue, tap, incoming, letter)
        self._holds.add(hold, lease)
        return Leased(
            message=letter.message, receipt=hold.receipt, deliveries=letter.deliveries, sent_at=letter.sent_at
        )

    def _hand_back(self, queue: str, work: asyncio.Task[list[Leased]]) -> None:
        """Give back what came for somebody who is gone; it is stored anew, for the server would count a delivery."""
        if work.cancelled() or work.exception() is not None:
            return
        holds = self._holds.take(queue, [leased.receipt for leased in work.result()])
        moves = [
            (hold, self._moving.parcel(queue, replace(hold.letter, deliveries=hold.letter.deliveries - 1)))
            for hold in holds
            if hold is not None
        ]
        if moves:
            self._tasks.spawn(self._moving.move(queue, moves), "giving messages back")

    def _surplus(self, queue: str, tap: Tap, message: AbstractIncomingMessage) -> None:
        """Give back what nobody waits for any more; see ``_hand_back``."""
        letter = unpack(message)
        again = replace(letter, deliveries=letter.deliveries + returns(message))
        self._tasks.spawn(self._moving.postpone(queue, tap, [message], [(message, again)]), "giving a message back")

    def _lapse(self, hold: Hold) -> None:
        """Give a message back whose lease has ended; the server counts this as a delivery."""
        if not hold.tap.closed:
            self._tasks.spawn(each(hold.tap, [hold.incoming], "reject"), "giving a message back")

    async def ack(self, queue: str, receipts: Sequence[str], /) -> list[bool]:
        """See the protocol.

        Raises:
            Unavailable: The connection was lost meanwhile, so it is not known whether they are deleted.
        """
        holds = self._holds.take(queue, receipts)
        if any(holds):
            await uncut(self._tasks, self._moving.settle([hold for hold in holds if hold is not None]))
        return [hold is not None for hold in holds]

    async def nack(self, queue: str, failures: Sequence[Failure], /) -> list[bool]:
        """See the protocol; the message is stored anew, with its errors, and then acknowledged."""
        due = [self._wall() + one.delay if one.delay > 0 else 0.0 for one in failures]
        holds = self._holds.take(queue, [one.receipt for one in failures])
        moves = [
            (hold, self._moving.parcel(queue, _given_back(hold, one, when)))
            for hold, one, when in zip(holds, failures, due, strict=True)
            if hold is not None
        ]
        if moves:
            await uncut(self._tasks, self._moving.move(queue, moves))
        return [hold is not None for hold in holds]

    async def extend(self, queue: str, receipts: Sequence[str], lease: float, /) -> list[bool]:
        """See the protocol; all extensions together end ``longest_lease`` seconds after the delivery."""
        return [self._holds.extend(queue, receipt, lease) for receipt in receipts]

    async def bury(self, queue: str, dead: str, failure: Failure, /) -> bool:
        """See the protocol; the message is stored there before it is acknowledged here."""
        [hold] = self._holds.take(queue, [failure.receipt])
        if hold is None:
            return False
        letter = failed(hold, failure.reason)
        message = replace(letter.message, attempts=letter.deliveries, died_at=self._wall())
        buried = replace(letter, message=message, deliveries=0, due=0.0)
        await uncut(self._tasks, self._moving.move(dead, [(hold, self._moving.parcel(dead, buried))]))
        self._taps.made(self._places.name(dead))
        return True

    async def counts(self, queue: str, /) -> Counts:
        """See the protocol."""
        return await uncut(self._tasks, self._counts(queue))

    async def _counts(self, queue: str) -> Counts:
        """Count where messages come from before where they go to, so that one on its way is not missed."""
        name = self._places.name(queue)
        before = self._in_flight(queue)
        delayed = [await self._desk.ready(place) for place in self._moving.delays(queue)]
        ready = await self._desk.ready(name)
        return Counts(ready=ready, delayed=sum(delayed), in_flight=max(before, self._in_flight(queue)))

    def _in_flight(self, queue: str) -> int:
        return self._holds.count(queue) + self._moving.count(queue) + self._taps.coming(self._places.name(queue))

    async def purge(self, queue: str, /) -> int:
        """See the protocol; the queue itself stays, for others may hold messages of it."""
        return await uncut(self._tasks, self._purge(queue))

    async def _purge(self, queue: str) -> int:
        places = [*self._places.delays(queue), self._places.name(queue)]
        counts = [await self._desk.purge(place) for place in places]
        await self._moving.strike(queue)
        return sum(counts)

    async def queues(self) -> list[str]:
        """See the protocol; a name that one process purges and another one sends to comes back within an hour."""
        return sorted(await uncut(self._tasks, self._roll.names()))[:10_000]

    async def health(self) -> None:
        """See the protocol."""
        await uncut(self._tasks, self._desk.ping())


def _given_back(hold: Hold, failure: Failure, due: float) -> Letter:
    letter = failed(hold, failure.reason)
    return replace(letter, due=due, deliveries=letter.deliveries - (not failure.counts))
