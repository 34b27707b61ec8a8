"""How measuring behaves where a call does not say."""

from __future__ import annotations

from typing import Annotated

import msgspec

from noobly.core.config import Config

Positive = Annotated[float, msgspec.Meta(gt=0, lt=1e10)]
Several = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class MetricOptions(Config, frozen=True, kw_only=True):
    """The options of measuring, in ``noobly.toml``, in ``open_metrics`` or in the URL.

    Args:
        batch: Samples that are recorded together.
        flush_every: Seconds after which samples are recorded even where they are fewer.
        buffer: Samples kept while the store fails; past it the oldest are given up, and counted as lost.
        retain_every: Seconds between two looks for what is past its retention.
        series_per_metric: Series of one metric; samples of further ones are kept as ``{overflow="true"}``.
        max_series: Series of all metrics together; past it, new series are kept like that too.
        ahead: Seconds by which a sample's time may lie in the future, as clocks differ.
    """

    batch: Several = 500
    flush_every: Positive = 0.5
    buffer: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 50_000
    retain_every: Positive = 60.0
    series_per_metric: Several = 2_000
    max_series: Several = 10_000
    ahead: Annotated[float, msgspec.Meta(ge=0, lt=1e10)] = 600.0
