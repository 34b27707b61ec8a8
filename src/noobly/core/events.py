"""A typed event bus: portable types emit what happened, analytics, audit and dashboards subscribe.

Handlers are plain functions and run at once, in the order of their subscription; what takes longer belongs into a
queue of the subscriber's own. Nothing is built or sent while nobody listens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar, cast

import msgspec

E = TypeVar("E", bound="Event")

_log = logging.getLogger("noobly.events")


class Event(msgspec.Struct, frozen=True):
    """Base of every event: where it happened. Events never carry values, only names.

    Args:
        service: The service's name.
        instance: The instance's name within the service.
    """

    service: str
    instance: str


class OperationFinished(Event, frozen=True):
    """A driver operation ended, whatever its outcome.

    Args:
        provider: The provider's scheme.
        operation: The operation's name.
        outcome: ``ok`` or the code of the error.
        seconds: How long it took, retries included.
    """

    provider: str
    operation: str
    outcome: str
    seconds: float


class Topic:
    """Events of one type from one instance: emitters keep it, and build no event while ``handlers`` is empty."""

    __slots__ = ("handlers",)

    def __init__(self) -> None:
        self.handlers: tuple[Callable[[Event], None], ...] = ()

    def emit(self, event: Event) -> None:
        """Deliver one event to all who subscribed to it; one that fails is logged, and the others still get it."""
        for handler in self.handlers:
            try:
                handler(event)
            except Exception:  # noqa: BLE001 - a handler is anybody's code; what it does must not reach the emitter
                _log.exception("a handler of %s failed", type(event).__name__)


class _Subscription(msgspec.Struct, frozen=True, eq=False):
    kind: type[Event]
    handler: Callable[[Event], None]
    service: str | None
    instance: str | None

    def covers(self, kind: type[Event], service: str, instance: str) -> bool:
        return kind is self.kind and self.service in (None, service) and self.instance in (None, instance)


class Bus:
    """Delivers events to the handlers subscribed to their type."""

    def __init__(self) -> None:
        self._subscriptions: list[_Subscription] = []
        self._topics: dict[tuple[type[Event], str, str], Topic] = {}

    def subscribe(
        self,
        kind: type[E],
        handler: Callable[[E], None],
        *,
        service: str | None = None,
        instance: str | None = None,
    ) -> Callable[[], None]:
        """Call the handler with each event of exactly this type.

        Args:
            kind: The event type.
            handler: A plain, quick function; an exception it raises is logged and goes no further.
            service: Only events of this service, where given.
            instance: Only events of the instance with this name, where given.

        Returns:
            A function that ends the subscription; calling it again does nothing.
        """
        # Only events of its own type come to it, which `covers` sees to and the type checker cannot.
        subscription = _Subscription(kind, cast("Callable[[Event], None]", handler), service, instance)
        self._subscriptions.append(subscription)
        self._refresh()

        def unsubscribe() -> None:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
                self._refresh()

        return unsubscribe

    def topic(self, kind: type[Event], service: str, instance: str) -> Topic:
        """Return what delivers the events of one type from one instance; the same one each time."""
        place = (kind, service, instance)
        if place not in self._topics:
            self._topics[place] = Topic()
            self._refresh()
        return self._topics[place]

    def emit(self, event: Event) -> None:
        """Deliver one event to all who subscribed to its type."""
        self.topic(type(event), event.service, event.instance).emit(event)

    def _refresh(self) -> None:
        for place, topic in self._topics.items():
            topic.handlers = tuple(one.handler for one in self._subscriptions if one.covers(*place))
