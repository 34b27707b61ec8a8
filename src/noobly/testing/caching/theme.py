"""What all themes have in common: the harness fixture, and caches opened from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from noobly.caching import Cache
from noobly.core.events import Event, OperationFinished
from noobly.testing.harness import Harness

E = TypeVar("E", bound=Event)
Pair = tuple[Cache, Cache]


class Theme:
    """Base of the themes; a subclass overrides the ``harness`` fixture."""

    @pytest.fixture
    def harness(self) -> Harness:
        """Return a harness that no other test uses."""
        raise NotImplementedError("override the harness fixture: it says how to open the provider under test")

    @pytest.fixture
    async def cache(self, harness: Harness) -> AsyncIterator[Cache]:
        """Open a cache with default options."""
        async with harness.open() as cache:
            yield cache

    @pytest.fixture
    async def pair(self, harness: Harness) -> AsyncIterator[Pair]:
        """Open two clients of the same store."""
        if not harness.shared:
            pytest.skip("two caches of this provider share nothing")
        async with harness.open() as one, harness.open() as other:
            yield one, other


def recorded(cache: Cache, kind: type[E]) -> list[E]:
    """Return a list to which each further event of a kind is added."""
    seen: list[E] = []
    cache.scope.environment.bus.subscribe(kind, seen.append)
    return seen


def worked(events: list[OperationFinished]) -> list[str]:
    """Return the operations that were done, not refused."""
    return [event.operation for event in events if event.outcome == "ok"]
