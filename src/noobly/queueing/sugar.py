"""What queues offer on top of their public methods; written only in terms of them, so the remote client has it too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar, Unpack, cast, overload

from noobly.core.clock import Seconds, pause, seconds
from noobly.core.config import Config
from noobly.core.lifecycle import Portable, Tasks
from noobly.core.scope import Scope
from noobly.core.waiting import awaited, slice_of
from noobly.queueing.consuming import Consumption
from noobly.queueing.handling import Handler, handle
from noobly.queueing.messages import Delivery, Receipt, Returned, Value
from noobly.queueing.options import QueueOptions
from noobly.queueing.typed import Sending, TypedQueue
from noobly.queueing.waiting import waited

T = TypeVar("T")


class QueueSugar(Portable, ABC):
    """Waiting without bound, consuming, handlers, typed queues, and the short words."""

    def _begin(self, scope: Scope, options: Config) -> None:
        super()._begin(scope, options)
        self.options = cast(QueueOptions, options)
        self._tasks = Tasks()
        self._slice = slice_of(scope.policy)

    async def _end(self) -> None:
        await self._tasks.close()

    @abstractmethod
    async def send(self, queue: str, message: Value, **how: Unpack[Sending]) -> Receipt: ...
    @abstractmethod
    async def poll(
        self, queue: str, *, max: int = 1, wait: Seconds | None = None, lease: Seconds | None = None
    ) -> list[Delivery[Value]]: ...
    @abstractmethod
    async def ack_many(self, queue: str, receipts: Sequence[str]) -> list[bool]: ...
    @abstractmethod
    async def nack(self, queue: str, receipt: str, *, delay: Seconds | None = None, reason: str = "") -> Returned: ...
    @abstractmethod
    async def reject(self, queue: str, receipt: str, *, reason: str = "") -> None: ...
    @abstractmethod
    async def release_many(self, queue: str, receipts: Sequence[str]) -> list[bool]: ...
    @abstractmethod
    async def extend_many(self, queue: str, receipts: Sequence[str], lease: Seconds | None = None) -> list[bool]: ...
    @abstractmethod
    async def purge(self, queue: str) -> int: ...

    async def receive(
        self, queue: str, *, max: int = 1, wait: Seconds | None = None, lease: Seconds | None = None
    ) -> list[Delivery[Value]]:
        """Receive messages: each is to be acknowledged, given back or rejected before its lease ends.

        Args:
            queue: The queue.
            max: How many at most, up to 1000.
            wait: Seconds to wait for the first one; None returns at once.
            lease: Seconds they are held for; the option ``lease`` by default.

        Returns:
            The deliveries; none where nothing came in time.
        """
        if wait is None or (until := waited(wait)) <= self._slice:
            return await self.poll(queue, max=max, wait=wait, lease=lease)
        return await awaited(lambda within: self.poll(queue, max=max, wait=within, lease=lease), until, self._slice)

    @overload
    def consume(self, queue: str, *, concurrency: int = 1, lease: Seconds | None = None) -> Consumption[Value]: ...
    @overload
    def consume(
        self, queue: str, *, type: type[T], concurrency: int = 1, lease: Seconds | None = None
    ) -> Consumption[T]: ...
    def consume(
        self, queue: str, *, type: type[object] = object, concurrency: int = 1, lease: Seconds | None = None
    ) -> Consumption[Value]:
        """Return the messages of a queue, one after another, for ever: ``async for message in queues.consume("q")``.

        Each is to be settled, best by ``async with message as value: …``. Leases are extended meanwhile. While the
        store is down, the iteration waits for it.

        Args:
            queue: The queue.
            type: What messages must be; one that is not goes to the dead letters.
            concurrency: Messages that may be open at once.
            lease: Seconds after which the messages of a receiver that died are delivered again.
        """
        held = seconds(lease, "lease") or self.options.lease
        return Consumption(self, self._tasks, queue, type, concurrency=concurrency, lease=held)

    @overload
    async def work(
        self,
        queue: str,
        handler: Handler[Value],
        *,
        concurrency: int = 10,
        lease: Seconds | None = None,
        grace: Seconds = 30.0,
    ) -> None: ...
    @overload
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
    async def work(
        self,
        queue: str,
        handler: Handler[T],
        *,
        type: type[object] = object,
        concurrency: int = 10,
        lease: Seconds | None = None,
        grace: Seconds = 30.0,
    ) -> None:
        """Run a handler for each message, until cancelled; a message whose handler raises is given back.

        Args:
            queue: The queue.
            handler: Gets the message; an async function runs on the loop, a plain one in a thread.
            type: What messages must be; one that is not goes to the dead letters.
            concurrency: Handlers under way at once.
            lease: Seconds after which the messages of a receiver that died are delivered again.
            grace: Seconds that handlers under way have when this is cancelled; 0 for none.
        """
        # The overloads tie the handler to the type, which the checker cannot follow in here.
        consumption = cast("Consumption[T]", self.consume(queue, type=type, concurrency=concurrency, lease=lease))
        await handle(consumption, handler, pause(grace, "grace"))

    def typed(self, queue: str, type: type[T]) -> TypedQueue[T]:
        """Return a queue whose messages are all of one type, checked on both ends."""
        return TypedQueue(self, queue, type)

    async def enqueue(self, queue: str, message: Value, **how: Unpack[Sending]) -> str:
        """Send a message and return its id; see ``send``."""
        return (await self.send(queue, message, **how)).id

    async def unreceived(self, found: Sequence[Delivery[Value]]) -> None:
        """Give back messages that did not reach who asked for them, to be delivered again at once."""
        if found:
            await self.release_many(found[0].queue, [one.receipt for one in found])

    async def clear(self, queue: str) -> int:
        """Delete all messages that nobody works on; see ``purge``."""
        return await self.purge(queue)
