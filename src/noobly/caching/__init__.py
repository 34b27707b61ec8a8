"""Caching: entries with a time to live, tags and namespaces, computed at most once, on any provider."""

from noobly.caching.cache import Cache
from noobly.caching.driver import Can
from noobly.caching.entries import Claim, Computed, Entry, KeyPage, State
from noobly.caching.opening import open_cache
from noobly.caching.options import CacheOptions
from noobly.caching.stats import CacheStats

__all__ = [
    "Cache",
    "CacheOptions",
    "CacheStats",
    "Can",
    "Claim",
    "Computed",
    "Entry",
    "KeyPage",
    "State",
    "open_cache",
]
