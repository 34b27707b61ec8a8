"""Sketches: the distribution of any number of values in little space, mergeable, with 1 % relative error at most.

Values are counted in buckets whose bounds grow by a constant factor, so that a bucket's middle is within 1 % of all
its values: DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees", PVLDB 12(12), 2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise

import msgspec

from noobly.core.errors import Internal

RELATIVE_ERROR = 0.01
"""How far a quantile may be from the true one, as a share of it."""

MOST = 2048
"""Buckets of one sketch. 2,048 span a factor of 6e17; past that, the values next to zero share one bucket."""

Counts = dict[int, int]
"""How many values fall into each bucket. Buckets are in the order of their values: 0 for zero, and below it the mirror
of those above."""

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_PER_LOG = 1 / _LOG_GAMMA
_MIDDLE = math.log(2 / (1 + _GAMMA))
_OFFSET = 40_000
"""More than the bucket number of the least positive float, so that all positive values have positive buckets."""
_LARGEST = math.log(1.7976931348623157e308)

_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(tuple[list[int], list[int]]).decode


def bucket(value: float) -> int:
    """Return the bucket of a finite value."""
    if value > 0:
        return _OFFSET + math.ceil(math.log(value) * _PER_LOG)
    if value < 0:
        return -_OFFSET - math.ceil(math.log(-value) * _PER_LOG)
    return 0


def middle(bucket: int) -> float:
    """Return the value that stands for all values of a bucket."""
    if bucket == 0:
        return 0.0
    size = math.exp(min((abs(bucket) - _OFFSET) * _LOG_GAMMA + _MIDDLE, _LARGEST))
    return size if bucket > 0 else -size


def add(counts: Counts, values: Iterable[float]) -> None:
    """Count values."""
    for value in values:
        number = bucket(value)
        counts[number] = counts.get(number, 0) + 1
    if len(counts) > MOST:
        shrink(counts)


def merge(counts: Counts, other: Mapping[int, int]) -> None:
    """Count what another sketch has counted. The order of merges makes no difference."""
    for number, count in other.items():
        counts[number] = counts.get(number, 0) + count
    if len(counts) > MOST:
        shrink(counts)


def shrink(counts: Counts) -> None:
    """Put the values next to zero into one bucket, so that there are ``MOST`` buckets."""
    ranked = sorted(counts, key=_size, reverse=True)
    kept = ranked[MOST - 1]
    for number in ranked[MOST:]:
        counts[kept] += counts.pop(number)


def _size(bucket: int) -> tuple[int, bool]:
    # The sign makes the order total, without which merges in another order could keep other buckets.
    return abs(bucket), bucket > 0


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Return the value below which about this share of all values lies; None of no values.

    Args:
        counts: The sketch.
        share: 0 for the least value, 1 for the greatest.
    """
    rank = share * (sum(counts.values()) - 1)
    seen = 0
    for number in sorted(counts):
        seen += counts[number]
        if seen > rank:
            return middle(number)
    return None


def encode(counts: Mapping[int, int]) -> bytes:
    """Return a sketch as bytes: the distances between its buckets, which are small numbers, and their counts."""
    if not counts:
        return b""
    numbers = sorted(counts)
    distances = [numbers[0], *(after - before for before, after in pairwise(numbers))]
    return _ENCODE((distances, [counts[number] for number in numbers]))


def decode(data: bytes) -> Counts:
    """Return the sketch that some bytes hold.

    Raises:
        Internal: They are damaged.
    """
    if not data:
        return {}
    try:
        distances, counts = _DECODE(data)
    except msgspec.DecodeError as error:
        raise Internal(f"a stored sketch is damaged: {error}") from error
    return dict(zip(accumulate(distances), counts, strict=True))
