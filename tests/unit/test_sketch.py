"""Sketches: the error stays within 1 %, and merges may come in any order."""

from __future__ import annotations

import functools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noobly.core.errors import Internal
from noobly.measuring import sketch

BOUND = sketch.RELATIVE_ERROR * (1 + 1e-9)

magnitudes = st.floats(1e-300, 1.7976931348623157e308, allow_subnormal=False)
values = st.one_of(st.just(0.0), magnitudes, magnitudes.map(lambda value: -value), st.integers(-1000, 1000).map(float))
many = st.lists(values, min_size=1, max_size=300)
sketches = st.dictionaries(st.integers(-80_000, 80_000), st.integers(1, 2**40), max_size=60)


def counted(numbers):
    counts = {}
    sketch.add(counts, numbers)
    return counts


def merged(*parts):
    counts = {}
    for part in parts:
        sketch.merge(counts, part)
    return counts


@given(values)
def test_a_value_is_near_the_middle_of_its_bucket(value):
    assert abs(sketch.middle(sketch.bucket(value)) - value) <= BOUND * abs(value)


@given(st.lists(values, min_size=2))
def test_buckets_are_in_the_order_of_their_values(numbers):
    ordered = [sketch.bucket(value) for value in sorted(numbers)]
    assert ordered == sorted(ordered)


@given(many, st.floats(0, 1))
def test_quantiles_are_within_1_percent(numbers, share):
    true = sorted(numbers)[int(share * (len(numbers) - 1))]
    found = sketch.quantile(counted(numbers), share)
    assert abs(found - true) <= BOUND * abs(true)


@given(many, many, many)
def test_merging_is_like_counting_together(one, two, three):
    together = counted([*one, *two, *three])
    assert merged(counted(one), counted(two), counted(three)) == together
    assert merged(merged(counted(three), counted(one)), counted(two)) == together


@given(st.lists(sketches, min_size=2, max_size=6), st.randoms(use_true_random=False), st.integers(1, 40))
def test_merging_in_any_order_and_grouping_is_the_same_also_when_buckets_run_out(parts, chance, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketch, "MOST", most)
        one = functools.reduce(merged, parts, {})
        shuffled = list(parts)
        chance.shuffle(shuffled)
        while len(shuffled) > 1:
            place = chance.randrange(len(shuffled) - 1)
            shuffled[place : place + 2] = [merged(*shuffled[place : place + 2])]
        assert merged(shuffled[0]) == one
        assert len(one) <= most
        assert sum(one.values()) == sum(sum(part.values()) for part in parts)


@given(sketches)
def test_bytes_keep_all(counts):
    assert sketch.decode(sketch.encode(counts)) == counts


@given(many)
def test_any_value_can_be_stored(numbers):
    counts = counted(numbers)
    assert sketch.decode(sketch.encode(counts)) == counts


def test_nothing():
    assert sketch.quantile({}, 0.5) is None
    assert sketch.decode(b"") == {}
    assert sketch.encode({}) == b""


@pytest.mark.parametrize("data", [b"\x00", b"damaged", b"\x92\x91\x01\xa1x"])
def test_damaged_bytes_are_refused(data):
    with pytest.raises(Internal, match="damaged"):
        sketch.decode(data)


def test_the_least_values_are_merged_first_when_buckets_run_out():
    chance = random.Random(3)
    numbers = [math.exp(chance.uniform(-600, 600)) for _ in range(20_000)]
    counts = counted(numbers)
    assert len(counts) == sketch.MOST
    ranked = sorted(numbers)
    for share in (0.99, 0.999, 1.0):
        true = ranked[int(share * 19_999)]
        assert abs(sketch.quantile(counts, share) - true) <= BOUND * true


def test_it_is_small():
    chance = random.Random(4)
    counts = counted([chance.lognormvariate(0, 1) for _ in range(10_000)])
    assert len(sketch.encode(counts)) < 3 * len(counts) + 20
