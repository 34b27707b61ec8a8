"""Receiving that may be cancelled: SQS hands out all the same, to nobody, until the lease ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from noobly.queueing.providers._sqs_calls import Calls
from noobly.queueing.providers._sqs_wire import Message

T = TypeVar("T")

_PATIENCE = 3.0
"""Seconds that closing waits for messages that came to nobody to be given back; no call waits longer for them."""


class Receiving:
    """Receives, and gives back what comes for a receiver that is gone."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._running: set[asyncio.Task[object]] = set()

    async def receive(self, url: str, most: int, lease: int, wait: int) -> list[Message]:
        """Receive up to ten messages."""
        taking = self._spawn(self._calls.receive(url, most, lease, wait))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._spawn(self._give_back(url, taking))
            raise

    async def _give_back(self, url: str, taking: asyncio.Task[list[Message]]) -> None:
        if found := await taking:
            await self._calls.hide(url, [(one.receipt_handle, 0) for one in found])

    async def close(self) -> None:
        """Wait a little for what is under way, and then end it."""
        if running := list(self._running):
            await asyncio.wait(running, timeout=_PATIENCE)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _spawn(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, name="receiving from SQS")
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # The receiver gets it; of one that is gone, the lease ends.
