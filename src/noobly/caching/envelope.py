"""The stored form of an entry: two header bytes, facts about its life where it has any, and the encoded value.

    byte 0    format version, 1; anything else is read as a miss
    byte 1    bits 0-1 codec, bits 2-3 compression, bit 4 set when facts follow
    facts     4 bytes of length, big-endian, then a msgpack array (``Facts``)
    rest      the value

A whole number of 64 bits without facts is stored as plain decimal text, so that a counter is an entry like any other.
"""

from __future__ import annotations

import asyncio
import sys
from typing import NamedTuple, TypeVar

import msgspec

from noobly.caching.compression import Compressor, by_number, compressor
from noobly.caching.entries import Value
from noobly.caching.options import CacheOptions
from noobly.core.codec import Codec, Damaged, decode, encode
from noobly.core.errors import TooLarge

T = TypeVar("T")

VERSION = 1
_RAW = Codec.RAW
PLAIN_JSON = bytes((VERSION, Codec.JSON))
PLAIN_BYTES = bytes((VERSION, Codec.RAW))
"""How entries begin that are nothing but an uncompressed value, as most are."""

_CODECS = tuple(Codec)
_FACTS = 0x10
_HEADERS = tuple(bytes((VERSION, flags)) for flags in range(_FACTS))
_BYTES = (bytes, bytearray, memoryview)
_NEVER = sys.maxsize
_DIGITS = b"-0123456789"
_OFF_LOOP = 128 * 1024
"""Bytes from which compression leaves the event loop; below, the way to a thread costs more than the work."""


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """What an entry carries besides its value; times are seconds since the epoch.

    Args:
        created: When it was put.
        fresh_until: When it becomes stale, if it is kept longer than that.
        refresh_after: When one caller should compute it anew.
        sliding: Seconds that each read prolongs it by.
        deadline: When it ends in spite of being read.
        grace: Seconds it is kept once it is stale.
        tags: The version each of its tags had when computing it began.
    """

    created: float
    fresh_until: float | None = None
    refresh_after: float | None = None
    sliding: float | None = None
    deadline: float | None = None
    grace: float | None = None
    tags: dict[str, bytes] = {}


class Opened(NamedTuple):
    """A stored entry taken apart: ``body`` still is encoded."""

    codec: Codec
    compressor: Compressor | None
    facts: Facts | None
    body: memoryview


class Body(msgspec.Struct, frozen=True):
    """An encoded value on its way into the store.

    Args:
        codec: How it is encoded.
        number: How it is compressed, 0 for not at all.
        data: The bytes.
        size: Their number before compression.
        counter: It is a whole number that ``increment`` may work on.
    """

    codec: Codec
    number: int
    data: bytes
    size: int
    counter: bool


_FACTS_ENCODER = msgspec.msgpack.Encoder()
_FACTS_DECODER = msgspec.msgpack.Decoder(Facts)


class Envelope:
    """Packs and unpacks entries as one cache's options say.

    Attributes:
        compress_above: Bytes from which ``compress`` is worth its call.
    """

    def __init__(self, options: CacheOptions) -> None:
        self._codec = Codec[options.codec.upper()]
        self._compressor = compressor(options.compression)
        self._longest = options.value_bytes
        self.compress_above = _NEVER if self._compressor is None else options.compress_above

    def encode(self, value: Value, subject: str) -> Body:
        """Return a value encoded, not compressed.

        Raises:
            InvalidArgument: The codec cannot carry it.
            TooLarge: It is over the limit.
        """
        codec = _RAW if isinstance(value, _BYTES) else self._codec
        data = encode(value, codec, subject)
        size = len(data)
        if size > self._longest:
            raise TooLarge(f"the value for {subject} has {size} bytes; the limit is {self._longest}")
        if type(value) is int and -(2**63) <= value < 2**63:
            return Body(Codec.JSON, 0, b"%d" % value, size, counter=True)
        return Body(codec, 0, data, size, counter=False)

    async def compress(self, body: Body) -> Body:
        """Return an encoded value compressed, where it is long and that makes it shorter; counters stay plain."""
        packer, data = self._compressor, body.data
        if packer is None or body.counter or body.size < self.compress_above:
            return body
        far = body.size > _OFF_LOOP
        packed = await asyncio.to_thread(packer.compress, data) if far else packer.compress(data)
        if len(packed) >= body.size:
            return body
        return Body(body.codec, packer.number, packed, body.size, counter=False)

    async def value(self, data: bytes, opened: Opened, type: type[T], subject: str) -> T:
        """Return the value of an entry that was taken apart.

        Raises:
            InvalidArgument: It is not of that type.
            Damaged: It is damaged.
        """
        body: bytes | memoryview = opened.body
        if opened.compressor is not None:
            expand = opened.compressor.expand
            far = len(data) > _OFF_LOOP
            body = await asyncio.to_thread(expand, body, self._longest) if far else expand(body, self._longest)
        return decode(body, opened.codec, type, subject)


def seal(body: Body, facts: Facts | None) -> bytes:
    """Return the stored form of an encoded value."""
    if facts is None and body.counter:
        return body.data
    return _header(body.codec, body.number, facts) + body.data


def _header(codec: Codec, number: int, facts: Facts | None) -> bytes:
    flags = codec | number << 2
    if facts is None:
        return _HEADERS[flags]
    packed = _FACTS_ENCODER.encode(facts)
    return bytes((VERSION, flags | _FACTS)) + len(packed).to_bytes(4, "big") + packed


def unpack(data: bytes) -> Opened | None:
    """Return a stored entry taken apart, or None where another version or program wrote it.

    Raises:
        Damaged: The header is of this version but damaged.
    """
    if data[:1] in _DIGITS_SET:
        return Opened(Codec.JSON, None, None, memoryview(data))
    if len(data) < 2 or data[0] != VERSION:
        return None
    flags, view = data[1], memoryview(data)
    try:
        codec, number = _CODECS[flags & 3], flags >> 2 & 3
        packer = by_number(number) if number else None
        if not flags & _FACTS:
            return Opened(codec, packer, None, view[2:])
        end = 6 + int.from_bytes(view[2:6], "big")
        return Opened(codec, packer, _FACTS_DECODER.decode(view[6:end]), view[end:])
    except (IndexError, ValueError, msgspec.DecodeError, RecursionError) as error:
        raise Damaged(f"a stored entry has a damaged header: {error}") from error


def readable(data: bytes) -> Opened | None:
    """Return a stored entry taken apart, or None where its header is no use: damaged, or another program's."""
    try:
        return unpack(data)
    except Damaged:
        return None


_DIGITS_SET = frozenset(bytes((digit,)) for digit in _DIGITS)


def with_facts(opened: Opened, facts: Facts) -> bytes:
    """Return a stored entry with other facts and the same value."""
    number = opened.compressor.number if opened.compressor else 0
    return _header(opened.codec, number, facts) + bytes(opened.body)
