"""The recorded cases of nooblyjs-core's HTTP contract, replayed against a real server."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from noobly.app import Noobly
from noobly.server.app import build
from noobly.server.auth import KeyGuard, Sessions
from noobly.server.keys import Keyring, StaticKeys
from noobly.services import SERVICES
from noobly.settings import Settings

from ..serving import serving
from . import run_compat

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))
KEY = "compat-key-of-the-tests"

NOT_YET = {
    "aiservice",
    "authservice",
    "dataservice",
    "filing",
    "notifying",
    "scheduling",
    "searching",
    "workflow",
}
"""Services of the contract that are still to come. Adding a service to the suite means taking it out of here."""


def touches(case: dict[str, object]) -> set[str]:
    """Return the services whose routes a case calls."""
    text = json.dumps(case["steps"])
    return {service for service in [*NOT_YET, "caching"] if f"/services/{service.replace('aiservice', 'ai')}/" in text}


def name(case: dict[str, object]) -> str:
    return f"{case['service']}: {case['name']}"


RUN = [case for case in CASES if not touches(case) & NOT_YET]
WAITING = [case for case in CASES if touches(case) & NOT_YET]


@pytest_asyncio.fixture
async def base() -> AsyncIterator[str]:
    async with Noobly.open(settings=Settings()) as noobly:
        guard = KeyGuard(Keyring([StaticKeys(KEY)]), Sessions())
        async with serving(build(noobly, guard=guard)) as address:
            yield address


def replay(case: dict[str, object], address: str) -> None:
    variables = {"run": uuid.uuid4().hex[:10], "api_key": KEY}
    for step in case["steps"]:  # type: ignore[attr-defined]
        run_compat.run_step(urllib.parse.urlsplit(address), step, variables, KEY, 10.0)


@pytest.mark.parametrize("case", RUN, ids=name)
async def test_case(case: dict[str, object], base: str) -> None:
    await asyncio.to_thread(replay, case, base)
    assert case["steps"]


def test_every_case_either_runs_or_waits_for_its_service() -> None:
    assert len(RUN) + len(WAITING) == len(CASES) == 104
    services = {"caching", "logging", "measuring", "queueing", "registry", "security", "working"}
    assert {case["service"] for case in RUN} == services
    assert not NOT_YET & SERVICES.keys(), "a service of the suite has cases that do not run yet"


def test_the_runner_notices_a_wrong_answer() -> None:
    with pytest.raises(run_compat.Failure, match="status: wanted 200"):
        run_compat.check({"status": 200}, 404, {}, b"")
