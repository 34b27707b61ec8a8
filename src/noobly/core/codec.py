"""Codecs: how values become bytes. JSON is the default; there is no pickle, for reading one can run code."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TypeVar, cast

import msgspec

from noobly.core.errors import Internal, InvalidArgument

T = TypeVar("T")
Encode = Callable[[object], bytes]
Data = bytes | memoryview


class Damaged(Internal):
    """Stored bytes are not what their header says; whoever keeps them may drop them."""


class Codec(IntEnum):
    """The codecs a stored value can name; the numbers are part of the stored format."""

    JSON = 0
    MSGPACK = 1
    RAW = 2


def _raw(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"only bytes can be stored raw, not {type(value).__name__}")


_json: Encode = msgspec.json.Encoder().encode
_sorted: Encode = msgspec.json.Encoder(order="sorted").encode
_pack: Encode = msgspec.msgpack.Encoder().encode


def _msgpack(value: object) -> bytes:
    """Refuse what JSON cannot carry, too: it could be stored, and then not be given to anybody over HTTP."""
    check_depth(_json(value))
    return _pack(value)


_ENCODERS: tuple[Encode, ...] = (_json, _msgpack, _raw)
"""By the codec's number, for the hash of an Enum's member is a call of its own."""


DECODE_JSON: Callable[[bytes], object] = msgspec.json.Decoder().decode
"""The hot path of ``decode``: JSON of any type, for callers that make a ``damaged`` of what is ``UNREADABLE``."""

SHALLOW = 512
"""Bytes of JSON up to which it cannot be nested too deep."""

_SPARE = 100
_skip: Callable[[bytes], object] = msgspec.json.Decoder(msgspec.Raw).decode

_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)

UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding raises for damaged bytes."""


def storable(text: str) -> str:
    """Return text that UTF-8 can carry: lone surrogates, as odd file names in error texts have them, become escapes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def damaged(subject: str, error: Exception) -> Damaged:
    """Return the error for bytes that could not be decoded."""
    return Damaged(f"the stored value of {subject} is damaged: {error}")


def check_depth(data: bytes) -> None:
    """Refuse JSON that is nested so deep that it could be read and written in some places of a program only.

    Each level takes one of the interpreter's stack, of which a server that answers has used more than a script that
    sends; 100 have to be left. RFC 8259, section 9, lets implementations limit the depth.

    Raises:
        ValueError: It is.
    """
    if len(data) <= SHALLOW or data.count(b"[") + data.count(b"{") < SHALLOW // 2:
        return
    try:
        _skip_above(data, _SPARE)
    except RecursionError as error:
        raise ValueError("it has lists or objects in too many others") from error


def _skip_above(data: bytes, levels: int) -> object:
    return _skip_above(data, levels - 1) if levels else _skip(data)


def encode(value: object, codec: Codec, subject: str) -> bytes:
    """Return a value as bytes.

    Args:
        value: What JSON can carry, a msgspec Struct or a dataclass; for RAW, bytes.
        codec: How to write it.
        subject: What the value belongs to, for the message.

    Raises:
        InvalidArgument: The codec cannot carry it.
    """
    try:
        data = _ENCODERS[codec](value)
        if len(data) > SHALLOW and codec is Codec.JSON:
            check_depth(data)
    except _UNWRITABLE as error:
        raise _refused(subject, codec, error) from error
    return data


def canonical(value: object, subject: str) -> bytes:
    """Return a value as JSON that is the same for equal values, whatever the order of their keys.

    Raises:
        InvalidArgument: JSON cannot carry it.
    """
    try:
        return _sorted(value)
    except _UNWRITABLE as error:
        raise _refused(subject, Codec.JSON, error) from error


def _refused(subject: str, codec: Codec, error: Exception) -> InvalidArgument:
    reason = f"{type(error).__name__}: {error}"
    return InvalidArgument(f"the value for {subject} cannot be stored as {codec.name.lower()}: {reason}")


def converted(value: object, type: type[T], subject: str) -> T:
    """Return a decoded value as a type.

    Raises:
        InvalidArgument: It is not of that type.
    """
    if type is object:
        return cast(T, value)
    try:
        return msgspec.convert(value, type)
    except msgspec.ValidationError as error:
        wanted = getattr(type, "__name__", str(type))
        raise InvalidArgument(f"the value of {subject} is not a {wanted}: {error}") from error


def decode(data: Data, codec: Codec, type: type[T], subject: str) -> T:
    """Return the value that some bytes hold, checked against a type.

    Raises:
        InvalidArgument: The stored value is not of that type.
        Damaged: The bytes are.
    """
    try:
        if codec is Codec.JSON:
            return msgspec.json.decode(data, type=type)
        if codec is Codec.MSGPACK:
            return msgspec.msgpack.decode(data, type=type)
        return msgspec.convert(bytes(data), type)
    except msgspec.ValidationError as error:
        wanted = getattr(type, "__name__", str(type))
        raise InvalidArgument(f"the value of {subject} is not a {wanted}: {error}") from error
    except UNREADABLE as error:
        raise damaged(subject, error) from error
