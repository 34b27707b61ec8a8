"""Sampling: of the same message many times a second, the first ones are kept and then every so-many-th."""

from __future__ import annotations

from noobly.logging.record import Level

_MOST = 10_000
"""Different messages counted in one second; those beyond are kept."""

Left = tuple[int, str, int]
"""Severity and message of what was left out in a second, and how often."""


class Sampler:
    """Decides for each record whether it is kept; ERROR and above always are.

    Args:
        first: How many of the same level and message are kept in each second.
        every: Of those beyond, each so-many-th is kept.
    """

    def __init__(self, first: int, every: int) -> None:
        self._first = first
        self._every = every
        self._second = 0
        self._seen: dict[tuple[int, str], int] = {}
        self._left: list[Left] = []

    def keeps(self, severity: int, message: str, at: float) -> bool:
        """Return whether a record is kept.

        Args:
            severity: Its level's number.
            message: Its message.
            at: Seconds since the epoch.
        """
        if severity >= Level.ERROR:
            return True
        if int(at) != self._second:
            self._turn(int(at))
        key = (severity, message)
        count = self._seen.get(key, 0) + 1
        if count == 1 and len(self._seen) >= _MOST:
            return True
        self._seen[key] = count
        return count <= self._first or (count - self._first) % self._every == 0

    def summary(self, at: float) -> list[Left]:
        """Return what was left out in the seconds that are over, and forget it."""
        if int(at) != self._second:
            self._turn(int(at))
        left, self._left = self._left, []
        return left

    def _turn(self, second: int) -> None:
        # Several threads may turn at once: only the one that takes the counts away counts them.
        seen, self._seen, self._second = self._seen, {}, second
        for (severity, message), count in list(seen.items()):
            beyond = count - self._first
            if beyond > 0 and beyond - beyond // self._every:
                self._left.append((severity, message, beyond - beyond // self._every))
