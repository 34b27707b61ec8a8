"""Compression of stored values, chosen by a number in the entry's header, with a bound on what it may unfold to."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from noobly.core.codec import Damaged
from noobly.core.errors import MissingDependency

Data = bytes | memoryview


class Compression(Enum):
    """The compressions; gzip needs nothing, the others an extra of the same name."""

    NONE = "none"
    GZIP = "gzip"
    BROTLI = "brotli"
    ZSTD = "zstd"


class Compressor(NamedTuple):
    """One compression.

    Args:
        number: What stands for it in the header of stored entries.
        compress: From bytes to fewer bytes.
        expand: From compressed bytes and the longest result allowed to the bytes.
    """

    number: int
    compress: Callable[[bytes], bytes]
    expand: Callable[[Data, int], bytes]


@functools.cache
def compressor(kind: Compression) -> Compressor | None:
    """Return a compression, None for ``NONE``.

    Raises:
        MissingDependency: Its package is not installed.
    """
    if kind is Compression.NONE:
        return None
    try:
        return _MAKERS[kind]()
    except ImportError as error:
        install = f"pip install 'noobly[{kind.value}]'"
        raise MissingDependency(f"{kind.value} compression needs {error.name}: {install}") from error


def by_number(number: int) -> Compressor | None:
    """Return the compression that a header names; None for no compression.

    Raises:
        MissingDependency: Its package is not installed.
    """
    return compressor(tuple(Compression)[number])


def _gzip() -> Compressor:
    def compress(data: bytes) -> bytes:
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        return packer.compress(data) + packer.flush()

    def expand(data: Data, most: int) -> bytes:
        unpacker = zlib.decompressobj(31)
        try:
            expanded = unpacker.decompress(data, most)
        except zlib.error as error:
            raise Damaged(f"a stored gzip value is damaged: {error}") from error
        return _complete(expanded, finished=unpacker.eof, most=most)

    return Compressor(1, compress, expand)


def _brotli() -> Compressor:
    import brotli

    def compress(data: bytes) -> bytes:
        packed: bytes = brotli.compress(data, quality=5)
        return packed

    def expand(data: Data, most: int) -> bytes:
        unpacker = brotli.Decompressor()
        try:
            expanded: bytes = unpacker.process(bytes(data), output_buffer_limit=most)
        except brotli.error as error:
            raise Damaged(f"a stored brotli value is damaged: {error}") from error
        return _complete(expanded, finished=unpacker.is_finished(), most=most)

    return Compressor(2, compress, expand)


def _zstd() -> Compressor:
    import zstandard

    # One context per call: zstandard's objects must not be used by two threads at once.
    def compress(data: bytes) -> bytes:
        return zstandard.compress(data, 3)

    def expand(data: Data, most: int) -> bytes:
        # The frame's own size decides the buffer, so it is checked before anything is unfolded (RFC 8878, 3.1.1.1.4).
        packed = bytes(data)
        try:
            small = 0 <= zstandard.frame_content_size(packed) <= most
            return _complete(zstandard.decompress(packed) if small else b"", finished=small, most=most)
        except zstandard.ZstdError as error:
            raise Damaged(f"a stored zstd value is damaged: {error}") from error

    return Compressor(3, compress, expand)


def _complete(expanded: bytes, *, finished: bool, most: int) -> bytes:
    if not finished or len(expanded) > most:
        raise Damaged(f"a stored value is cut short or unfolds to more than {most} bytes")
    return expanded


_MAKERS: dict[Compression, Callable[[], Compressor]] = {
    Compression.GZIP: _gzip,
    Compression.BROTLI: _brotli,
    Compression.ZSTD: _zstd,
}
