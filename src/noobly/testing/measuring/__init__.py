"""The conformance suite of measuring: what every provider must do, seen through ``Metrics``.

    class TestMine(MetricSuite):
        @pytest.fixture
        def harness(self) -> MetricHarness:
            return EmbeddedMetrics("mine://")

Each theme is a class of its own, to be used alone while a provider is being written.
"""

from pkgutil import iter_modules

import pytest

# Before the themes are imported, so that their asserts explain themselves.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from noobly.testing.measuring.figures import FiguresTheme
from noobly.testing.measuring.harness import EmbeddedMetrics, MetricHarness
from noobly.testing.measuring.lifecycle import LifecycleTheme
from noobly.testing.measuring.ranges import RangesTheme
from noobly.testing.measuring.refusals import RefusalsTheme
from noobly.testing.measuring.samples import SamplesTheme
from noobly.testing.measuring.tiers import TiersTheme

__all__ = [
    "EmbeddedMetrics",
    "FiguresTheme",
    "LifecycleTheme",
    "MetricHarness",
    "MetricSuite",
    "RangesTheme",
    "RefusalsTheme",
    "SamplesTheme",
    "TiersTheme",
]


class MetricSuite(SamplesTheme, FiguresTheme, RangesTheme, TiersTheme, RefusalsTheme, LifecycleTheme):
    """All themes together."""
