"""The dashboard and the alert rules: up to date, and about metrics that there are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from noobly.core.errors import Internal
from noobly.core.lines import Head
from noobly.core.operation import operations
from noobly.core.public import routes
from noobly.measuring.rules import WAITS, alerts, dashboard
from noobly.queueing import Queues
from noobly.queueing.driver import QueueDriver
from noobly.working import Jobs
from noobly.working.driver import JobDriver

FOLDER = Path(__file__).parents[2] / "docs" / "grafana"
HEADS = [
    Head(name="noobly_operation_duration_seconds", type="histogram", text="Duration."),
    Head(name="noobly_circuit_open", type="gauge", text="Open.", labels=("service",)),
]


def test_both_files_are_up_to_date() -> None:
    command = [sys.executable, str(FOLDER / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.servers
def test_promtool_takes_the_rules() -> None:
    promtool = which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: scripts/servers install")
    done = subprocess.run([promtool, "check", "rules", str(FOLDER / "alerts.yml")], capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_each_metric_has_a_panel() -> None:
    own = [
        Head(name="shop_orders", type="counter", text="Orders.", labels=("kind",)),
        Head(name="shop_took_seconds", type="histogram", text="Took."),
        Head(name="shop_load", type="summary", text="Load."),
        Head(name="shop_size_bytes", type="gauge", text="Size."),
    ]
    model = json.loads(dashboard([*HEADS, *own]))
    panels = {panel["title"]: panel for panel in model["panels"]}
    assert panels["shop_orders_total"]["targets"][0]["expr"] == (
        "sum by (kind) (rate(shop_orders_total[$__rate_interval]))"
    )
    assert [len(panels[name]["targets"]) for name in ("shop_took_seconds", "shop_load_count")] == [3, 1]
    assert panels["shop_size_bytes"]["fieldConfig"]["defaults"]["unit"] == "bytes"
    assert len({panel["id"] for panel in model["panels"]}) == len(model["panels"])
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in model["panels"]}
    assert len(places) == len(model["panels"])


def test_a_metric_that_is_not_declared_is_an_error() -> None:
    with pytest.raises(Internal, match="not declared: noobly_operation_duration_seconds_bucket"):
        dashboard([])
    with pytest.raises(Internal, match="noobly_circuit_open"):
        alerts(HEADS[:1])


def test_the_operations_that_wait_are_those_that_say_so() -> None:
    declared = {one.name for driver in (QueueDriver, JobDriver) for one in operations(driver) if one.waits}
    public = {one.name for portable in (Queues, Jobs) for one in routes(portable) if one.waits}
    assert declared | public == set(WAITS)
