"""The logging suite over every provider: a list of providers, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from noobly.app import Noobly
from noobly.logging import Logs
from noobly.server.app import Application
from noobly.server.auth import DevGuard
from noobly.settings import Instance, Settings
from noobly.testing.logging import Embedded, Harness, LogsSuite

from ..serving import serving


class Served(Embedded):
    """Logs on a server of this process, over HTTP."""

    def __init__(self, url: str, store: Logs) -> None:
        super().__init__(url)
        self.store = store

    async def readers(self, logs: Logs) -> int:
        return await super().readers(self.store)


class TestMemory(LogsSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        return Embedded("memory://")


class TestFile(LogsSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return Embedded(f"file://{tmp_path}/app.log")


class TestRemote(LogsSuite):
    @pytest.fixture(params=["memory", "file"])
    async def harness(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[Harness]:
        monkeypatch.chdir(tmp_path)
        url = {"memory": "memory://", "file": f"file://{tmp_path}/app.log"}[request.param]
        stored = Instance(url=url, options={"capture": False})
        async with Noobly.open(settings=Settings(services={"logging": {"default": stored}})) as noobly:
            application = Application(noobly, DevGuard())
            async with serving(application) as base:
                yield Served(base, noobly.logging)
                application.drain()
