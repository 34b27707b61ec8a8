"""The harness of all benchmarks: variants take turns, and each turn is compared with those of its own round.

A machine that slows down, or that others use, then slows what is compared alike. Ratios are of operations per second;
costs are CPU time of this process, or of the server, which other load disturbs least. Both are medians over the rounds,
with the least and the most of them beside.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

Work: TypeAlias = Callable[[int], Awaitable[int]]
"""Does about so many operations and returns how many it did."""
Call: TypeAlias = Callable[[str], Awaitable[object]]


def cpu_seconds() -> float:
    """Return CPU seconds used by this process and its children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


async def nothing(count: int) -> None:
    """Prepare nothing."""


class Variant(NamedTuple):
    """One of the things compared; ``cpu`` tells the CPU seconds of the process that counts.

    ``prepare`` is awaited before each turn with the number of operations to come, and is not measured.
    """

    name: str
    work: Work
    cpu: Callable[[], float] = cpu_seconds
    prepare: Callable[[int], Awaitable[None]] = nothing


class Turn(NamedTuple):
    """What one turn of a variant took, in microseconds per operation."""

    wall: float
    cpu: float


class Faster(NamedTuple):
    """A goal: ``subject`` does at least so many times the operations per second of ``base``."""

    subject: str
    base: str
    at_least: float


class Costs(NamedTuple):
    """A goal: ``subject`` takes at most so many microseconds of CPU per operation more than ``base``."""

    subject: str
    base: str
    at_most: float


class Outcome(msgspec.Struct, frozen=True):
    """A goal and what became of it."""

    what: str
    found: str
    wanted: str
    met: bool


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One result, as it is printed, written as a JSON line and shown in the documentation."""

    benchmark: str
    title: str
    head: list[str]
    rows: list[list[str]]
    goals: list[Outcome] = []
    note: str = ""
    date: str = ""
    machine: str = ""
    versions: str = ""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a benchmark runs: rounds besides the warm-up, seconds of one turn, on which cores, and where results go."""

    rounds: int
    seconds: float
    loop: str
    cores: str
    only: str
    json: Path | None


class Session:
    """One run of one benchmark: compares, prints and keeps the tables."""

    def __init__(self, benchmark: str, options: Options, packages: Sequence[str]) -> None:
        self.benchmark = benchmark
        self.options = options
        self.tables: list[Table] = []
        self._versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("noobly", *packages))

    async def compare(
        self,
        title: str,
        variants: Sequence[Variant],
        *,
        base: str,
        goals: Sequence[Faster | Costs] = (),
        note: str = "",
    ) -> None:
        """Let variants take turns and keep the table of their ratios to ``base``."""
        if self.options.only not in title:
            return
        counts = {one.name: await _calibrate(one, self.options.seconds) for one in variants}
        rounds = [
            {one.name: await _turn(one, counts[one.name]) for one in variants} for _ in range(self.options.rounds)
        ]
        head = ["", f"x {base}", "spread", "per second", "µs", "CPU µs", "CPU µs over it", "spread"]
        rows = [_row(one.name, base, rounds) for one in variants]
        self.add(title, head, rows, [_outcome(goal, rounds) for goal in goals], note)

    def add(
        self, title: str, head: list[str], rows: list[list[str]], goals: Sequence[Outcome] = (), note: str = ""
    ) -> None:
        """Print a table and keep it."""
        table = Table(
            benchmark=self.benchmark,
            title=title,
            head=head,
            rows=rows,
            goals=list(goals),
            note=note,
            date=datetime.now(UTC).date().isoformat(),
            machine=machine(self.options),
            versions=self._versions,
        )
        self.tables.append(table)
        print("\n" + plain(table), flush=True)

    def keep(self) -> None:
        """Append the tables to the file of ``--json``."""
        if self.options.json is not None:
            with self.options.json.open("ab") as file:
                file.writelines(msgspec.json.encode(table) + b"\n" for table in self.tables)


def sequential(call: Call, keys: Sequence[str]) -> Work:
    """Return work that awaits one call after the other, its keys in turn."""
    turning = cycle(keys)

    async def work(count: int) -> int:
        for key in islice(turning, count):
            await call(key)
        return count

    return work


def together(call: Call, keys: Sequence[str], tasks: int) -> Work:
    """Return work in which so many tasks call at once."""
    one = sequential(call, keys)

    async def work(count: int) -> int:
        share = count // tasks + 1
        return sum(await asyncio.gather(*(one(share) for _ in range(tasks))))

    return work


