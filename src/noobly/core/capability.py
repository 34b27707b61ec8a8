"""What a provider can do beyond the core operations of its service.

A provider has a capability when it has the methods that are marked as needing it. Only where a capability is an
argument of an operation that every provider has, the provider names it itself, in ``features``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from noobly.core.errors import Unsupported


class Capability(Enum):
    """Base of each service's ``Can``: one member for each optional ability."""


def names(capabilities: Iterable[Capability]) -> list[str]:
    """Return the capabilities' names in order, for messages and tables."""
    return sorted(capability.name.lower() for capability in capabilities)


def require(needed: Iterable[Capability], present: frozenset[Capability], provider: str) -> None:
    """Refuse a provider that lacks something the application needs.

    Raises:
        Unsupported: It lacks one; the message names all that are missing.
    """
    missing = set(needed) - present
    if missing:
        have = ", ".join(names(present)) or "no optional ones"
        raise Unsupported(f"provider {provider} lacks {', '.join(names(missing))}; it has {have}")
