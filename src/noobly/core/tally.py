"""What a store in memory holds, counted as it comes and goes."""

from __future__ import annotations


class Tally:
    """How many things the parts of one store hold together, and how many bytes of content.

    Attributes:
        count: Things.
        bytes: Bytes.
    """

    __slots__ = ("bytes", "count")

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0

    def add(self, size: int) -> None:
        """Count one thing more, of ``size`` bytes."""
        self.count += 1
        self.bytes += size

    def grow(self, size: int) -> None:
        """Count ``size`` bytes more of a thing that is there, or less where it is negative."""
        self.bytes += size

    def drop(self, size: int) -> None:
        """Count one thing less, which had ``size`` bytes."""
        self.count -= 1
        self.bytes -= size
