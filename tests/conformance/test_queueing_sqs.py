"""The queueing suite over SQS, standard and FIFO, on two emulators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from noobly.testing import private_or_skip
from noobly.testing.queueing import QueueHarness

from ..sqs import MotoSuite, SqsSuite, sqs_queues


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with private_or_skip("moto") as server:
        yield server.url


@pytest.fixture(scope="module")
def ministack() -> Iterator[str]:
    with private_or_skip("ministack") as server:
        yield server.url


@pytest.mark.servers
class TestSqsOnMoto(MotoSuite):
    @pytest.fixture
    def harness(self, moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueHarness]:
        with sqs_queues(moto, monkeypatch, fifo=False) as harness:
            yield harness


@pytest.mark.servers
class TestSqsFifoOnMoto(MotoSuite):
    @pytest.fixture
    def harness(self, moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueHarness]:
        with sqs_queues(moto, monkeypatch, fifo=True) as harness:
            yield harness


@pytest.mark.servers
class TestSqsOnMinistack(SqsSuite):
    @pytest.fixture
    def harness(self, ministack: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueHarness]:
        with sqs_queues(ministack, monkeypatch, fifo=False) as harness:
            yield harness


@pytest.mark.servers
class TestSqsFifoOnMinistack(SqsSuite):
    @pytest.fixture
    def harness(self, ministack: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueHarness]:
        with sqs_queues(ministack, monkeypatch, fifo=True) as harness:
            yield harness
