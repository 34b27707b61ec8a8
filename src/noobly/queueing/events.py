"""What happens to messages, as events; they carry names and ids, never what was sent."""

from __future__ import annotations

from noobly.core.events import Event


class Sent(Event, frozen=True):
    """Messages were stored together; ``count`` of them."""

    queue: str
    count: int


class Received(Event, frozen=True):
    """Messages were delivered together; ``count`` of them."""

    queue: str
    count: int


class Acknowledged(Event, frozen=True):
    """Messages were acknowledged together; ``count`` of them."""

    queue: str
    count: int


class GivenBack(Event, frozen=True):
    """A message was given back, to be delivered again in ``delay`` seconds."""

    queue: str
    delay: float


class Died(Event, frozen=True):
    """A message went to the dead letters; ``reason`` is ``exhausted``, ``rejected`` or ``unreadable``."""

    queue: str
    message: str
    reason: str


class Expired(Event, frozen=True):
    """A message was dropped, for nobody had received it in its time."""

    queue: str
    message: str


class Purged(Event, frozen=True):
    """All messages of a queue that nobody worked on were deleted."""

    queue: str
    count: int
