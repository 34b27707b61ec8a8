"""The conformance suite of working: what every provider must do, seen through ``Jobs``.

    class TestMine(JobSuite):
        @pytest.fixture
        def harness(self) -> JobHarness:
            return EmbeddedJobs("mine://", capabilities=frozenset({Can.PAUSE}))

Each theme is a class of its own, to be used alone while a provider is being written.
"""

from pkgutil import iter_modules

import pytest

# Before the themes are imported, so that their asserts explain themselves.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from noobly.testing.working.adding import AddingTheme
from noobly.testing.working.bounds import BoundsTheme
from noobly.testing.working.claiming import ClaimingTheme
from noobly.testing.working.ending import EndingTheme, ProcessTheme
from noobly.testing.working.flows import BatchesTheme, FlowsTheme
from noobly.testing.working.following import FollowingTheme
from noobly.testing.working.harness import EmbeddedJobs, JobHarness, ServerJobs
from noobly.testing.working.history import HistoryTheme
from noobly.testing.working.leases import LeasesTheme
from noobly.testing.working.lifecycle import CrowdTheme, LifecycleTheme
from noobly.testing.working.refusals import RefusalsTheme
from noobly.testing.working.running import RunningTheme
from noobly.testing.working.scripts import ScriptsTheme
from noobly.testing.working.settling import SettlingTheme
from noobly.testing.working.states import StatesTheme
from noobly.testing.working.stopping import StoppingTheme

__all__ = [
    "AddingTheme",
    "BatchesTheme",
    "BoundsTheme",
    "ClaimingTheme",
    "CrowdTheme",
    "EmbeddedJobs",
    "EndingTheme",
    "FlowsTheme",
    "FollowingTheme",
    "HistoryTheme",
    "JobHarness",
    "JobSuite",
    "LeasesTheme",
    "LifecycleTheme",
    "ProcessTheme",
    "RefusalsTheme",
    "RunningTheme",
    "ScriptsTheme",
    "ServerJobs",
    "SettlingTheme",
    "StatesTheme",
    "StoppingTheme",
]


class JobSuite(
    AddingTheme,
    FlowsTheme,
    StatesTheme,
    ClaimingTheme,
    SettlingTheme,
    BoundsTheme,
    RunningTheme,
    EndingTheme,
    ProcessTheme,
    FollowingTheme,
    LeasesTheme,
    StoppingTheme,
    BatchesTheme,
    ScriptsTheme,
    HistoryTheme,
    RefusalsTheme,
    LifecycleTheme,
    CrowdTheme,
):
    """All themes together."""
