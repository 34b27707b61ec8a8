"""Metrics of prometheus-client's own collectors as blocks of lines, with the text of names and labels kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import escape_label_name, escape_metric_name
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from noobly.core.lines import LINES, Block, Extra, Head, Line, Merge, breathe, escaped, exemplar_text, start_of

_log = logging.getLogger("noobly.metrics")

_MERGES = {
    "process_start_time_seconds": Merge.MIN,
    "process_max_fds": Merge.MIN,
    "python_info": Merge.MAX,
}
"""How gauges of prometheus-client's own collectors become one; others are summed."""


class Foreign:
    """Turns metrics into blocks; the text of a series is made once, and forgotten when the series is gone."""

    def __init__(self) -> None:
        # Keys are text, which the garbage collector has not to look at, as it would have to at tuples.
        self._starts: dict[str, str] = {}
        self._seen: dict[str, str] = {}

    def blocks(self, collectors: Iterable[Collector | CollectorRegistry]) -> Iterator[Block]:
        """Yield what collectors have now. One that fails is logged and left out; called in a thread."""
        self._seen = {}
        for collector in collectors:
            try:
                metrics = list(collector.collect())
            except Exception:  # noqa: BLE001 - a collector is anybody's code; it must not take all metrics with it
                _log.exception("the collector %s failed; its metrics are missing", type(collector).__name__)
                continue
            for metric in metrics:
                yield self._block(metric)
        self._starts = self._seen

    def _block(self, metric: Metric) -> Block:
        merge = Merge.MAX if metric.type in ("info", "stateset") else _MERGES.get(metric.name, Merge.SUM)
        head = Head(
            name=escape_metric_name(metric.name),
            type=metric.type,
            text=metric.documentation,
            unit=metric.unit,
            merge=merge,
        )
        lines: list[Line] = []
        extras: dict[str, Extra] = {}
        for place, sample in enumerate(metric.samples, 1):
            if place % LINES == 0:
                breathe()
            # Native histograms have no place in these formats.
            if sample.native_histogram is None:
                start = self._start(sample)
                lines.append((start, float(sample.value)))
                if sample.exemplar is not None or sample.timestamp is not None:
                    extras[start] = _extra(sample)
        return Block(head=head, lines=lines, extras=extras, foreign=True)

    def _start(self, sample: Sample) -> str:
        place = f"{sample.name}{sample.labels}"
        start = self._starts.get(place) or _start(sample)
        self._seen[place] = start
        return start


def _start(sample: Sample) -> str:
    pairs = sorted(sample.labels.items())
    labels = ",".join(f'{escape_label_name(name)}="{escaped(value)}"' for name, value in pairs)
    return start_of(escape_metric_name(sample.name), labels)


def _extra(sample: Sample) -> Extra:
    exemplar = "" if sample.exemplar is None else exemplar_text(sample.exemplar)
    if sample.timestamp is None:
        return Extra(exemplar=exemplar)
    stamp, milliseconds = f" {sample.timestamp}", f" {int(float(sample.timestamp) * 1000):d}"
    return Extra(exemplar=exemplar, stamp=stamp, milliseconds=milliseconds)
