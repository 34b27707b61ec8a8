"""What happens to logging itself, as events; they never carry records."""

from __future__ import annotations

from noobly.core.events import Event


class Dropped(Event, frozen=True):
    """Records were lost; ``reason`` is ``overflow``, ``sampling`` or ``failed``."""

    count: int
    reason: str


class Spilled(Event, frozen=True):
    """The store did not take records, so they went to a file or, where ``path`` is empty, to standard error."""

    count: int
    path: str


class Returned(Event, frozen=True):
    """Records that had been spilled to a file are stored now."""

    count: int


class LevelChanged(Event, frozen=True):
    """The level was changed at run time; ``logger`` is empty for all."""

    level: str
    logger: str


class Searched(Event, frozen=True):
    """Somebody read stored records; ``found`` is how many."""

    found: int


class Purged(Event, frozen=True):
    """Old records were deleted by hand."""

    count: int
