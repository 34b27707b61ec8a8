"""Scenarios that tell a product from a toy: killed consumers, slow and blocking handlers, poison, restarts, idleness.

Each takes a ``Place``, does one thing to it within a bounded time, and returns a ``Finding`` with its figures. The test
run and the soak program call the same ones, with other sizes.
"""

from noobly.testing.soak.jobs import JOB_SCENARIOS
from noobly.testing.soak.places import FULL, SHORT, Finding, Place, Scenario, Sizes, places
from noobly.testing.soak.queues import QUEUE_SCENARIOS

__all__ = ["FULL", "JOB_SCENARIOS", "QUEUE_SCENARIOS", "SHORT", "Finding", "Place", "Scenario", "Sizes", "places"]
