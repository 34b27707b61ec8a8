"""How long each tier is kept, in the options of every provider that keeps samples itself."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from noobly.core.config import Config
from noobly.measuring.rollups import STEPS

_HOUR = 3600.0
_DAY = 24 * _HOUR
Kept = Annotated[float, msgspec.Meta(ge=1, lt=1e10)]


class KeepingConfig(Config, frozen=True, kw_only=True):
    """The options of keeping.

    Args:
        keep_raw: Seconds that raw samples are kept.
        raw_samples: Raw samples kept per series; with more in ``keep_raw`` seconds, the oldest leave.
        keep_10s: Seconds that steps of 10 seconds are kept.
        keep_1m: Seconds that steps of one minute are kept.
        keep_1h: Seconds that steps of one hour are kept.
    """

    keep_raw: Kept = _HOUR
    raw_samples: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 36_000
    keep_10s: Kept = _DAY
    keep_1m: Kept = 14 * _DAY
    keep_1h: Kept = 400 * _DAY

    @property
    def kept(self) -> tuple[float, float, float, float]:
        """Seconds per tier, the finest first."""
        return (self.keep_raw, self.keep_10s, self.keep_1m, self.keep_1h)

    @property
    def most(self) -> tuple[int, ...]:
        """Rows per tier and series; steps that the range touches with a part of them count."""
        rows = (math.ceil(kept / step) + 1 for kept, step in zip(self.kept[1:], STEPS[1:], strict=True))
        return (self.raw_samples, *rows)

    def cutoffs(self, now: float) -> tuple[float, ...]:
        """Return the times before which each tier keeps nothing."""
        return tuple(now - kept for kept in self.kept)
