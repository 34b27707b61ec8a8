"""The measuring suite over every provider: a list of providers, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from noobly.app import Noobly
from noobly.core.config import Secret
from noobly.core.scope import Environment
from noobly.measuring import Metrics, open_metrics
from noobly.server.app import build
from noobly.server.auth import KeyGuard, Sessions
from noobly.server.keys import Keyring, StaticKeys
from noobly.settings import Instance, Settings
from noobly.testing.measuring import EmbeddedMetrics, LifecycleTheme, MetricHarness, MetricSuite

from ..serving import serving

KEY = "measuring-key-of-the-tests"


class RemoteMetrics(EmbeddedMetrics):
    """Metrics on a server of this suite, over real HTTP."""

    direct = False

    @asynccontextmanager
    async def open(self, **options: object) -> AsyncIterator[Metrics]:
        """See the protocol."""
        settings = Settings(services={"measuring": {"default": Instance(url=self.url, options=options)}})
        environment = Environment(clock=self.clock)
        async with Noobly.open(settings=settings, environment=environment) as noobly:
            guard = KeyGuard(Keyring([StaticKeys(KEY)]), Sessions())
            async with serving(build(noobly, guard=guard)) as address:
                client = Environment(clock=self.clock)
                async with open_metrics(address, key=Secret(KEY), environment=client) as metrics:
                    yield metrics


class TestMemory(MetricSuite):
    @pytest.fixture
    def harness(self) -> MetricHarness:
        return EmbeddedMetrics("memory://")


class TestSqlite(MetricSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> MetricHarness:
        return EmbeddedMetrics(f"sqlite://{tmp_path}/metrics.db", shared=True, durable=True)


class TestRemoteMemory(MetricSuite):
    @pytest.fixture
    def harness(self) -> MetricHarness:
        return RemoteMetrics("memory://")


class TestRemoteSqlite(LifecycleTheme):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> MetricHarness:
        return RemoteMetrics(f"sqlite://{tmp_path}/metrics.db", durable=True)
