"""Noobly: backend services behind one small typed async API.

Names are loaded when they are used, so that ``import noobly`` costs nothing and needs no optional package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noobly.app import Noobly
    from noobly.caching import Cache, Can, Computed, open_cache
    from noobly.core.errors import NooblyError
    from noobly.core.scope import Environment
    from noobly.logging import Logs, open_logs
    from noobly.measuring import Metrics, open_metrics
    from noobly.queueing import Queues, open_queues
    from noobly.settings import Settings
    from noobly.sync import SyncNoobly
    from noobly.working import Jobs, Tasks, open_jobs

    __version__: str

__all__ = [
    "Cache",
    "Can",
    "Computed",
    "Environment",
    "Jobs",
    "Logs",
    "Metrics",
    "Noobly",
    "NooblyError",
    "Queues",
    "Settings",
    "SyncNoobly",
    "Tasks",
    "__version__",
    "open_cache",
    "open_jobs",
    "open_logs",
    "open_metrics",
    "open_queues",
]

_HOMES = {
    "Cache": "noobly.caching",
    "Can": "noobly.caching",
    "Computed": "noobly.caching",
    "Environment": "noobly.core.scope",
    "Jobs": "noobly.working",
    "Logs": "noobly.logging",
    "Metrics": "noobly.measuring",
    "Noobly": "noobly.app",
    "NooblyError": "noobly.core.errors",
    "Queues": "noobly.queueing",
    "Settings": "noobly.settings",
    "SyncNoobly": "noobly.sync",
    "Tasks": "noobly.working",
    "open_cache": "noobly.caching",
    "open_jobs": "noobly.working",
    "open_logs": "noobly.logging",
    "open_metrics": "noobly.measuring",
    "open_queues": "noobly.queueing",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("noobly")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
