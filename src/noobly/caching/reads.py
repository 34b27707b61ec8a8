"""Single reads; where it pays, those of one turn of the loop go to the store together, and the layers see one call.

A store that is asked over a connection answers for a hundred keys at about the cost of a few. Where each operation is
to have a span, each read goes by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from noobly.caching.driver import CacheDriver
from noobly.core.joining import Gather
from noobly.core.lifecycle import Tasks
from noobly.layers.spans import tracing

_TOGETHER = 100
"""Keys of joined reads, so that no answer is too long to wait for."""


class Reads:
    """Reads entries one by one.

    Args:
        driver: Where they are.
        tasks: Owns the work under way.
    """

    def __init__(self, driver: CacheDriver, tasks: Tasks) -> None:
        self._driver = driver
        self._joins = driver.joins and not tracing()
        self._gather = Gather(self._read, self._read_all, tasks, _one, _TOGETHER)

    def get(self, name: str) -> Awaitable[bytes | None]:
        """Return the bytes under a driver's key, or None."""
        return self._gather("reads", name) if self._joins else self._driver.get(name)

    def _read(self, _: str, name: str) -> Awaitable[bytes | None]:
        return self._driver.get(name)

    def _read_all(self, _: str, names: Sequence[str]) -> Awaitable[Sequence[bytes | None]]:
        return self._driver.get_many(names)


def _one(_: str) -> int:
    return 1
