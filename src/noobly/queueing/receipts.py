"""The receipts that users get: the driver's, and what has to be known of a delivery when it is answered."""

from __future__ import annotations

import msgspec

from noobly.core.checks import Limits, Text
from noobly.core.errors import InvalidArgument
from noobly.queueing.driver import RECEIPT, Leased

_RECEIPT = RECEIPT.compile("the receipt", Limits())
_LONGEST_ID = 256
_ID = Text(0, _LONGEST_ID).compile("the receipt", Limits())
_KINDS, _DIGITS = frozenset("gm"), frozenset("0123456789")


class Handed(msgspec.Struct, frozen=True, gc=False):
    """What a user's receipt says.

    Args:
        receipt: The driver's receipt.
        deliveries: How often the message was delivered.
        grouped: It is of an ordered group.
        id: Its id; empty where the receipt does not carry it.
    """

    receipt: str
    deliveries: int
    grouped: bool
    id: str


def handed_out(leased: Leased) -> Handed:
    """Return what the receipt of a delivery says."""
    return Handed(leased.receipt, leased.deliveries, leased.message.group is not None, leased.message.id)


def receipt(leased: Leased) -> str:
    """Return the receipt that a user gets for a delivery."""
    id = leased.message.id
    if " " in id or len(id) > _LONGEST_ID:  # One that somebody else gave, and that could not be told apart again.
        id = ""
    return f"{leased.deliveries}{'g' if leased.message.group else 'm'}{id} {leased.receipt}"


def receipt_of(text: str) -> str:
    """Return the driver's receipt in a user's one, by the shorter way where the message was delivered up to nine times.

    Raises:
        InvalidArgument: It is none.
    """
    if type(text) is str and text[1:2] in _KINDS and text[0] in _DIGITS and text.isascii() and 2 < len(text) <= 4096:
        return text[text.find(" ", 2) + 1 or 2 :] or handed(text).receipt
    return handed(text).receipt


def handed(text: str) -> Handed:
    """Return what a user's receipt says.

    Raises:
        InvalidArgument: It is none.
    """
    if type(text) is str:
        digits = 1 if text[1:2] in _KINDS else len(text) - len(text.lstrip("0123456789"))
        number, kind = text[:digits], text[digits : digits + 1]
        if kind in _KINDS and number.isdecimal() and number.isascii() and digits < 10:
            before, space, after = text[digits + 1 :].partition(" ")
            driver, id = (after, before) if space else (before, "")
            _RECEIPT(driver)
            _ID(id)
            return Handed(driver, int(number), kind == "g", id)
    raise InvalidArgument("the receipt is not one that came with a delivery")
