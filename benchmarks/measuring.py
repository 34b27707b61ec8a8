"""Counting and exposing against prometheus_client, the OpenTelemetry SDK and prom-client of Node.js.

Installs prom-client with npm into a folder that is removed afterwards; without Node.js it is left out.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from benchmarks._rounds import Faster, Outcome, Session, Variant, Work, run
from noobly.core.meter import Meter
from noobly.measuring.exposition import Exposition, Format, Wanted, render
from noobly.measuring.instruments import Instruments

PROM_CLIENT = "15.1.3"
LABELS = ["method", "route", "status"]
BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
SERIES = 10_000


class Node:
    """A Node.js process that does what it is told, so many times."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def work(self, name: str, count: int) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name} {count}\n".encode())
        await self._process.stdout.readline()
        return count

    def cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def variant(self, name: str) -> list[Variant]:
        return [Variant("prom-client", partial(self.work, name), self.cpu)]


class Nobody(Node):
    """Stands where there is no Node.js."""

    def __init__(self) -> None: ...

    def variant(self, name: str) -> list[Variant]:
        return []


@asynccontextmanager
async def node() -> AsyncIterator[Node]:
    npm, program = shutil.which("npm"), shutil.which("node")
    if npm is None or program is None:
        yield Nobody()
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "install", "--prefix", folder, "--no-audit", "--no-fund", f"prom-client@{PROM_CLIENT}"]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        script = Path(__file__).with_name("measuring.cjs")
        process = await asyncio.create_subprocess_exec(
            program,
            str(script),
            env={"NODE_PATH": f"{folder}/node_modules"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        try:
            yield Node(process)
        finally:
            process.terminate()
            await process.communicate()


def again(call: Callable[[], object]) -> Work:
    async def work(count: int) -> int:
        for _ in range(count):
            call()
        return count

    return work


async def counting(session: Session, node: Node) -> None:
    ours = Instruments(Meter()).counter("requests_total", "Requests.", labels=LABELS)
    theirs = Counter("requests", "Requests.", LABELS, registry=CollectorRegistry())
    with_sdk = MeterProvider([InMemoryMetricReader()])
    sdk = with_sdk.get_meter("bench").create_counter("requests")
    attributes = {"method": "GET", "route": "/users", "status": "200"}
    values = tuple(attributes.values())
    await session.compare(
        "counter: three labels each time",
        [
            Variant("prometheus_client labels().inc()", again(lambda: theirs.labels(*values).inc())),
            Variant("noobly labels().inc()", again(lambda: ours.labels(*values).inc())),
            Variant("prometheus_client labels(**).inc()", again(lambda: theirs.labels(**attributes).inc())),
            Variant("noobly inc(**)", again(lambda: ours.inc(**attributes))),
            Variant("OpenTelemetry add()", again(lambda: sdk.add(1, attributes))),
            *node.variant("labelled"),
        ],
        base="prometheus_client labels().inc()",
        goals=[
            Faster("noobly labels().inc()", "prometheus_client labels().inc()", 1),
            Faster("noobly inc(**)", "prometheus_client labels().inc()", 1),
        ],
    )
    our_child, their_child = ours.labels(*values), theirs.labels(*values)
    await session.compare(
        "counter: bound once",
        [
            Variant("prometheus_client", again(their_child.inc)),
            Variant("noobly", again(our_child.inc)),
            *node.variant("bound"),
        ],
        base="prometheus_client",
        goals=[Faster("noobly", "prometheus_client", 1)],
    )
    with_sdk.shutdown()


async def observing(session: Session, node: Node) -> None:
    labels, values = ["method", "route"], ("GET", "/users")
    ours = Instruments(Meter()).histogram("took_seconds", "Took.", labels=labels, buckets=BUCKETS)
    theirs = Histogram("took_seconds", "Took.", labels, buckets=BUCKETS, registry=CollectorRegistry())
    with_sdk = MeterProvider([InMemoryMetricReader()])
    sdk = with_sdk.get_meter("bench").create_histogram("took", explicit_bucket_boundaries_advisory=BUCKETS)
    attributes = dict(zip(labels, values, strict=True))
    await session.compare(
        "histogram: two labels each time",
        [
            Variant("prometheus_client", again(lambda: theirs.labels(*values).observe(0.02))),
            Variant("noobly", again(lambda: ours.labels(*values).observe(0.02))),
            Variant("OpenTelemetry", again(lambda: sdk.record(0.02, attributes))),
            *node.variant("observe"),
        ],
        base="prometheus_client",
        goals=[Faster("noobly", "prometheus_client", 1)],
    )
    with_sdk.shutdown()


def filled() -> tuple[Meter, CollectorRegistry]:
    """Return the same 10,000 counters, in a meter and in a registry of prometheus_client."""
    meter, registry = Meter(cap=SERIES), CollectorRegistry()
    ours = Instruments(meter).counter("series_total", "Series.", labels=["a", "b"])
    theirs = Counter("series", "Series.", ["a", "b"], registry=registry)
    for place in range(SERIES):
        ours.labels(f"a{place % 100}", f"b{place}").inc(place)
        theirs.labels(f"a{place % 100}", f"b{place}").inc(place)
    for name in ("noobly_operation_duration_seconds", "noobly_provider_instances", "noobly_provider_operations"):
        meter.registry.unregister(next(one for one in meter.registry.collectors if one.head.name == name))
    return meter, registry


async def exposing(session: Session, node: Node) -> None:
    meter, registry = filled()
    shown = Exposition(meter, others=None)

    async def ours(count: int) -> int:
        for _ in range(count):
            render(await shown.own(), Format.TEXT)
        return count

    assert render(await shown.own(), Format.TEXT) == generate_latest(registry) == generate_latest(meter.registry)
    await session.compare(
        f"exposition: {SERIES:,} counters",
        [
            Variant("generate_latest", again(partial(generate_latest, registry))),
            Variant("generate_latest of noobly's registry", again(partial(generate_latest, meter.registry))),
            Variant("noobly", ours),
            *node.variant("render"),
        ],
        base="generate_latest",
        goals=[Faster("noobly", "generate_latest", 10)],
        note="The same bytes from each of the first three; prometheus_client without its _created lines.",
    )


async def stalls(session: Session) -> None:
    """Show how late the event loop comes while a scrape is answered."""
    title = f"event loop: how late it comes during a scrape of {SERIES:,} counters"
    if session.options.only not in title:
        return
    meter, registry = filled()

    async def ours() -> None:
        await Exposition(meter, others=None).page(Wanted())

    async def on_loop() -> None:
        generate_latest(registry)

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "nothing": partial(asyncio.sleep, 0.02),
        "noobly": ours,
        "generate_latest in a thread": lambda: asyncio.to_thread(generate_latest, registry),
        "generate_latest on the loop": on_loop,
    }
    late: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(session.options.rounds * 3):
        for name, scrape in ways.items():
            late[name].append(await latest(scrape))
    rows = [
        [name, *(f"{value * 1e3:.2f}" for value in (statistics.median(found), max(found)))]
        for name, found in late.items()
    ]
    worst = statistics.median(late["noobly"])
    outcome = Outcome(
        "median of the longest stall of each scrape, ms", f"{worst * 1e3:.2f}", "at most 5", worst <= 5e-3
    )
    note = "A task that sleeps 1 ms at a time says how late it was; the longest of each scrape counts."
    session.add(title, ["", "median ms", "most ms"], rows, [outcome], note)


async def latest(scrape: Callable[[], Awaitable[object]]) -> float:
    gc.collect()
    found = 0.0
    done = asyncio.Event()

    async def tick() -> None:
        nonlocal found
        while not done.is_set():
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            found = max(found, time.perf_counter() - due)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.005)
    found = 0.0
    await scrape()
    await asyncio.sleep(0.002)
    done.set()
    await ticking
    return found


async def measuring(session: Session) -> None:
    """Counting and exposing against prometheus_client, the OpenTelemetry SDK and prom-client of Node.js."""
    disable_created_metrics()
    async with node() as peer:
        await counting(session, peer)
        await observing(session, peer)
        await exposing(session, peer)
    await stalls(session)


if __name__ == "__main__":
    run(measuring, packages=("prometheus_client", "opentelemetry-sdk"))
