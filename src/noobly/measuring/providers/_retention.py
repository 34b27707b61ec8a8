"""What leaves an SQLite file of measuring, and what each series then no longer has."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from noobly.measuring.rollups import STEPS

_LOWER_RAW = """
UPDATE series SET floor0 = max(floor0, ?1)
WHERE EXISTS (SELECT 1 FROM samples WHERE samples.series = series.id AND samples.at < ?1)
"""
_DROP_RAW = "DELETE FROM samples WHERE series IN (SELECT id FROM series) AND at < ?"
_LOWER = """
UPDATE series SET floor{level} = max(floor{level}, ?1)
WHERE EXISTS (SELECT 1 FROM rollups WHERE rollups.series = series.id AND level = {level} AND rollups.at < ?1)
"""
_DROP = "DELETE FROM rollups WHERE series IN (SELECT id FROM series) AND level = ? AND at < ?"
_CROWDED = "SELECT series FROM samples GROUP BY series HAVING count(*) > ?"
_LAST_TO_GO = "SELECT at FROM samples WHERE series = ? ORDER BY at DESC LIMIT 1 OFFSET ?"
_LOWER_ONE = "UPDATE series SET floor0 = max(floor0, ?) WHERE id = ?"
_DROP_ONE = "DELETE FROM samples WHERE series = ? AND at <= ?"
_FORGET = """
DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM rollups WHERE rollups.series = series.id)
AND NOT EXISTS (SELECT 1 FROM samples WHERE samples.series = series.id)
"""
_ULP = 1e-6
"""Seconds by which a floor stands above the last sample that left."""


def drop(connection: sqlite3.Connection, cutoffs: Sequence[float], most: int) -> int:
    """Drop what is older than its tier keeps, and raw samples past so many per series; return how many rows."""
    connection.execute(_LOWER_RAW, (cutoffs[0],))
    dropped = connection.execute(_DROP_RAW, (cutoffs[0],)).rowcount
    for level in range(1, len(STEPS)):
        # Steps that ended by then; those that reach beyond it stay.
        last = cutoffs[level] - STEPS[level]
        floor = last - last % STEPS[level] + STEPS[level]
        connection.execute(_LOWER.format(level=level), (floor,))
        dropped += connection.execute(_DROP, (level, floor)).rowcount
    dropped += _thin(connection, most)
    connection.execute(_FORGET)
    return dropped


def _thin(connection: sqlite3.Connection, most: int) -> int:
    dropped = 0
    for (series,) in connection.execute(_CROWDED, (most,)).fetchall():
        (at,) = connection.execute(_LAST_TO_GO, (series, most)).fetchone()
        connection.execute(_LOWER_ONE, (at + _ULP, series))
        dropped += connection.execute(_DROP_ONE, (series, at)).rowcount
    return dropped
