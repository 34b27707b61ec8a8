"""How a cache behaves where a call does not say."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from noobly.caching.compression import Compression
from noobly.core.config import Config

Positive = Annotated[float, msgspec.Meta(gt=0, lt=1e10)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class CacheOptions(Config, frozen=True, kw_only=True):
    """The options of a cache, in ``noobly.toml``, in ``open_cache`` or in the URL.

    Args:
        ttl: Seconds an entry stays fresh; None for no end.
        jitter: Share of a ttl by which it is shortened at random, so that entries put together do not end together.
        grace: Seconds a stale entry is kept, to be served where computing it anew fails.
        refresh_ahead: Share of its ttl after which one caller of ``get_or_compute`` computes an entry anew in the
            background; None for never.
        none_ttl: Seconds that a computed None stays fresh; None for like any other value.
        codec: ``json`` or ``msgpack``, for values that are not bytes.
        compression: ``none``, ``gzip``, ``brotli`` or ``zstd``.
        compress_above: Bytes from which values are compressed.
        value_bytes: The longest value in bytes, before compression.
        lease: Seconds a claim or lock lasts unless it is renewed; it is renewed while its holder lives.
        wait: Seconds a caller waits for another's computation before it computes for itself.
        pause_after_failure: Seconds during which a stale value is served without trying a failed factory again.
        top_keys: Keys per list in the analytics.
        record_hot_keys: Keys per namespace that are recorded for warming when the cache closes; 0 for none.
    """

    ttl: Positive | None = None
    jitter: Share = 0.0
    grace: Positive | None = None
    refresh_ahead: Share | None = None
    none_ttl: Positive | None = None
    codec: Literal["json", "msgpack"] = "json"
    compression: Compression = Compression.NONE
    compress_above: Annotated[int, msgspec.Meta(ge=0)] = 1024
    value_bytes: Annotated[int, msgspec.Meta(gt=0)] = 64 * 1024 * 1024
    lease: Positive = 10.0
    wait: Positive = 30.0
    pause_after_failure: Positive = 5.0
    top_keys: Annotated[int, msgspec.Meta(gt=0, le=1000)] = 50
    record_hot_keys: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
