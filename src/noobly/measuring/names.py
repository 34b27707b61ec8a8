"""Which names and label values a metric may have.

Rules: https://prometheus.io/docs/concepts/data_model/ and https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from noobly.core.errors import InvalidArgument

VALUE_CHARACTERS = 256
"""The longest label value; longer ones are cut, for a metric must not fail the call it measures."""

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,199}")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,99}")
_RESERVED = {"histogram": ("le",), "summary": ("quantile",)}
_SUFFIXES = ("_total", "_created", "_bucket", "_count", "_sum", "_info")
_SURROGATES = re.compile("[\ud800-\udfff]")
_MOST_LABELS = 16


def check_name(name: str, kind: str) -> str:
    """Return the name of a metric's family: a counter's without ``_total``.

    Args:
        name: The name as it was declared.
        kind: ``counter``, ``gauge``, ``histogram`` or ``summary``.

    Raises:
        InvalidArgument: It is not of letters, digits and underscores, or reserved, or lacks what its kind asks.
    """
    if ":" in name:
        raise InvalidArgument(f"the metric {name!r} has a colon, which is for recording rules; use an underscore")
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"the metric {name!r} must be up to 200 letters, digits and underscores, no digit first")
    if name.startswith("__"):
        raise InvalidArgument(f"the metric {name!r} begins with two underscores, which Prometheus keeps for itself")
    if kind == "counter":
        if not name.endswith("_total") or name == "_total":
            raise InvalidArgument(f"the counter {name!r} must end with _total: {name}_total")
        name = name.removesuffix("_total")
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            raise InvalidArgument(f"the {kind} {name!r} must not end with {suffix}, which formats add to names")
    return name


def check_labels(names: Sequence[str], name: str, kind: str) -> tuple[str, ...]:
    """Return the label names of a metric.

    Raises:
        InvalidArgument: One is not of letters, digits and underscores, is reserved, or occurs twice.
    """
    if isinstance(names, str):
        raise InvalidArgument(f"the labels of {name} must be a list of names, not the text {names!r}")
    for label in names:
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise InvalidArgument(f"the label {label!r} of {name} must be letters, digits and underscores")
        if label.startswith("__") or label in _RESERVED.get(kind, ()):
            raise InvalidArgument(f"the label {label!r} of the {kind} {name} is reserved; choose another name")
    if len(set(names)) < len(names):
        raise InvalidArgument(f"the labels of {name} must differ: {', '.join(names)}")
    if len(names) > _MOST_LABELS:
        raise InvalidArgument(f"{name} has {len(names)} labels; at most {_MOST_LABELS} are taken")
    return tuple(names)


def check_buckets(buckets: Sequence[float], name: str) -> tuple[float, ...]:
    """Return the upper bounds of a histogram's buckets, without infinity, which is always there.

    Raises:
        InvalidArgument: There is none, or they are not ascending numbers.
    """
    bounds = tuple(float(bound) for bound in buckets)
    if bounds and bounds[-1] == float("inf"):
        bounds = bounds[:-1]
    ascending = all(low < high for low, high in pairwise(bounds))
    if not bounds or not ascending or not all(abs(bound) < float("inf") for bound in bounds):
        raise InvalidArgument(f"the buckets of {name} must be one or more ascending finite numbers, not {buckets!r}")
    return bounds


def clean_value(value: str) -> str:
    """Return a label value that can be written: bounded, and without halves of surrogate pairs."""
    return _SURROGATES.sub("\ufffd", value[:VALUE_CHARACTERS])
