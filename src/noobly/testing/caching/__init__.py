"""The conformance suite of caching: what every provider must do, seen through ``Cache``.

    class TestMine(CacheSuite):
        @pytest.fixture
        def harness(self) -> Harness:
            return EmbeddedHarness("mine://", capabilities=frozenset({Can.LIST}))

Each theme is a class of its own, to be used alone while a provider is being written.
"""

from pkgutil import iter_modules

import pytest

# Before the themes are imported, so that their asserts explain themselves.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from noobly.testing.caching.analytics import AnalyticsTheme
from noobly.testing.caching.claims import ClaimsTheme
from noobly.testing.caching.compression import CompressionTheme
from noobly.testing.caching.computing import ComputingTheme
from noobly.testing.caching.counters import CountersTheme
from noobly.testing.caching.entries import EntriesTheme
from noobly.testing.caching.grace import GraceTheme
from noobly.testing.caching.keys import KeysTheme
from noobly.testing.caching.lifecycle import LifecycleTheme
from noobly.testing.caching.lifetimes import LifetimesTheme
from noobly.testing.caching.listing import ListingTheme
from noobly.testing.caching.locks import LocksTheme
from noobly.testing.caching.refusals import RefusalsTheme
from noobly.testing.caching.tags import TagsTheme
from noobly.testing.caching.values import ValuesTheme
from noobly.testing.caching.warming import WarmingTheme

__all__ = [
    "AnalyticsTheme",
    "CacheSuite",
    "ClaimsTheme",
    "CompressionTheme",
    "ComputingTheme",
    "CountersTheme",
    "EntriesTheme",
    "GraceTheme",
    "KeysTheme",
    "LifecycleTheme",
    "LifetimesTheme",
    "ListingTheme",
    "LocksTheme",
    "RefusalsTheme",
    "TagsTheme",
    "ValuesTheme",
    "WarmingTheme",
]


class CacheSuite(
    EntriesTheme,
    KeysTheme,
    ValuesTheme,
    RefusalsTheme,
    LifetimesTheme,
    GraceTheme,
    TagsTheme,
    ComputingTheme,
    ClaimsTheme,
    LocksTheme,
    CountersTheme,
    ListingTheme,
    AnalyticsTheme,
    CompressionTheme,
    WarmingTheme,
    LifecycleTheme,
):
    """All themes together."""
