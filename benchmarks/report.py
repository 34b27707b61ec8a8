"""Writes docs/benchmarks.md from the JSON lines that benchmarks append with ``--json``; of each table the last one.

What the page says of benchmarks that are not among the results stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import msgspec

from benchmarks._rounds import Table

INTRODUCTION = """# Benchmarks

Each table is one run of a program in `benchmarks/`, in which the variants took turns; a ratio compares turns of the
same round, so that a machine that slows down slows both alike. Shown are medians, and in brackets the least and the
most of all rounds. Ratios are of operations per second and can be compared between machines; absolute figures cannot.
CPU is of the client for caches, queues and connections, of the server for HTTP, and of the worker for jobs. All sides
run on the event loop named below their table. This page is written by `benchmarks/report.py`.
"""


def page(tables: Iterable[Table], before: str = "") -> str:
    """Return the page, benchmark by benchmark.

    Args:
        tables: The results, those of one benchmark together.
        before: The page as it was.
    """
    parts = dict(part.split("\n", 1) for part in before.split("\n## ")[1:])
    for benchmark, group in groupby(tables, key=lambda table: table.benchmark):
        parts[benchmark] = "\n\n".join("\n".join(section(table)).strip() for table in group)
    named = [f"## {benchmark}\n\n{part.strip()}" for benchmark, part in sorted(parts.items())]
    return "\n\n".join([INTRODUCTION.strip(), *named]) + "\n"


def section(table: Table) -> Iterator[str]:
    """Yield the lines of one table: what it shows, goals, ratios, and what it was measured on."""
    yield f"### {table.title}\n"
    if table.note:
        yield f"{table.note}\n"
    for goal in table.goals:
        yield f"- {goal.what}: **{goal.found}**, goal {goal.wanted}, {'met' if goal.met else 'missed'}"
    yield ""
    yield _cells(table.head)
    yield _cells(["---", *["--:"] * (len(table.head) - 1)])
    yield from map(_cells, table.rows)
    yield f"\n{table.date}; {table.machine}. {table.versions}."


def _cells(row: Iterable[str]) -> str:
    return "| " + " | ".join(row) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="the file given to --json")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "docs" / "benchmarks.md")
    options = parser.parse_args()
    decode = msgspec.json.Decoder(Table).decode
    latest: dict[tuple[str, str], Table] = {}
    for line in options.results.read_bytes().splitlines():
        table = decode(line)
        latest[table.benchmark, table.title] = table
    ordered = sorted(latest.values(), key=lambda table: table.benchmark)
    before = options.output.read_text() if options.output.exists() else ""
    options.output.write_text(page(ordered, before))


if __name__ == "__main__":
    main()
