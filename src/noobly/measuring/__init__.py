"""Measuring: samples over time in fixed memory, and instruments for Prometheus, on any provider."""

from noobly.measuring.answers import Figure, Measurement, Measurements, Overview, Point, Points, SampleIn
from noobly.measuring.driver import SeriesInfo
from noobly.measuring.metrics import Metrics
from noobly.measuring.opening import open_metrics
from noobly.measuring.options import MetricOptions

__all__ = [
    "Figure",
    "Measurement",
    "Measurements",
    "MetricOptions",
    "Metrics",
    "Overview",
    "Point",
    "Points",
    "SampleIn",
    "SeriesInfo",
    "open_metrics",
]
