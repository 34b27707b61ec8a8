"""The memory provider: this process only, with fixed memory per series."""

from __future__ import annotations

from collections.abc import Sequence

from noobly.core.checks import Limits
from noobly.core.scope import Environment
from noobly.core.turns import gently
from noobly.measuring.driver import Answer, Sample, Selector, SeriesInfo
from noobly.measuring.providers._columns import Columns
from noobly.measuring.providers._keeping import KeepingConfig
from noobly.measuring.rollups import answered, cut, frame, matches, reduced

Labels = tuple[tuple[str, str], ...]


class MemoryConfig(KeepingConfig, frozen=True, kw_only=True):
    """The options of the memory provider.

    Args:
        keep_raw: Seconds that raw samples are kept.
        raw_samples: Raw samples kept per series; with more in ``keep_raw`` seconds, the oldest leave.
        keep_10s: Seconds that steps of 10 seconds are kept.
        keep_1m: Seconds that steps of one minute are kept.
        keep_1h: Seconds that steps of one hour are kept.
    """


class MemoryMetrics:
    """Series in columns, which are lost with the process."""

    Config = MemoryConfig
    scheme = "memory"
    in_process = True
    limits = Limits()

    def __init__(self, config: MemoryConfig, environment: Environment) -> None:
        self._config = config
        self._now = environment.clock.time
        self._most = config.most
        self._metrics: dict[str, dict[Labels, Columns]] = {}

    async def record(self, samples: Sequence[Sample], /) -> None:
        """See the protocol."""
        for sample in samples:
            metric = self._metrics.setdefault(sample.name, {})
            series = metric.get(sample.labels)
            if series is None:
                series = metric[sample.labels] = Columns(sample.labels, self._most)
            series.add(sample.at, sample.value)

    async def query(self, selector: Selector, step: float, /) -> Answer:
        """See the protocol."""
        metric = self._metrics.get(selector.name, {})
        series = [one for one in metric.values() if matches(one.labels, selector.labels)]
        how = frame(selector, step, series)
        cuts = [cut(one, how) async for one in gently(series)]
        return answered(how, [one async for one in gently(reduced(how, cuts)) if one is not None])

    async def series(self, prefix: str, limit: int, /) -> list[SeriesInfo]:
        """See the protocol."""
        found = [(one.last_at, name, one) for name, one in self._all() if name.startswith(prefix)]
        found.sort(key=lambda row: row[:2], reverse=True)
        return [
            SeriesInfo(
                name=name, labels=dict(one.labels), count=one.count, last_at=one.last_at, last_value=one.last_value
            )
            for _, name, one in found[:limit]
        ]

    async def retain(self) -> int:
        """See the protocol; series of which nothing is left are forgotten."""
        cutoffs = self._config.cutoffs(self._now())
        dropped = 0
        async for name, one in gently(self._all()):
            dropped += one.drop_before(cutoffs)
            if one.empty:
                self._forget(name, one.labels)
        return dropped

    def _all(self) -> list[tuple[str, Columns]]:
        return [(name, one) for name, metric in self._metrics.items() for one in metric.values()]

    def _forget(self, name: str, labels: Labels) -> None:
        metric = self._metrics[name]
        del metric[labels]
        if not metric:
            del self._metrics[name]

    async def health(self) -> None:
        """See the protocol; memory is always there."""
