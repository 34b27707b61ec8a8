"""Analytics in bounded memory: the frequent keys are right, the rest is forgotten."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from noobly.caching.events import Computed, Miss, Removed
from noobly.caching.stats import NAMESPACES, Analytics, TopKeys, namespace
from noobly.core.scope import Environment, Policy, Scope

WHERE = ("caching", "default")


def analytics(*, top_keys: int = 5) -> Analytics:
    scope = Scope(service="caching", instance="default", provider="memory", policy=Policy(), environment=Environment())
    return Analytics(scope, top_keys)


@given(st.lists(st.integers(0, 200).map(str), max_size=2000), st.integers(1, 5))
def test_no_more_keys_are_tracked_than_allowed(keys: list[str], size: int) -> None:
    top = TopKeys(size)
    for key in keys:
        top.add(key)
        assert len(top.counts) <= 8 * size
    assert len(top.top()) <= size


@given(st.lists(st.sampled_from("abcdefgh"), max_size=200))
def test_few_keys_are_counted_exactly(keys: list[str]) -> None:
    top = TopKeys(8)
    for key in keys:
        top.add(key)
    assert {row.key: row.count for row in top.top()} == dict(Counter(keys))
    counts = [row.count for row in top.top()]
    assert counts == sorted(counts, reverse=True)


@given(st.lists(st.integers(0, 500).map(str), max_size=3000))
def test_no_count_is_too_high(keys: list[str]) -> None:
    top, exact = TopKeys(3), Counter(keys)
    for key in keys:
        top.add(key)
    assert all(row.count <= exact[row.key] for row in top.top())


def test_the_popular_ones_are_found_in_a_flood_of_rare_ones() -> None:
    chance, top, popular = random.Random(3), TopKeys(10), [f"popular {number}" for number in range(10)]
    keys = [f"rare {number}" for number in range(20_000)]
    for rank, key in enumerate(popular):
        keys += [key] * (2000 - 100 * rank)
    chance.shuffle(keys)
    for key in keys:
        top.add(key)
    assert {row.key for row in top.top()} == set(popular)
    for row in top.top():
        assert row.count > 0.9 * (2000 - 100 * popular.index(row.key))


def test_namespaces_are_bounded_and_nothing_is_lost() -> None:
    seen = analytics()
    for number in range(NAMESPACES + 500):
        seen.hit(f"space{number}:key")
    stats = seen.snapshot()
    assert len(stats.namespaces) == NAMESPACES + 1
    assert stats.namespaces["other"].hits == 500
    assert stats.total.hits == NAMESPACES + 500


def test_every_event_has_its_place() -> None:
    seen = analytics()
    seen.hit("a:1")
    seen.miss(Miss(*WHERE, "a:2", "absent"))
    seen.miss(Miss(*WHERE, "b", "stale"))
    seen.stored("a:1", 100, 25)
    seen.removed(Removed(*WHERE, ("a:1", "b")))
    seen.computed(Computed(*WHERE, "a:1", 0.5, "stored"))
    stats = seen.snapshot()
    assert (stats.total.hits, stats.total.misses, stats.total.puts, stats.total.removals) == (1, 2, 1, 2)
    assert (stats.namespaces["a"].hits, stats.namespaces["a"].removals, stats.namespaces[""].misses) == (1, 1, 1)
    assert stats.misses_by_reason == {"absent": 1, "stale": 1}
    assert stats.computed == {"stored": 1}
    assert (stats.bytes_put, stats.bytes_stored, stats.compression_ratio) == (100, 25, 0.25)
    assert stats.hit_ratio == 1 / 3


def test_a_snapshot_does_not_change_afterwards() -> None:
    seen = analytics()
    seen.hit("a:1")
    before = seen.snapshot()
    seen.hit("a:1")
    assert (before.total.hits, before.namespaces["a"].hits) == (1, 1)


def test_reads_are_exposed_until_the_cache_closes() -> None:
    environment = Environment()
    scope = Scope(service="caching", instance="main", provider="memory", policy=Policy(), environment=environment)
    seen = Analytics(scope, 5)
    seen.hit("a:1")
    labels = {"instance": "main", "namespace": "a", "result": "hit"}
    registry = environment.meter.registry
    assert registry.get_sample_value("noobly_cache_reads_total", labels) == 1
    seen.close()
    seen.close()
    assert registry.get_sample_value("noobly_cache_reads_total", labels) is None


def test_the_hottest_of_each_namespace() -> None:
    seen = analytics()
    for key, times in {"a:1": 5, "a:2": 9, "a:3": 1, "plain": 3, "other plain": 2, "third": 1}.items():
        for _ in range(times):
            seen.hit(key)
    assert seen.hot_by_namespace(2) == ["a:2", "a:1", "plain", "other plain"]


def test_a_namespace_ends_at_the_first_colon() -> None:
    assert [namespace(key) for key in ("a:b:c", "a", ":x", "a:")] == ["a", "", "", "a"]
