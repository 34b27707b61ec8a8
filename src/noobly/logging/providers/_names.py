"""The names of a log file's companions: rotated files by when they were begun, the lock, the journal of batches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

_STAMP = "%Y%m%dT%H%M%S.%fZ"
_ROTATED = re.compile(r"\.(\d{8}T\d{6}\.\d{6}Z)(\.gz)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PACKED = ".gz"
UNFINISHED = ".part"


class Rotated(NamedTuple):
    """A file that is written to no more.

    Args:
        began: When it was begun, in microseconds since the epoch; it never changes, so it is the file's identity.
        path: Where it is.
        packed: It is compressed.
    """

    began: int
    path: Path
    packed: bool


def rotated_name(path: Path, began: int) -> Path:
    """Return the name that a log file is given when it is rotated."""
    stamp = (_EPOCH + timedelta(microseconds=began)).strftime(_STAMP)
    return path.with_name(f"{path.name}.{stamp}")


def rotated(path: Path) -> list[Rotated]:
    """Return the rotated files of a log file, the oldest first; of one that is there twice, the one to read."""
    with os.scandir(path.parent) as items:
        found = sorted(_rotated(path, [item.name for item in items]), key=lambda one: (one.began, not one.packed))
    return list({one.began: one for one in found}.values())


def _rotated(path: Path, names: list[str]) -> Iterator[Rotated]:
    for name in names:
        match = _ROTATED.fullmatch(name.removeprefix(path.name)) if name.startswith(path.name) else None
        if match is not None:
            moment = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC)
            began = (moment - _EPOCH) // timedelta(microseconds=1)
            yield Rotated(began, path.with_name(name), match[2] is not None)
