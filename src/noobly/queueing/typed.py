"""A queue with the type of its messages: checked when they are sent, converted when they come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypedDict, TypeVar, Unpack

import msgspec

from noobly.core.clock import Seconds
from noobly.core.errors import InvalidArgument, NooblyError
from noobly.core.lifecycle import Handle
from noobly.queueing.admitting import admitted, refused
from noobly.queueing.consuming import Consumption
from noobly.queueing.handling import Handler
from noobly.queueing.messages import Delivery, Receipt, Value
from noobly.queueing.waiting import waited

T = TypeVar("T")


class Sending(TypedDict, total=False):
    """How a message is sent; see ``Queues.send``."""

    priority: int
    delay: Seconds | None
    ttl: Seconds | None
    dedup: str | None
    group: str | None
    headers: dict[str, str] | None


class Untyped(Protocol):
    """The methods that a typed queue is made of."""

    async def send(self, queue: str, message: Value, **how: Unpack[Sending]) -> Receipt: ...
    async def receive(
        self, queue: str, *, max: int = 1, wait: Seconds | None = None, lease: Seconds | None = None
    ) -> list[Delivery[Value]]: ...
    async def reject(self, queue: str, receipt: str, *, reason: str = "") -> None: ...
    async def release_many(self, queue: str, receipts: Sequence[str]) -> list[bool]: ...
    def consume(
        self, queue: str, *, type: type[T], concurrency: int = 1, lease: Seconds | None = None
    ) -> Consumption[T]: ...
    async def work(
        self,
        queue: str,
        handler: Handler[T],
        *,
        type: type[T],
        concurrency: int = 10,
        lease: Seconds | None = None,
        grace: Seconds = 30.0,
    ) -> None: ...


class TypedQueue(Handle, Generic[T]):
    """One queue whose messages are all of one type: ``orders = queues.typed("orders", Order)``."""

    def __init__(self, queues: Untyped, name: str, type: type[T]) -> None:
        self.name = name
        self.type = type
        self._queues = queues

    async def send(self, message: T, **how: Unpack[Sending]) -> Receipt:
        """Send a message.

        Raises:
            InvalidArgument: It is not of the queue's type.
        """
        self._check(message)
        return await self._queues.send(self.name, message, **how)

    async def receive(
        self, *, max: int = 1, wait: Seconds | None = None, lease: Seconds | None = None
    ) -> list[Delivery[T]]:
        """Receive messages; one that is not of the queue's type goes to the dead letters, and the next one comes."""
        now = asyncio.get_running_loop().time
        until = now() + waited(wait)
        left = None if wait is None else until - now()
        while found := await self._queues.receive(self.name, max=max, wait=left, lease=lease):
            if typed := await self._typed(found):
                return typed
            left = None if wait is None else until - now() if until > now() else 0.0
        return []

    def consume(self, *, concurrency: int = 1, lease: Seconds | None = None) -> Consumption[T]:
        """Return the messages, one after another; see ``Queues.consume``."""
        return self._queues.consume(self.name, type=self.type, concurrency=concurrency, lease=lease)

    async def work(
        self, handler: Handler[T], *, concurrency: int = 10, lease: Seconds | None = None, grace: Seconds = 30.0
    ) -> None:
        """Run a handler for each message; see ``Queues.work``."""
        await self._queues.work(self.name, handler, type=self.type, concurrency=concurrency, lease=lease, grace=grace)

    def _check(self, message: T) -> None:
        try:
            msgspec.convert(msgspec.to_builtins(message), self.type)
        except (msgspec.ValidationError, TypeError) as error:
            wanted = getattr(self.type, "__name__", self.type)
            raise InvalidArgument(f"queue {self.name!r} takes {wanted}: {error}") from error

    async def _typed(self, found: Sequence[Delivery[Value]]) -> list[Delivery[T]]:
        """Return the deliveries of the queue's type; the others go to the dead letters."""
        typed: list[Delivery[T]] = []
        wrong: list[tuple[Delivery[Value], str]] = []
        for one in found:
            try:
                typed.append(admitted(one, self.type))
            except InvalidArgument as error:
                wrong.append((one, error.message))
        try:
            for delivery, reason in wrong:
                await refused(self._queues, delivery, reason)
        except BaseException:  # Nobody gets what was found, so others need not wait for the end of its lease.
            with suppress(NooblyError):
                await self._queues.release_many(self.name, [one.receipt for one in found])
            raise
        return typed
