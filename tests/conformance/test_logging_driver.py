"""The driver suite over every bare log provider: a list of providers, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("noobly.testing.logging.driver", "noobly.testing.logging.lines")

from noobly.testing.logging.driver import DriverHarness, EmbeddedDriver, LogDriverSuite


class TestMemory(LogDriverSuite):
    @pytest.fixture
    def harness(self) -> DriverHarness:
        return EmbeddedDriver("memory://")


class TestFile(LogDriverSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> DriverHarness:
        return EmbeddedDriver(f"file://{tmp_path}/logs/app.log")


class TestRotatedFile(LogDriverSuite):
    """A new file for nearly every batch, compressed at once."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> DriverHarness:
        return EmbeddedDriver(f"file://{tmp_path}/app.log?max_bytes=1024")
