"""The options of the SQLite providers that keep work: what they have in common, and the file they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import msgspec

from noobly.clients.sqlite import Database
from noobly.clients.sqlite_file import Durability, Schema
from noobly.core.config import Config

__all__ = ["SqliteConfig", "database"]


class SqliteConfig(Config, frozen=True, kw_only=True):
    """The options of the SQLite provider.

    Args:
        path: The file; its folder is made where there is none.
        durability: ``power``: what a call has written survives a power failure; ``process``: only the end of the
            process, also by SIGKILL.
        busy_timeout: Seconds to wait for another process that writes.
    """

    url_parts: ClassVar[Mapping[str, str]] = {"path": "path"}

    path: Annotated[str, msgspec.Meta(min_length=1)]
    durability: Literal["process", "power"] = "power"
    busy_timeout: Annotated[float, msgspec.Meta(ge=0, lt=1e6)] = 2.0


def database(config: SqliteConfig, schema: Schema) -> Database:
    """Return the database for a configuration, not yet started."""
    return Database(
        config.path,
        schema=schema,
        durability=Durability[config.durability.upper()],
        busy_timeout=config.busy_timeout,
    )
