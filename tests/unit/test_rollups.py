"""Covering a range: whole, without overlaps, from the coarsest steps that fit and exact ones at its ends."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from noobly.measuring import sketch
from noobly.measuring.rollups import ALWAYS, STEPS, TOP, Span, cover, distribution, matches, merged, raw

NOTHING_LOST = (ALWAYS,) * len(STEPS)
times = st.floats(0, 1e6).map(lambda at: round(at, 3))


@given(times, times, st.integers(0, TOP), st.lists(st.floats(0, 1e6), min_size=3, max_size=3).map(sorted))
def test_spans_are_a_cover_in_order(one, other, level, floors):
    start, end = sorted((one, other))
    kept = (*reversed(floors), ALWAYS)
    spans = cover(start, end, level, kept)
    assert all(span.level <= level for span in spans)
    assert all(before.start <= after.start for before, after in itertools.pairwise(spans))
    length = sum((span.end - span.start) * span.share for span in spans)
    assert math.isclose(length, max(end - start, 0), abs_tol=1e-6)
    for span in spans:
        assert 0 < span.share <= 1
        if span.share < 1:
            assert all(floor > start for floor in kept[: span.level]), "a finer tier had it"


@given(times, times)
def test_ends_are_exact_where_nothing_is_lost(one, other):
    start, end = sorted((one, other))
    spans = cover(start, end, TOP, NOTHING_LOST)
    assert all(span.share == 1 for span in spans)
    assert all(before.end == after.start for before, after in itertools.pairwise(spans))
    if spans:
        assert (spans[0].start, spans[-1].end) == (start, end)


def test_the_coarsest_steps_are_inside():
    spans = cover(3595.0, 7275.5, TOP, NOTHING_LOST)
    assert [(span.level, span.start, span.end) for span in spans] == [
        (0, 3595.0, 3600.0),
        (3, 3600.0, 7200.0),
        (2, 7200.0, 7260.0),
        (1, 7260.0, 7270.0),
        (0, 7270.0, 7275.5),
    ]


def test_what_no_finer_tier_has_is_shared_out():
    floors = (9000.0, 9000.0, ALWAYS, ALWAYS)
    assert cover(30.0, 75.0, TOP, floors) == [Span(2, 0.0, 60.0, 0.5), Span(2, 60.0, 120.0, 0.25)]
    assert cover(35.0, 45.0, TOP, floors) == [Span(2, 0.0, 60.0, 10 / 60)]


@given(st.lists(st.tuples(times, st.floats(-1e6, 1e6)), min_size=1, max_size=50), st.integers(1, 49))
def test_merging_rows_is_like_merging_samples(samples, cut):
    rows = [raw(at, value) for at, value in sorted(samples, key=lambda sample: sample[0])]
    at_once = merged(rows)
    in_parts = merged([merged(part) for part in (rows[:cut], rows[cut:]) if part])
    assert in_parts._replace(sum=0) == at_once._replace(sum=0)
    assert math.isclose(in_parts.sum, at_once.sum, rel_tol=1e-9, abs_tol=1e-6)
    counts = {}
    sketch.add(counts, [value for _, value in samples])
    assert distribution(at_once) == counts


def test_labels_match():
    labels = (("a", "x"), ("b", "y"))
    assert matches(labels, {})
    assert matches(labels, {"a": "x", "c": ""})
    assert not matches(labels, {"a": "y"})
    assert not matches(labels, {"c": "x"})
    assert not matches(labels, {"a": ""})
