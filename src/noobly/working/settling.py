"""Telling how attempts ended: those of one turn of the loop together, and again while the store is down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from noobly.core.errors import NooblyError
from noobly.working.patience import pause, refused
from noobly.working.records import Settled
from noobly.working.running import Attempt

_log = logging.getLogger("noobly.working")
_LONGEST_PAUSE = 2.0
_SPARE = 0.25
"""Seconds beyond the last ones, so that the last answer of the store comes to those it is for."""


Settle = Callable[[str, Sequence[Settled]], Awaitable[list[bool]]]

Answer = bool | NooblyError
"""Whether a claim still stood; the error where the store refuses the outcome or was down for too long."""


class Settling:
    """Settles attempts of one queue.

    Args:
        settle: Tells the store.
        queue: The queue.
        patience: Seconds for which a store that is down is tried again.
        told: Called with each attempt, how it ended and the store's answer.
    """

    def __init__(
        self, settle: Settle, queue: str, patience: float, told: Callable[[Attempt, Settled, Answer], None]
    ) -> None:
        self._settle, self._queue, self._patience, self._told = settle, queue, patience, told
        self._waiting: list[tuple[Attempt, Settled]] = []
        self._sending: asyncio.Task[None] | None = None
        self._ended_at = float("inf")

    def tell(self, attempt: Attempt, settled: Settled) -> None:
        """Tell the store how an attempt ended, soon."""
        self._waiting.append((attempt, settled))
        if self._sending is None:
            self._sending = asyncio.ensure_future(self._send())

    async def close(self, within: float) -> None:
        """Wait until all that was told has been sent, or for so many seconds; what is left runs again elsewhere."""
        sending = self._sending
        if sending is None:
            return
        self._ended_at = asyncio.get_running_loop().time() + within
        await asyncio.wait([sending], timeout=within + _SPARE)
        if sending.cancel():
            _log.warning("attempts of queue %r could not be settled in time; their jobs will run again", self._queue)
            await asyncio.wait([sending])

    async def _send(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # Whatever else ends in this turn comes along.
                together, self._waiting = self._waiting, []
                await self._send_together(together)
        finally:
            self._sending = None

    async def _send_together(self, together: Sequence[tuple[Attempt, Settled]]) -> None:
        try:
            stood: Sequence[Answer] = await self._patiently([settled for _, settled in together])
        except NooblyError as error:
            if len(together) > 1 and refused(error):
                for one in together:  # One of them is refused; the others shall not suffer for it.
                    await self._send_together([one])
                return
            stood = [error] * len(together)
        for (attempt, settled), answer in zip(together, stood, strict=True):
            self._told(attempt, settled, answer)

    async def _patiently(self, attempts: Sequence[Settled]) -> list[bool]:
        loop, failures = asyncio.get_running_loop(), 0
        until = loop.time() + self._patience
        while True:
            try:
                return await self._settle(self._queue, attempts)
            except NooblyError as error:
                wait = pause(error, failures, _LONGEST_PAUSE)
                if refused(error) or loop.time() > until or loop.time() + wait > self._ended_at:
                    raise
                _log.warning("attempts of queue %r cannot be settled; trying again: %s", self._queue, error)
            await asyncio.sleep(wait)
            failures += 1
