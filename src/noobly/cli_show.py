"""What commands print: tables for people, JSON for programs, and a bar for what takes a while."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from noobly.core.errors import ConfigError, InvalidArgument, NooblyError

if TYPE_CHECKING:
    import msgspec


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, steps: int = 1) -> None:
        """Move it by so many steps."""
        ...


def show(rows: Sequence[msgspec.Struct], *, json: bool) -> None:
    """Print rows of one kind, as a table or as JSON."""
    if json:
        show_json(rows)
    elif rows:
        names = rows[0].__struct_fields__
        show_table(names, [[getattr(row, name) for name in names] for row in rows])


def show_fields(one: msgspec.Struct) -> None:
    """Print one thing, a field in each line; times, whose names end with ``_at``, as UTC."""
    for name in one.__struct_fields__:
        value = getattr(one, name)
        write(f"{name}: {_moment(value) if name.endswith('_at') else _field(value)}")


def show_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    table = [[head.upper() for head in heads], *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_json(data: object) -> None:
    """Print JSON."""
    from msgspec import json

    write(json.format(json.encode(data), indent=2).decode())


def write(line: str) -> None:
    """Print one line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def complain(error: NooblyError, where: str = "") -> None:
    """Print an error as one line on standard error.

    Args:
        error: The error.
        where: What stands before it, such as the table of the settings that it is about.
    """
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    kind = "settings" if isinstance(error, ConfigError) else error.code
    sys.stderr.write(f"noobly: {where}{kind}: {error.message}{notes}\n")


def exit_code(error: Exception | None) -> int:
    """Return how a command ends: 0, 1 for a failure, 2 for wrong settings or arguments."""
    if error is None:
        return 0
    return 2 if isinstance(error, InvalidArgument) else 1


@contextmanager
def bar(title: str, total: int) -> Iterator[Advance]:
    """Show a progress bar on a terminal while the body runs; anywhere else, nothing."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total)

        def advance(steps: int = 1) -> None:
            progress.advance(task, steps)

        yield advance


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="milliseconds") if seconds else "-"


def _field(value: object) -> str:
    from msgspec import json

    return json.encode(value).decode() if isinstance(value, dict | list) else _cell(value)


def _cell(value: object) -> str:
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(round(value, 6))
    if isinstance(value, Enum):
        return str(value.value)
    return plain(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def plain(text: str) -> str:
    """Return text that moves no cursor and makes no line: others have written it."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
