"""What happens to samples, as events; they carry names, never values."""

from __future__ import annotations

from noobly.core.events import Event


class Recorded(Event, frozen=True):
    """Samples were handed to the store together; ``count`` of them, of these metrics."""

    names: tuple[str, ...]
    count: int


class Overflowed(Event, frozen=True):
    """A metric has more series than it may; ``label`` is the one with the most values, empty where it has none."""

    name: str
    label: str


class Lost(Event, frozen=True):
    """The store failed for so long that ``count`` samples were given up."""

    count: int