def run(
    benchmark: Callable[[Session], Awaitable[None]],
    *,
    packages: Sequence[str] = (),
    rounds: int = 9,
    seconds: float = 0.2,
) -> None:
    """Run a benchmark as a program.

    Args:
        benchmark: Compares what it wants to.
        packages: Distributions whose versions matter.
        rounds: Rounds by default.
        seconds: Seconds of a turn by default.
    """
    options = _options(benchmark.__doc__, rounds, seconds)
    if options.cores == "one":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    session = Session(Path(sys.argv[0]).stem, options, packages)
    print(f"{machine(options)}\n{options.rounds} rounds of turns of {options.seconds} s, after a warm-up")
    with asyncio.Runner(loop_factory=_loops()[options.loop]) as runner:
        runner.run(_whole(benchmark, session))
    session.keep()


async def _whole(benchmark: Callable[[Session], Awaitable[None]], session: Session) -> None:
    await benchmark(session)


def _options(description: str | None, rounds: int, seconds: float) -> Options:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds, help="length of one turn")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop", help="the same for all variants")
    parser.add_argument(
        "--cores", choices=["one", "all"], default="one", help="what this process, its children and servers share"
    )
    parser.add_argument("--only", default="", help="only tables with this in their title")
    parser.add_argument("--json", type=Path, help="append the results to this file, for report.py")
    return msgspec.convert(vars(parser.parse_args()), Options)


def _loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop] | None]:
    import uvloop

    return {"uvloop": uvloop.new_event_loop, "asyncio": None}


async def _turn(variant: Variant, count: int) -> Turn:
    await variant.prepare(count)
    gc.collect()
    cpu, began = variant.cpu(), time.perf_counter()
    done = await variant.work(count)
    took, used = time.perf_counter() - began, variant.cpu() - cpu
    return Turn(took / done * 1e6, used / done * 1e6)


async def _calibrate(variant: Variant, seconds: float) -> int:
    """Warm up, and return how many operations fill a turn."""
    count = 1
    while True:
        await variant.prepare(count)
        began = time.perf_counter()
        done = await variant.work(count)
        took = time.perf_counter() - began
        if took > seconds / 4:
            return max(1, int(done * seconds / took))
        count = done * 4


def _row(name: str, base: str, rounds: Sequence[dict[str, Turn]]) -> list[str]:
    wall = statistics.median(found[name].wall for found in rounds)
    cpu = statistics.median(found[name].cpu for found in rounds)
    return [
        name,
        *spread(ratios(name, base, rounds)),
        digits(1e6 / wall),
        digits(wall),
        digits(cpu),
        *spread(costs(name, base, rounds)),
    ]


def ratios(name: str, base: str, rounds: Sequence[dict[str, Turn]]) -> list[float]:
    """Return how many times faster one variant was than another, round by round."""
    return [found[base].wall / found[name].wall for found in rounds]


def costs(name: str, base: str, rounds: Sequence[dict[str, Turn]]) -> list[float]:
    """Return how much more CPU one variant took than another, round by round, in microseconds."""
    return [found[name].cpu - found[base].cpu for found in rounds]


def _outcome(goal: Faster | Costs, rounds: Sequence[dict[str, Turn]]) -> Outcome:
    if isinstance(goal, Faster):
        found = ratios(goal.subject, goal.base, rounds)
        what, met = f"{goal.subject} per second x {goal.base}", statistics.median(found) >= goal.at_least
        return Outcome(what, " ".join(spread(found)), f"at least {goal.at_least:g}", met)
    found = costs(goal.subject, goal.base, rounds)
    what, met = f"CPU µs of {goal.subject} over {goal.base}", statistics.median(found) <= goal.at_most
    return Outcome(what, " ".join(spread(found)), f"at most {goal.at_most:g}", met)


def spread(values: Sequence[float]) -> tuple[str, str]:
    """Return the median, and the least and the most."""
    return digits(statistics.median(values)), f"({digits(min(values))} to {digits(max(values))})"


def digits(value: float) -> str:
    """Return a number with three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine(options: Options) -> str:
    """Return what a result depends on besides the code: machine, cores, interpreter, event loop and load."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    python = f"{platform.python_implementation()} {platform.python_version()}"
    cores = f"{os.cpu_count()} vCPU of which {options.cores} used"
    return f"{model}, {cores}, {platform.system()}, {python}, {options.loop}; load {load}"


def plain(table: Table) -> str:
    """Return a table as text."""
    cells = [table.head, *table.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(row, widths) for row in cells]
    goals = [f"  {'met   ' if one.met else 'MISSED'}  {one.what}: {one.found}, {one.wanted}" for one in table.goals]
    return "\n".join([table.title, *([table.note] if table.note else []), *lines, *goals])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()
