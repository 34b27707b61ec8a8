"""How logging behaves where a call does not say."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

import msgspec

from noobly.core.config import Config

LevelName = Literal["trace", "debug", "info", "warn", "error", "fatal"]
Count = Annotated[int, msgspec.Meta(ge=0)]
Some = Annotated[int, msgspec.Meta(gt=0)]
Positive = Annotated[float, msgspec.Meta(gt=0, lt=1e10)]


class Overflow(Enum):
    """What happens to records while the store is slower than they come. ERROR and FATAL are never dropped."""

    BLOCK = "block"
    """The caller waits for a place, ``block_timeout`` at most. On the event loop itself, where waiting would stop the
    writer, the oldest records go to the spill file instead."""
    DROP_OLDEST = "drop_oldest"
    """The oldest record makes place."""
    DROP_BY_LEVEL = "drop_by_level"
    """TRACE and DEBUG are dropped from half full, INFO from three quarters, WARN when full."""


class Format(Enum):
    """How a record is written for others than the store."""

    JSON = "json"
    """One JSON object per line, as it is stored."""
    TEXT = "text"
    """For people."""
    ECS = "ecs"
    """Elastic Common Schema."""
    OTLP = "otlp"
    """OTLP/JSON, one request per line (OpenTelemetry protocol, "OTLP/HTTP", JSON encoding)."""


class LogsOptions(Config, frozen=True, kw_only=True):
    """The options of logging, in ``noobly.toml``, in ``open_logs`` or in the URL.

    Args:
        level: The least level that is kept: ``trace``, ``debug``, ``info``, ``warn``, ``error`` or ``fatal``.
        service: The application's name, put on its records.
        capture: Take what the standard library's ``logging`` is given; by default only an application's ``logging``
            instance named ``default`` does.
        console: ``json``, ``text``, ``ecs`` or ``otlp`` lines on standard error besides the store; None for none.
        redact_keys: Further names whose values are never kept; letter case, ``-`` and ``_`` do not matter.
        queue: Records that may wait for the store.
        overflow: ``block``, ``drop_oldest`` or ``drop_by_level``, once they are more.
        block_timeout: Seconds that a caller waits under ``block``; then its record is dropped.
        batch_bytes: Bytes of one batch; while records come faster, up to sixteen times that.
        linger: Seconds that a record waits for others before it is stored; errors do not wait.
        retries: Attempts to store a batch after the first one, with growing pauses.
        spill: The file that takes what cannot be stored, as JSON lines, until it can; empty for standard error at
            once. A named instance puts its name before the file's suffix.
        spill_bytes: Its largest size; what is more goes to standard error.
        close_timeout: Seconds that closing waits for the store.
        sample_first: Records of the same level and message kept in each second; 0 for all. Errors are always kept.
        sample_every: Of those beyond, each so-many-th is kept.
        debug_ring: DEBUG records kept per request, to be stored if it fails; 0 for none.
    """

    level: LevelName = "info"
    service: str = ""
    capture: bool | None = None
    console: Format | None = None
    redact_keys: tuple[str, ...] = ()
    queue: Some = 10_000
    overflow: Overflow = Overflow.DROP_BY_LEVEL
    block_timeout: Positive = 1.0
    batch_bytes: Annotated[int, msgspec.Meta(ge=1024, le=4 * 1024 * 1024)] = 64 * 1024
    linger: Positive = 0.05
    retries: Count = 4
    spill: str = ".noobly/logs.spill.jsonl"
    spill_bytes: Count = 64 * 1024 * 1024
    close_timeout: Positive = 5.0
    sample_first: Count = 0
    sample_every: Some = 100
    debug_ring: Count = 100
