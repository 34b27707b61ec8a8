"""The scenarios of the soak program, smaller: kills, slow and blocking handlers, poison, restarts and idleness."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from noobly.testing.soak import JOB_SCENARIOS, QUEUE_SCENARIOS, SHORT, Finding, Place, Scenario, places

pytestmark = pytest.mark.servers

LEASE = 1.5
"""Seconds that a heartbeat may be late by, more or less, on a machine that has other things to do."""


async def played(present: list[Place], scenarios: tuple[Scenario, ...]) -> dict[str, Finding]:
    """Play all scenarios at all places: together those that only wait, and then the others, one after another."""
    pairs = [(place, one) for one in scenarios for place in present]
    async with asyncio.TaskGroup() as group:
        waiting = {_name(place, one): group.create_task(one(place, SHORT)) for place, one in pairs if not one.alone}
    found = {name: task.result() for name, task in waiting.items()}
    return found | {_name(place, one): await one(place, SHORT) for place, one in pairs if one.alone}


def _name(place: Place, scenario: Scenario) -> str:
    return f"{place.name}: {scenario.name}"


def broken(found: dict[str, Finding]) -> list[str]:
    return [f"{name}: {one.figures}" for name, one in found.items() if not one.good]


async def test_queues(tmp_path: Path) -> None:
    with places("queueing", ["memory", "sqlite", "redis"], tmp_path) as present:
        found = await played([msgspec.structs.replace(one, lease=LEASE) for one in present], QUEUE_SCENARIOS)
    assert not broken(found)
    assert sum(not one.skipped for one in found.values()) >= 6 * len(present)


async def test_jobs(tmp_path: Path) -> None:
    with places("working", ["memory", "sqlite", "bullmq"], tmp_path) as present:
        found = await played([msgspec.structs.replace(one, lease=LEASE) for one in present], JOB_SCENARIOS)
    assert not broken(found)
    assert sum(not one.skipped for one in found.values()) >= 7 * len(present)
