"""The live tail: each reader follows the store itself, so it sees what every process that shares the store puts there.

What this process stores is looked for at once; for what others store, the store is asked again and again, less often
the longer nothing came.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from noobly.core.errors import Closed, InvalidArgument, NooblyError
from noobly.core.streams import Skipped
from noobly.logging.driver import Followed, LogDriver
from noobly.logging.pipeline import WRITING
from noobly.logging.query import Condition

_PAGE = 500
"""Lines that are asked for at once."""
_SHORTEST = 0.05
_LONGEST = 0.5
"""Seconds between two questions, just after lines came and after a while without any."""


class Tails:
    """The readers of one instance.

    Args:
        driver: The store.

    Attributes:
        readers: How many follow now.
    """

    def __init__(self, driver: LogDriver) -> None:
        self._driver = driver
        self._stored = asyncio.Event()
        self._ended = False
        self.readers = 0

    def wake(self) -> None:
        """Have all readers look at once: something was stored."""
        if self.readers:
            self._stored.set()
            self._stored = asyncio.Event()

    def close(self) -> None:
        """End for all readers."""
        self._ended = True
        self.wake()

    async def read(self, meant: Condition) -> AsyncGenerator[bytes | Skipped]:
        """Yield lines that are stored from now on; ends when the instance is closed."""
        after, pause = (await self._ask(None)).after, _SHORTEST
        self.readers += 1
        try:
            while not self._ended:
                stored = self._stored  # Before asking, so that what is stored meanwhile is not waited for.
                found = await self._found(after)
                after, pause = found.after, _SHORTEST if found.lines else min(2 * pause, _LONGEST)
                if found.missed:
                    yield Skipped(found.missed)
                for line in found.lines:
                    if meant(line) is not None:
                        yield line
                if not found.lines and not self._ended:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await stored.wait()
        finally:
            self.readers -= 1

    async def _found(self, after: str) -> Followed:
        try:
            return await self._ask(after)
        except Closed:
            self._ended = True
        except InvalidArgument:
            return await self._ask(None)  # Somebody removed the log, or cut it short.
        except NooblyError:
            pass  # The store fails now; whoever follows it waits until it works again.
        return Followed([], after)

    async def _ask(self, after: str | None) -> Followed:
        # What the operation itself logs must not be stored: that would wake the reader who caused it.
        token = WRITING.set(True)
        try:
            return await self._driver.follow(after, _PAGE)
        finally:
            WRITING.reset(token)
