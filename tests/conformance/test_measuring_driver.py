"""The driver suite over every bare metric provider: a list of providers, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from noobly.testing.measuring.driver import DriverHarness, EmbeddedDriver, MetricDriverSuite


class TestMemory(MetricDriverSuite):
    @pytest.fixture
    def harness(self) -> DriverHarness:
        return EmbeddedDriver("memory://")


class TestSqlite(MetricDriverSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> DriverHarness:
        return EmbeddedDriver(f"sqlite://{tmp_path}/metrics.db")
