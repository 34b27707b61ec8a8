"""What pages of lines have in common: the bound of their size, and the opaque text where the next one begins."""

from __future__ import annotations

import base64
import binascii
from typing import NoReturn

import msgspec

from noobly.core.errors import InvalidArgument

PAGE_BYTES = 8 * 1024 * 1024
"""Bytes of lines after which a page is full, whatever its limit is."""

MOST_COUNTS = 100_000
"""Counts that one call returns at most."""


class Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a page ended: in which file, by when it was begun, and at what position in it."""

    file: int
    position: int


def encode(place: Place) -> str:
    """Return a place as opaque text."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(place)).decode().rstrip("=")


def decode(cursor: str) -> Place:
    """Return the place that a cursor stands for.

    Raises:
        InvalidArgument: It is not one that a search returned.
    """
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = msgspec.msgpack.decode(packed, type=Place)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise InvalidArgument("this cursor is not one that a search returned") from error
    if place.position < 0 or encode(place) != cursor:
        raise InvalidArgument("this cursor is not one that a search returned")
    return place


def refuse_bucket() -> NoReturn:
    """Refuse to count into so many buckets.

    Raises:
        InvalidArgument: Always.
    """
    raise InvalidArgument(f"there would be over {MOST_COUNTS} counts; choose a longer bucket or a shorter range")
