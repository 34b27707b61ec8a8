"""The stored form of entries: any bytes can be read, all values come back, and nothing unfolds past the limit."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Coroutine
from functools import partial
from typing import TypeVar, cast

import brotli
import msgspec
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from noobly.caching.compression import Compression, compressor
from noobly.caching.envelope import VERSION, Envelope, Facts, Opened, seal, unpack, with_facts
from noobly.caching.options import CacheOptions
from noobly.core.codec import Codec
from noobly.core.errors import Internal, InvalidArgument, TooLarge

KINDS = (Compression.GZIP, Compression.BROTLI, Compression.ZSTD)
NUMBERS = {Compression.GZIP: 1, Compression.BROTLI: 2, Compression.ZSTD: 3}
MIB = 1024 * 1024
T = TypeVar("T")

seconds = st.floats(min_value=0, max_value=1e11, allow_nan=False)
maybe = st.none() | seconds
facts = st.builds(
    Facts,
    created=seconds,
    fresh_until=maybe,
    refresh_after=maybe,
    sliding=maybe,
    deadline=maybe,
    grace=maybe,
    tags=st.dictionaries(st.text(max_size=20), st.binary(max_size=8), max_size=5),
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
options = st.builds(
    CacheOptions,
    codec=st.sampled_from(["json", "msgpack"]),
    compression=st.sampled_from(list(Compression)),
    compress_above=st.sampled_from([0, 10, 1000]),
)


def finished(call: Coroutine[object, object, T]) -> T:
    """Return the result of a call that never waits; a loop for each example would take longer than the test."""
    with pytest.raises(StopIteration) as stop:
        call.send(None)
    return cast(T, stop.value.value)


def read(envelope: Envelope, data: bytes) -> object:
    opened = unpack(data)
    assert opened is not None
    return finished(envelope.value(data, opened, object, "key"))


def write(envelope: Envelope, value: object, kept: Facts | None = None) -> bytes:
    return seal(finished(envelope.compress(envelope.encode(value, "key"))), kept)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x01")
@example(b"\x01\x10")
@example(b"\x01\x10\xff\xff\xff\xff")
@example(b"\x01\x03x")
@example(b"-")
@example(b"5 trailing")
@example(b"\x02\x00{}")
@example(b"\x01\x00" + b"[" * 100_000)
@example(b"\x01\x01" + b"\x91" * 100_000)
@example(b"\x01\x10\x00\x01\x00\x00" + b"\x91" * 65_536)
@example(b"\x01\x04" + zlib.compress(b"raw zlib, not gzip"))
def test_any_bytes_are_a_miss_or_damaged(data: bytes) -> None:
    try:
        opened = unpack(data)
        if opened is not None:
            asyncio.run(Envelope(CacheOptions()).value(data, opened, object, "key"))
    except Internal:
        return


@given(st.integers(0, 255), st.binary(max_size=100), st.none() | facts)
def test_any_body_under_a_good_header_too(flags: int, body: bytes, kept: Facts | None) -> None:
    packed = msgspec.msgpack.encode(kept) if kept is not None else b""
    header = bytes((VERSION, flags)) + (len(packed).to_bytes(4, "big") + packed if kept is not None else b"")
    test_any_bytes_are_a_miss_or_damaged.hypothesis.inner_test(header + body)  # type: ignore[attr-defined]


@given(values, options, st.none() | facts)
def test_values_come_back(value: object, chosen: CacheOptions, kept: Facts | None) -> None:
    envelope = Envelope(chosen)
    data = write(envelope, value, kept)
    got = read(Envelope(CacheOptions()), data)
    assert got == value
    assert type(got) is type(value)
    opened = unpack(data)
    assert opened is not None
    assert opened.facts == kept


@given(st.binary(max_size=5000), options, st.none() | facts)
def test_bytes_come_back(value: bytes, chosen: CacheOptions, kept: Facts | None) -> None:
    data = write(Envelope(chosen), value, kept)
    assert read(Envelope(CacheOptions()), data) == value


@given(values, options, st.none() | facts, facts)
def test_other_facts_keep_the_value(value: object, chosen: CacheOptions, before: Facts | None, after: Facts) -> None:
    opened = unpack(write(Envelope(chosen), value, before))
    changed = with_facts(cast(Opened, opened), after)
    again = unpack(changed)
    assert again is not None
    assert again.facts == after
    assert read(Envelope(CacheOptions()), changed) == value


def test_the_stored_form_stays_as_documented() -> None:
    plain, packed = Envelope(CacheOptions()), Envelope(CacheOptions(codec="msgpack"))
    assert write(plain, {"a": 1}) == b'\x01\x00{"a":1}'
    assert write(packed, {"a": 1}) == b"\x01\x01\x81\xa1a\x01"
    assert write(packed, b"raw") == b"\x01\x02raw"
    assert write(plain, 42) == b"42"
    assert write(packed, -42) == b"-42"
    assert write(plain, True) == b"\x01\x00true"
    assert write(plain, 2**63) == b"\x01\x009223372036854775808"
    assert write(plain, 7, Facts(1.0))[:2] == b"\x01\x10"
    for kind in KINDS:
        stored = write(Envelope(CacheOptions(compression=kind, compress_above=0)), "x" * 1000)
        assert stored[:2] == bytes((1, NUMBERS[kind] << 2))


def test_other_versions_and_programs_are_misses() -> None:
    for data in (b"\x00\x00{}", b"\x02\x00{}", b"{}", b"\x80\x04pickle", b"", b"\x01"):
        assert unpack(data) is None


def test_an_unknown_codec_is_damage() -> None:
    with pytest.raises(Internal, match="header"):
        unpack(b"\x01\x03{}")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_a_bomb_is_refused(kind: Compression) -> None:
    compress = {
        Compression.GZIP: gzip.compress,
        Compression.BROTLI: partial(brotli.compress, quality=5),
        Compression.ZSTD: zstandard.compress,
    }
    data = bytes((1, Codec.RAW | NUMBERS[kind] << 2)) + compress[kind](bytes(8 * MIB))
    assert len(data) < MIB
    opened = unpack(data)
    assert opened is not None
    with pytest.raises(Internal, match="unfolds to more"):
        asyncio.run(Envelope(CacheOptions(value_bytes=MIB)).value(data, opened, object, "key"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
@given(st.binary(min_size=1, max_size=3000) | st.integers(1, 300_000).map(bytes))
def test_exactly_the_limit_unfolds_and_one_byte_more_does_not(kind: Compression, data: bytes) -> None:
    packer = compressor(kind)
    assert packer is not None
    packed = packer.compress(data)
    assert packer.expand(packed, len(data)) == data
    if len(data) > 1:
        with pytest.raises(Internal):
            packer.expand(packed, len(data) - 1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_what_is_cut_short_is_damage(kind: Compression) -> None:
    packer = compressor(kind)
    assert packer is not None
    packed = packer.compress(b"some text, " * 100)
    for end in range(len(packed)):
        with pytest.raises(Internal):
            packer.expand(packed[:end], 10_000)


def test_a_value_over_the_limit_is_too_large_before_compression() -> None:
    envelope = Envelope(CacheOptions(value_bytes=100, compression=Compression.GZIP, compress_above=0))
    with pytest.raises(TooLarge, match="key"):
        write(envelope, b"x" * 101)
    assert read(envelope, write(envelope, b"x" * 100)) == b"x" * 100


def test_what_no_codec_carries_is_refused() -> None:
    for value in (object(), {1j: 2}, "\ud800"):
        with pytest.raises(InvalidArgument, match="key"):
            write(Envelope(CacheOptions()), value)
    with pytest.raises(InvalidArgument):
        write(Envelope(CacheOptions(codec="msgpack")), 2**64)
