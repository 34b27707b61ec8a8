"""The conformance suite of queueing: what every provider must do, seen through ``Queues``.

    class TestMine(QueueSuite):
        @pytest.fixture
        def harness(self) -> QueueHarness:
            return EmbeddedQueues("mine://", capabilities=frozenset({Can.DELAY}))

Each theme is a class of its own, to be used alone while a provider is being written.
"""

from pkgutil import iter_modules

import pytest

# Before the themes are imported, so that their asserts explain themselves.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from noobly.testing.queueing.consuming import ConsumingTheme
from noobly.testing.queueing.failing import FailingTheme
from noobly.testing.queueing.harness import EmbeddedQueues, QueueHarness, ServerQueues
from noobly.testing.queueing.inspecting import InspectingTheme
from noobly.testing.queueing.leases import LeasesTheme
from noobly.testing.queueing.lifecycle import EventsTheme, LifecycleTheme
from noobly.testing.queueing.ordering import OrderingTheme
from noobly.testing.queueing.refusals import RefusalsTheme
from noobly.testing.queueing.returning import ReturningTheme
from noobly.testing.queueing.sending import SendingTheme
from noobly.testing.queueing.sorting import DedupTheme, DelaysTheme, PriorityTheme, TtlTheme
from noobly.testing.queueing.waiting import WaitingTheme

__all__ = [
    "ConsumingTheme",
    "DedupTheme",
    "DelaysTheme",
    "EmbeddedQueues",
    "EventsTheme",
    "FailingTheme",
    "InspectingTheme",
    "LeasesTheme",
    "LifecycleTheme",
    "OrderingTheme",
    "PriorityTheme",
    "QueueHarness",
    "QueueSuite",
    "RefusalsTheme",
    "ReturningTheme",
    "SendingTheme",
    "ServerQueues",
    "TtlTheme",
    "WaitingTheme",
]


class QueueSuite(
    ReturningTheme,
    SendingTheme,
    LeasesTheme,
    FailingTheme,
    OrderingTheme,
    PriorityTheme,
    DelaysTheme,
    DedupTheme,
    TtlTheme,
    WaitingTheme,
    ConsumingTheme,
    InspectingTheme,
    RefusalsTheme,
    EventsTheme,
    LifecycleTheme,
):
    """All themes together."""
