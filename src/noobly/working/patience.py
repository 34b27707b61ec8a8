"""Whether and when a worker asks a store again that did not answer."""

from __future__ import annotations

from noobly.core.errors import (
    Closed,
    Internal,
    InvalidArgument,
    MissingDependency,
    NooblyError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unsupported,
)

LONGEST = 5.0
"""The longest pause, in seconds, where the store does not ask for a longer one."""

_FIRST = 0.05
_LONGEST_ASKED = 300.0
_LASTING = (
    Closed,
    InvalidArgument,
    MissingDependency,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unsupported,
)


def lasting(error: NooblyError) -> bool:
    """Return whether asking again is useless; a store that is down, or fails by itself, may be mended meanwhile."""
    return isinstance(error, _LASTING)


def refused(error: NooblyError) -> bool:
    """Return whether a store will not take what it was told, as it is; otherwise it may take it later."""
    return not error.temporary and not isinstance(error, Internal)


def pause(error: NooblyError, failures: int, longest: float = LONGEST) -> float:
    """Return the seconds before a store is asked again, which are doubled each time.

    Args:
        error: What it answered.
        failures: How often it has failed before.
        longest: The longest pause; where the store asks for a longer one, that counts.
    """
    asked = min(_LONGEST_ASKED, error.retry_after or 0.0)
    own = min(longest, _FIRST * 2.0 ** min(failures, 10)) if error.temporary else longest
    return max(asked, own)
