"""What can be opened: every provider of every service, whether it is installed, and what it can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec

from noobly.core.capability import Capability, names
from noobly.core.errors import ConfigError, MissingDependency
from noobly.core.operation import Driver, capabilities
from noobly.core.registry import Listed
from noobly.services import SERVICES, Service

__all__ = ["Offer", "offers"]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One URL scheme of one service.

    Args:
        service: The service's name.
        scheme: The URL scheme.
        installed: What it needs is there.
        install: What to do where it is not, or why it cannot be loaded.
        capabilities: What it can do beyond the core; None where it is not installed, or asks a server that decides.
        summary: What it is.
    """

    service: str
    scheme: str
    installed: bool
    install: str
    capabilities: list[str] | None
    summary: str


def offers() -> list[Offer]:
    """Return all providers; one that cannot be loaded is listed too."""
    return [_offer(service, listed) for service in SERVICES.values() for listed in service.registry.providers()]


def _offer(service: Service, listed: Listed) -> Offer:
    loaded, problem = _load(service, listed)
    able = None
    if loaded is not None and not hasattr(loaded, "call"):
        lacks_of: Callable[[str], frozenset[Capability]] | None = getattr(loaded, "lacks_of", None)
        lacking = lacks_of(listed.scheme) if lacks_of else frozenset()
        able = names(capabilities(service.protocol, cast(Driver, loaded)) - lacking)
    return Offer(
        service=service.registry.service,
        scheme=listed.scheme,
        installed=loaded is not None,
        install=problem,
        capabilities=able,
        summary=listed.provider.summary or listed.provider.target,
    )


def _load(service: Service, listed: Listed) -> tuple[type[object] | None, str]:
    try:
        return service.registry.load(listed.scheme), ""
    except MissingDependency as error:
        extra = listed.provider.extra
        return None, f"pip install 'noobly[{extra}]'" if extra else error.message
    except ConfigError as error:
        return None, error.message
    except Exception as error:  # noqa: BLE001 - a package of somebody else may fail in any way when it is imported
        return None, f"{listed.provider.target} fails: {type(error).__name__}: {error}"
