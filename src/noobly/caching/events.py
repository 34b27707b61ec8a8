"""What happens to entries, as events; they carry keys, never values."""

from __future__ import annotations

from noobly.core.events import Event


class Hit(Event, frozen=True):
    """A read found a fresh entry."""

    key: str


class Miss(Event, frozen=True):
    """A read found none; ``reason`` is ``absent``, ``stale``, ``invalidated``, ``damaged`` or ``unavailable``."""

    key: str
    reason: str


class Stored(Event, frozen=True):
    """An entry was put; ``size`` and ``stored`` are its bytes before and after compression."""

    key: str
    size: int
    stored: int


class Removed(Event, frozen=True):
    """Entries were deleted or expired by hand."""

    keys: tuple[str, ...]


class Invalidated(Event, frozen=True):
    """All entries with one of these tags became invalid."""

    tags: tuple[str, ...]


class Cleared(Event, frozen=True):
    """A namespace was cleared; empty for the whole cache."""

    namespace: str


class Computed(Event, frozen=True):
    """A factory ran; ``outcome`` is ``stored``, ``discarded`` (an invalidation won), ``unsaved`` or ``failed``."""

    key: str
    seconds: float
    outcome: str
