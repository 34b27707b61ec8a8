"""Waiting in slices, so that no single call outlasts the deadline of a provider or of a client."""

from __future__ import annotations

from noobly.core.scope import Policy

SLICE = 2.0
"""Seconds that one call may wait at most."""


def slice_of(policy: Policy) -> float:
    """Return the seconds that one call may wait, so that its answer comes well before its deadline."""
    return min(SLICE, 0.4 * policy.timeout)
