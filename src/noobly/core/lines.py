"""What an exposition is made of: families as blocks of lines, and the text of names, labels, values and exemplars.

The text is that of https://prometheus.io/docs/instrumenting/exposition_formats/ and, where they differ, of OpenMetrics
1.0 (https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum
from math import inf
from typing import NamedTuple, Protocol

import msgspec
from opentelemetry.trace import get_current_span
from prometheus_client.samples import Exemplar

Line = tuple[str, float]
"""One sample: its text up to the value, ``name{label="value"} `` with the space, and the value."""

LINES = 2_500
"""Lines that are made in a thread before others get the interpreter's lock: about a millisecond."""

_BREATH = 5e-5


class Merge(Enum):
    """How the values of a gauge become one where several processes serve as one."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    MOSTRECENT = "mostrecent"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a metric family says of itself.

    Args:
        name: Its name; without ``_total`` for a counter, as in OpenMetrics.
        type: ``counter``, ``gauge``, ``histogram``, ``summary`` or another type of OpenMetrics.
        text: What it counts, in one sentence.
        labels: The names of its labels.
        unit: Its unit, where the name ends with one and it is to be declared.
        merge: How a gauge's values of several processes become one; all else is summed.
    """

    name: str
    type: str
    text: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    merge: Merge = Merge.SUM


class Trace(msgspec.Struct, frozen=True):
    """An exemplar: a measured value, when it was, and the sampled trace it belongs to."""

    trace_id: str
    span_id: str
    value: float
    at: float

    def as_exemplar(self) -> Exemplar:
        """Return it as prometheus-client has it."""
        return Exemplar({"span_id": self.span_id, "trace_id": self.trace_id}, self.value, self.at)


def trace_of(value: float) -> Trace | None:
    """Return an exemplar of the current trace; None where there is none or it is not sampled."""
    context = get_current_span().get_span_context()
    if not context.is_valid or not context.trace_flags.sampled:
        return None
    return Trace(format(context.trace_id, "032x"), format(context.span_id, "016x"), value, time.time())


class Extra(msgspec.Struct, frozen=True, kw_only=True):
    """What few lines have besides a value.

    Args:
        exemplar: The exemplar's text behind the value, for OpenMetrics.
        stamp: The sample's own time as OpenMetrics writes it.
        milliseconds: The same as the text format writes it.
        at: Seconds since the epoch when the value was set, which decides between processes.
    """

    exemplar: str = ""
    stamp: str = ""
    milliseconds: str = ""
    at: float = 0.0


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One family as it was at one moment; ``foreign`` where it is not from a family of this module."""

    head: Head
    lines: list[Line]
    extras: dict[str, Extra] = {}
    foreign: bool = False


class Chunk(Protocol):
    """Some series of a family at one moment."""

    def lines(self, extras: dict[str, Extra]) -> list[Line]:
        """Return their lines, and add what some of them have besides; called in a thread."""
        ...


class Ready(NamedTuple):
    """A chunk that has its lines already."""

    rows: list[Line]
    found: dict[str, Extra]

    def lines(self, extras: dict[str, Extra]) -> list[Line]:
        """Return the lines."""
        extras |= self.found
        return self.rows


def breathe() -> None:
    """Let other threads go on: one that computes keeps the interpreter's lock for 5 ms, unless it lets go of it."""
    time.sleep(_BREATH)


def escaped(value: str) -> str:
    """Return a label value as both formats write it between quotation marks."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def label_text(names: Sequence[str], values: Sequence[str]) -> str:
    """Return ``a="1",b="2"``, sorted by name."""
    return ",".join(f'{name}="{escaped(value)}"' for name, value in sorted(zip(names, values, strict=True)))


def start_of(name: str, labels: str) -> str:
    """Return a line up to its value."""
    return f"{name}{{{labels}}} " if labels else f"{name} "


def number(value: float) -> str:
    """Return a value as Go writes it, which is what prometheus-client does."""
    if -inf < value < 1e6:
        return repr(value)
    if value != value:
        return "NaN"
    if value in (inf, -inf):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    dot = text.find(".")
    if dot <= 6:
        return text
    mantissa = f"{text[0]}.{text[1:dot]}{text[dot + 1 :]}".rstrip("0.")
    return f"{mantissa}e+{dot - 1:02d}"


def exemplar_text(exemplar: Exemplar) -> str:
    """Return what stands behind a value in OpenMetrics."""
    labels = ",".join(f'{name}="{escaped(value)}"' for name, value in sorted(exemplar.labels.items()))
    stamp = "" if exemplar.timestamp is None else f" {exemplar.timestamp}"
    return f" # {{{labels}}} {number(float(exemplar.value))}{stamp}"
