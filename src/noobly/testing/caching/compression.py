"""Compression: above a threshold, told by the entry itself, and never in the way of a value."""

from __future__ import annotations

import asyncio
import random

import pytest

from noobly.caching import Cache
from noobly.testing.caching.theme import Theme
from noobly.testing.harness import Harness

KINDS = ("gzip", "brotli", "zstd")
TEXT = "all work and no play makes a dull value " * 200
LINES = [{"name": "Ada", "number": number} for number in range(500)]
NOISE = random.Random(7).randbytes(20_000)


class CompressionTheme(Theme):
    """Each kind of compression, and caches that read what others compressed."""

    @pytest.fixture(params=KINDS)
    def kind(self, request: pytest.FixtureRequest) -> str:
        """Return each kind of compression in turn."""
        return str(request.param)

    async def test_values_come_back(self, harness: Harness, kind: str) -> None:
        async with harness.open(compression=kind, compress_above=0) as cache:
            values = {"text": TEXT, "bytes": TEXT.encode(), "list": LINES, "noise": NOISE, "empty": "", "none": None}
            for key, value in values.items():
                await cache.put(key, value, tags=["t"])
            assert await cache.get_many(list(values)) == values
            assert await cache.get_or_compute("computed", lambda: TEXT) == TEXT
            assert await cache.get("computed") == TEXT

    async def test_the_ratio_is_reported(self, harness: Harness, kind: str) -> None:
        async with harness.open(compression=kind, compress_above=100) as cache:
            await cache.put("key", TEXT)
            stats = await cache.stats()
            assert stats.bytes_put >= len(TEXT)
            assert stats.bytes_stored < len(TEXT) / 4
            assert stats.compression_ratio == pytest.approx(stats.bytes_stored / stats.bytes_put)

    async def test_short_and_noisy_values_are_left_alone(self, harness: Harness, kind: str) -> None:
        async with harness.open(compression=kind, compress_above=len(TEXT) + 10) as cache:
            await cache.put("short", TEXT)
            await cache.put("noise", NOISE)
            assert (await cache.stats()).compression_ratio >= 1
            assert await cache.get_many(["short", "noise"]) == {"short": TEXT, "noise": NOISE}

    async def test_values_up_to_the_limit_and_many_big_ones_at_once(self, harness: Harness, kind: str) -> None:
        size = min(300_000, harness.value_bytes // 2)
        async with harness.open(compression=kind, value_bytes=size) as cache:
            values = {f"big:{n}": bytes([n]) * (size // 2) + random.Random(n).randbytes(size // 2) for n in range(8)}
            await asyncio.gather(*(cache.put(key, value) for key, value in values.items()))
            assert await asyncio.gather(*(cache.get(key) for key in values)) == list(values.values())
            await cache.put("smooth", b"x" * size)
            assert await cache.get("smooth") == b"x" * size

    async def test_a_cache_without_compression_reads_compressed_entries(self, harness: Harness, kind: str) -> None:
        if not harness.shared:
            pytest.skip("two caches of this provider share nothing")
        async with harness.open(compression=kind) as packing, harness.open() as plain:
            await packing.put("key", TEXT)
            assert await plain.get("key") == TEXT
            await plain.put("key", LINES)
            assert await packing.get("key") == LINES

    async def test_without_compression_the_ratio_is_about_one(self, cache: Cache) -> None:
        await cache.put("key", TEXT)
        assert (await cache.stats()).compression_ratio == pytest.approx(1, abs=0.01)
