"""What all themes have in common: the harness fixture, and metrics opened from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from noobly.measuring import Metrics, SampleIn
from noobly.testing.measuring.harness import MetricHarness

DAY = 86_400.0


class Theme:
    """Base of the themes; a subclass overrides the ``harness`` fixture."""

    @pytest.fixture
    def harness(self) -> MetricHarness:
        """Return a harness that no other test uses."""
        raise NotImplementedError("override the harness fixture: it says how to open the provider under test")

    @pytest.fixture
    async def metrics(self, harness: MetricHarness) -> AsyncIterator[Metrics]:
        """Open metrics with default options."""
        async with harness.open() as metrics:
            yield metrics


async def fill(metrics: Metrics, name: str, samples: Sequence[tuple[float, float]]) -> None:
    """Add values at their times."""
    for start in range(0, len(samples), 5000):
        await metrics.add_many([SampleIn(name=name, value=value, at=at) for at, value in samples[start : start + 5000]])


async def values(metrics: Metrics, name: str, **labels: str) -> list[float]:
    """Return all values that are listed."""
    return [one.value for one in (await metrics.list(name, labels=labels or None)).measurements]
