"""The tables of measuring in an SQLite file, and one series of them as a source of rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from noobly.clients.sqlite import Schema
from noobly.measuring import sketch
from noobly.measuring.driver import Sample, SeriesInfo
from noobly.measuring.rollups import STEPS, Row, Span, begin, merged, raw

Labels = tuple[tuple[str, str], ...]
"""Label values by name, sorted by name."""

_ALWAYS = "-9e999"
"""How SQL writes minus infinity."""

SCHEMA = Schema(
    name="measuring",
    migrations=(
        (
            f"""CREATE TABLE series (
                id INTEGER PRIMARY KEY, name TEXT NOT NULL, labels TEXT NOT NULL, count INTEGER NOT NULL,
                last_at REAL NOT NULL, last_value REAL NOT NULL,
                floor0 REAL NOT NULL DEFAULT {_ALWAYS}, floor1 REAL NOT NULL DEFAULT {_ALWAYS},
                floor2 REAL NOT NULL DEFAULT {_ALWAYS}, floor3 REAL NOT NULL DEFAULT {_ALWAYS},
                UNIQUE (name, labels)
            )""",
            "CREATE TABLE samples (series INTEGER NOT NULL, at REAL NOT NULL, value REAL NOT NULL)",
            "CREATE INDEX samples_by_time ON samples (series, at)",
            """CREATE TABLE rollups (
                series INTEGER NOT NULL, level INTEGER NOT NULL, at REAL NOT NULL, samples INTEGER NOT NULL,
                sum REAL NOT NULL, min REAL NOT NULL, max REAL NOT NULL, last REAL NOT NULL, last_at REAL NOT NULL,
                sketch BLOB NOT NULL, PRIMARY KEY (series, level, at)
            ) WITHOUT ROWID""",
        ),
    ),
)

_SERIES = """
INSERT INTO series (name, labels, count, last_at, last_value) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (name, labels) DO UPDATE SET
    count = count + excluded.count,
    last_value = iif(excluded.last_at >= last_at, excluded.last_value, last_value),
    last_at = max(last_at, excluded.last_at)
RETURNING id
"""
_SAMPLE = "INSERT INTO samples VALUES (?, ?, ?)"
_ROLLUP = """
INSERT INTO rollups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    sketch = merged_sketch(sketch, last, samples, excluded.sketch, excluded.last, excluded.samples),
    samples = samples + excluded.samples,
    sum = sum + excluded.sum,
    min = min(min, excluded.min),
    max = max(max, excluded.max),
    last = iif(excluded.last_at >= last_at, excluded.last, last),
    last_at = max(last_at, excluded.last_at)
"""
_RAW_ROWS = "SELECT at, value FROM samples WHERE series = ? AND at >= ? AND at < ? ORDER BY at, rowid"
_ROWS = """
SELECT at, samples, sum, min, max, last, last_at, sketch FROM rollups
WHERE series = ? AND level = ? AND at >= ? AND at < ? ORDER BY at
"""
_RAW_EXTENT = """
SELECT (SELECT min(at) FROM samples WHERE series = ?1), (SELECT max(at) FROM samples WHERE series = ?1)
"""
_EXTENT = """
SELECT (SELECT min(at) FROM rollups WHERE series = ?1 AND level = ?2),
       (SELECT max(at) FROM rollups WHERE series = ?1 AND level = ?2)
"""
_NAMED = "SELECT id, labels, floor0, floor1, floor2, floor3 FROM series WHERE name = ?"
_LIST = """
SELECT name, labels, count, last_at, last_value FROM series WHERE name >= ? AND name < ?
ORDER BY last_at DESC, name DESC LIMIT ?
"""

_BEYOND = "\U0010ffff" * 256
"""Text that stands after all that may follow a prefix."""


def prepare(connection: sqlite3.Connection) -> None:
    """Add what the statements of this module call."""
    connection.create_function("merged_sketch", 6, _merged_sketch, deterministic=True)


def _merged_sketch(one: bytes, last: float, samples: int, other: bytes, other_last: float, others: int) -> bytes:
    counts = sketch.decode(one) if one else {sketch.bucket(last): samples}
    sketch.merge(counts, sketch.decode(other) if other else {sketch.bucket(other_last): others})
    return sketch.encode(counts) if len(counts) > 1 else b""


def write(connection: sqlite3.Connection, samples: Sequence[Sample]) -> None:
    """Store samples, raw and in every tier."""
    grouped: dict[tuple[str, Labels], list[Sample]] = {}
    for sample in samples:
        grouped.setdefault((sample.name, sample.labels), []).append(sample)
    for (name, labels), members in grouped.items():
        # Sorted, so that of samples at the same time the one that came last is the latest.
        members.sort(key=lambda sample: sample.at)
        last = members[-1]
        wanted = (name, encode_labels(labels), len(members), last.at, last.value)
        number: int = connection.execute(_SERIES, wanted).fetchone()[0]
        connection.executemany(_SAMPLE, [(number, sample.at, sample.value) for sample in members])
        connection.executemany(_ROLLUP, [(number, *row) for row in _rolled_up(members)])


def _rolled_up(samples: Sequence[Sample]) -> Iterator[tuple[object, ...]]:
    for level in range(1, len(STEPS)):
        steps: dict[float, list[Row]] = {}
        for sample in samples:
            steps.setdefault(begin(sample.at, level), []).append(raw(sample.at, sample.value))
        for at, rows in steps.items():
            yield (level, *merged(rows)._replace(at=at))


def encode_labels(labels: Labels) -> str:
    """Return label values as text."""
    return msgspec.json.encode(labels).decode()


def decode_labels(text: str) -> Labels:
    """Return label values from their text."""
    return msgspec.json.decode(text, type=Labels)


class StoredSeries(NamedTuple):
    """A series in the file, as ``rollups.answer`` reads it."""

    connection: sqlite3.Connection
    number: int
    labels: Labels
    floors: tuple[float, ...]

    def extent(self, level: int) -> tuple[float, float] | None:
        """See ``Source``."""
        statement, names = (_EXTENT, (self.number, level)) if level else (_RAW_EXTENT, (self.number,))
        first, last = self.connection.execute(statement, names).fetchone()
        return None if first is None else (first, last)

    def rows(self, span: Span) -> Iterable[Row]:
        """See ``Source``."""
        if not span.level:
            found = self.connection.execute(_RAW_ROWS, (self.number, span.start, span.end))
            return [raw(at, value) for at, value in found]
        found = self.connection.execute(_ROWS, (self.number, span.level, span.start, span.end))
        return map(Row._make, found)


def named(connection: sqlite3.Connection, name: str) -> list[StoredSeries]:
    """Return the series of a metric."""
    rows = connection.execute(_NAMED, (name,)).fetchall()
    return [StoredSeries(connection, number, decode_labels(text), tuple(floors)) for number, text, *floors in rows]


def listed(connection: sqlite3.Connection, prefix: str, limit: int) -> list[SeriesInfo]:
    """Return the series whose name begins so, the one with the latest sample first."""
    # A range, for SQLite's functions on text stop at a NUL.
    rows = connection.execute(_LIST, (prefix, prefix + _BEYOND, limit))
    return [
        SeriesInfo(name=name, labels=dict(decode_labels(text)), count=count, last_at=at, last_value=value)
        for name, text, count, at, value in rows
    ]
