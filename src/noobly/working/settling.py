"""Telling how attempts ended: those of one turn of the loop together, and again while the store is down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from noobly.core.errors import NooblyError
from noobly.working.records import Settled

_log = logging.getLogger("noobly.working")
_LONGEST_PAUSE = 2.0

Settle = Callable[[str, Sequence[Settled]], Awaitable[list[bool]]]


class Settling:
    """Settles attempts of one queue.

    Args:
        settle: Tells the store.
        queue: The queue.
        patience: Seconds for which a store that is down is tried again.
    """

    def __init__(self, settle: Settle, queue: str, patience: float) -> None:
        self._settle, self._queue, self._patience = settle, queue, patience
        self._waiting: list[tuple[Settled, asyncio.Future[bool]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def __call__(self, settled: Settled) -> bool:
        """Return whether the claim still stood.

        Raises:
            NooblyError: The store refuses the outcome, or was down for too long.
        """
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((settled, done))
        if self._sending is None:
            self._sending = asyncio.ensure_future(self._send())
        return await done

    async def close(self) -> None:
        """Wait until all that was told has been sent."""
        while self._sending is not None:
            await asyncio.shield(self._sending)

    async def _send(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # Whatever else ends in this turn comes along.
                together, self._waiting = self._waiting, []
                await self._tell(together)
        finally:
            self._sending = None

    async def _tell(self, together: Sequence[tuple[Settled, asyncio.Future[bool]]]) -> None:
        try:
            stood = await self._patiently([settled for settled, _ in together])
        except NooblyError as error:
            if len(together) > 1 and not error.temporary:
                for one in together:  # One of them is refused; the others shall not suffer for it.
                    await self._tell([one])
                return
            for _, done in together:
                _fail(done, error)
            return
        for (_, done), one_stood in zip(together, stood, strict=True):
            if not done.done():
                done.set_result(one_stood)

    async def _patiently(self, attempts: Sequence[Settled]) -> list[bool]:
        loop, pause = asyncio.get_running_loop(), 0.05
        until = loop.time() + self._patience
        while True:
            try:
                return await self._settle(self._queue, attempts)
            except NooblyError as error:
                if not error.temporary or loop.time() > until:
                    raise
                _log.warning("attempts of queue %r cannot be settled; trying again: %s", self._queue, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _fail(done: asyncio.Future[bool], error: NooblyError) -> None:
    if not done.done():
        fresh = type(error)(error.message, retry_after=error.retry_after)
        fresh.__cause__ = error
        done.set_exception(fresh)
