"""What measuring offers on top of its public methods: instruments of this process, wherever samples go."""

from __future__ import annotations

from typing import cast

from noobly.core.config import Config
from noobly.core.lifecycle import Portable
from noobly.core.scope import Scope
from noobly.measuring.instruments import Instruments
from noobly.measuring.options import MetricOptions


class MetricSugar(Portable, Instruments):
    """Counters, gauges, histograms, timers and summaries, shown at ``/metrics``."""

    def _begin(self, scope: Scope, options: Config) -> None:
        super()._begin(scope, options)
        self.options = cast(MetricOptions, options)
        Instruments.__init__(self, scope.environment.meter, cap=self.options.series_per_metric)
