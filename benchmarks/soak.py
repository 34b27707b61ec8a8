"""What has to hold under kills, restarts, slow and blocking handlers, poison and idleness, with figures.

    python -m benchmarks.soak                          every provider once
    python -m benchmarks.soak --minutes 30             again and again for half an hour
    python -m benchmarks.soak --only 8 working:bullmq  one scenario of some providers; URLs are welcome, too

Servers are private and on loopback; all that is started is ended. Ends with 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from noobly.testing.soak import FULL, JOB_SCENARIOS, QUEUE_SCENARIOS, SHORT, Finding, Place, Scenario, Sizes, places

PROVIDERS = {"queueing": ("memory", "sqlite", "redis", "rabbitmq", "sqs"), "working": ("memory", "sqlite", "bullmq")}
SCENARIOS = {"queueing": QUEUE_SCENARIOS, "working": JOB_SCENARIOS}
NODE_TESTS = Path("tests/conformance/test_bullmq_node.py")
NODE = "11 Node adds and Python works, and the reverse"


def wanted(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the providers to look at by service: all of them, or ``SERVICE:PROVIDER`` and ``SERVICE:URL``."""
    if not names:
        return {service: list(known) for service, known in PROVIDERS.items()}
    pairs = [name.split(":", 1) for name in names]
    return {service: [rest for one, rest in pairs if one == service] for service in PROVIDERS}


async def play(scenario: Scenario, place: Place, sizes: Sizes) -> bool:
    """Play one scenario and print what came of it."""
    began = time.monotonic()
    try:
        found = await scenario(place, sizes)
    except Exception:
        found = Finding(good=False, figures=traceback.format_exc(limit=-2).replace("\n", "\n    "))
    tell(place.service, place.name, scenario.name, found, time.monotonic() - began)
    return found.good


def tell(service: str, name: str, title: str, found: Finding, took: float) -> None:
    word = "skipped" if found.skipped else "holds" if found.good else "BROKEN"
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"{word:8}{service:9}{name:9}{title:46}{found.skipped or found.figures}  [{took:.1f} s, {load}]", flush=True)


def with_node() -> bool:
    """Run the tests of the conformance suite with BullMQ in Node.js."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(NODE_TESTS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    last = (ended.stdout.strip().splitlines() or [ended.stderr[-200:]])[-1]
    tell("working", "bullmq", NODE, Finding(good=ended.returncode == 0, figures=last), time.monotonic() - began)
    return ended.returncode == 0


async def once(present: Sequence[Place], sizes: Sizes, only: str) -> bool:
    """Play all scenarios at all places, one after another."""
    good = True
    for place in present:
        for scenario in SCENARIOS[place.service]:
            if only in ("", scenario.name.split(maxsplit=1)[0]):
                good &= await play(scenario, place, sizes)
    if only in ("", NODE.split(maxsplit=1)[0]) and any(place.name == "bullmq" for place in present):
        good &= await asyncio.to_thread(with_node)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.0, help="begin anew until so many are over")
    parser.add_argument("--short", action="store_true", help="the sizes of the test run")
    parser.add_argument("--only", default="", help="the number of a scenario")
    parser.add_argument("providers", nargs="*", metavar="SERVICE:PROVIDER", help="a name, or a URL")
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # What scenarios provoke is logged, also by client packages.
    until = time.monotonic() + 60 * options.minutes
    good = True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        present = [
            place
            for service, names in wanted(options.providers).items()
            for place in stack.enter_context(places(service, names, folder))
        ]
        while True:
            good &= asyncio.run(once(present, SHORT if options.short else FULL, options.only))
            if time.monotonic() >= until:
                break
    sys.exit(not good)


if __name__ == "__main__":
    main()
