"""Redaction: what must not be stored is replaced before a record leaves the process.

By name at any depth, and by what a text looks like: bearer and basic credentials, JSON Web Tokens, URLs with
credentials, ``password=…``, and card numbers (ISO/IEC 7812, by their check digit). Structures are copied within bounds
on the way, so that what is stored is what was given at the time of the call.

Looking closely at each text would cost more than all the rest of logging. ``Redactor.suspects`` first tells, by a
few substring searches over a whole batch, whether any of it could match; it has no false negatives, for every pattern
below contains one of a few marks, of letters, digits and signs that JSON never escapes.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Callable, Iterable, Mapping, Sequence

from noobly.logging.plain import DEEPEST, LONGEST, MOST, PLAIN, decoded, parts, shown

REDACTED = "[redacted]"

_PARTS = (
    "password", "passwd", "passphrase", "secret", "apikey", "accesskey", "privatekey", "authorization",
    "cookie", "credential", "cardnumber",
)  # fmt: skip
_ENDS = ("token", "pwd", "jwt", "cvv", "cvc", "sessionid", "ssn", "passcode", "otp")
_KEPT_SAFE = 10_000

_FOLD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ123456789", b"abcdefghijklmnopqrstuvwxyz000000000")
_GAPS = b" -_"
_CARD = b"0" * 13
_ASSIGNED = (b"passw", b"pwd=", b"secret=", b"token=", b"key=", b"sig=", b"signature=")

_FLAGS = re.ASCII | re.IGNORECASE
_BEARER = re.compile(r"\b(bearer[ \t:=]+)[A-Za-z0-9._~+/=-]{4,}", _FLAGS)
_BASIC = re.compile(r"\b(basic[ \t:=]+)([A-Za-z0-9+/_-]{4,}={0,2})", _FLAGS)
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*", re.ASCII)
_USERINFO = re.compile(
    r"(://)(?:[^\s/?#@]*@[^\s/?#]*(?=@)|[^\s/?#@]*|[^\s/?#@:]*:(?!\d{1,5}(?:[/?#]|$))[^\s@]{0,256})@"
)
_ASSIGNMENT = re.compile(
    r"((?:passw(?:or)?d|pwd|secret|token|(?:api|access|private)[-_]?key|signature|\bsig)=)"
    r"""(?:"[^"]*"|'[^']*'|[^\s&;,)"']+)""",
    _FLAGS,
)
_DIGITS = re.compile(r"\d(?:[ -]?\d){12,}", re.ASCII)
_GROUP = re.compile(r"\d+", re.ASCII)


class Redactor:
    """Replaces what must not be stored, and counts it.

    Args:
        keys: Further names whose values are never kept.

    Attributes:
        count: Values replaced so far.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._more = frozenset(map(_folded, keys))
        self._safe: set[str] = set()
        self.harmless: Callable[[Iterable[str]], bool] = self._safe.issuperset
        """Whether all of these names are known to be harmless; a new one is not yet, until ``names`` has seen it."""
        self.count = 0

    def names(self, keys: Iterable[str]) -> bool:
        """Return whether all of these names are harmless, and remember those that are."""
        return not any(self.secret(key) for key in keys)

    def secret(self, key: str) -> bool:
        """Return whether a value of this name must not be kept."""
        if key in self._safe:
            return False
        folded = _folded(key)
        if folded in self._more or folded.endswith(_ENDS) or any(part in folded for part in _PARTS):
            return True
        if len(self._safe) < _KEPT_SAFE and len(key) <= 200:
            self._safe.add(key)
        return False

    @staticmethod
    def suspects(data: bytes) -> bool:
        """Return whether encoded text may hold something to be replaced; False is certain."""
        # A single byte is found many times faster than a text, and most lines have none.
        if b"J" in data and b"eyJ" in data:
            return True
        folded = data.translate(_FOLD, _GAPS)
        if b"bearer" in folded or b"basic" in folded or _CARD in folded:
            return True
        if b"@" in folded and b"://" in folded:
            return True
        return b"=" in folded and any(mark in folded for mark in _ASSIGNED)

    def text(self, value: str, longest: int = LONGEST) -> str:
        """Return a text without secrets, of bounded length, that UTF-8 can carry."""
        # What stands just behind the limit is looked at too, so that a secret that lies across it is recognised.
        near = value[: longest + 512] if len(value) > longest else value
        cleaned = self._searched(decoded(near))
        if len(value) <= longest:
            return cleaned
        return f"{cleaned[:longest]}[{len(value) - longest} more characters]"

    def clean(self, attributes: Mapping[str, object]) -> dict[str, object]:
        """Return a copy for JSON, without secrets and within bounds. Never raises."""
        return self._mapping(attributes, ())

    def value(self, value: object, above: tuple[int, ...] = ()) -> object:
        """Return a copy of one value for JSON, without secrets and within bounds. Never raises."""
        kind = type(value)
        if kind is str:
            return self.text(str(value))
        if kind in PLAIN:
            return self._number(value)
        if id(value) in above:
            return "[cycle]"
        made = parts(value)
        if isinstance(made, str):
            return self.text(made)
        if not isinstance(made, dict | list):
            return self._number(made)
        if len(above) >= DEEPEST:
            return "[too deep]"
        inner = (*above, id(value))
        return self._mapping(made, inner) if isinstance(made, dict) else self._several(made, inner)

    def _mapping(self, values: Mapping[str, object], above: tuple[int, ...]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in list(values.items())[:MOST]:
            name = key if type(key) is str else shown(key)
            if self.secret(name):
                self.count += 1
                found[self.text(name)] = REDACTED
            else:
                found[self.text(name)] = self.value(value, above)
        if len(values) > MOST:
            found["…"] = f"[{len(values) - MOST} more]"
        return found

    def _several(self, values: list[object], above: tuple[int, ...]) -> list[object]:
        # Headers are often lists of pairs, and then the first of two is a name.
        if len(values) == 2 and isinstance(values[0], str | bytes) and self.secret(shown(values[0])):
            self.count += 1
            return [self.value(values[0], above), REDACTED]
        found = [self.value(value, above) for value in values[:MOST]]
        return [*found, f"[{len(values) - MOST} more]"] if len(values) > MOST else found

    def _number(self, value: object) -> object:
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) < 10**12:
            return value
        if value.bit_length() > 64:
            return f"{value:#x}"[:LONGEST]
        if not _card(str(abs(value))):
            return value
        self.count += 1
        return REDACTED

    def _searched(self, text: str) -> str:
        found = _BEARER.sub(self._after, text)
        found = _BASIC.sub(self._basic, found)
        found = _JWT.sub(self._whole, found)
        found = _USERINFO.sub(lambda match: self._after(match) + "@", found)
        found = _ASSIGNMENT.sub(self._after, found)
        return _DIGITS.sub(self._cards, found)

    def _whole(self, match: re.Match[str]) -> str:
        self.count += 1
        return REDACTED

    def _after(self, match: re.Match[str]) -> str:
        self.count += 1
        return f"{match[1]}{REDACTED}"

    def _basic(self, match: re.Match[str]) -> str:
        # RFC 7617: user and password with a colon between; anything else is a word that follows "basic".
        try:
            pair = b":" in b64decode(match[2] + "=" * (-len(match[2]) % 4), altchars=b"-_")
        except (BadBase64, ValueError):
            pair = False
        return self._after(match) if pair else match[0]

    def _cards(self, match: re.Match[str]) -> str:
        groups = list(_GROUP.finditer(match[0]))
        kept: list[str] = []
        first = at = 0
        while first < len(groups):
            last = _card_from(groups, first)
            if last is not None:
                self.count += 1
                kept += (match[0][at : groups[first].start()], REDACTED)
                first, at = last, groups[last].end()
            first += 1
        return "".join(kept) + match[0][at:]


def _folded(key: str) -> str:
    plain = unicodedata.normalize("NFKC", key[:200]).casefold()
    return plain.translate({ord(gap): None for gap in " -_."})


def _card_from(groups: Sequence[re.Match[str]], first: int) -> int | None:
    """Return the last of the groups of digits that make a card's number from ``first`` on, if they do."""
    digits = ""
    for at in range(first, len(groups)):
        digits += groups[at][0]
        if len(digits) > 19:
            return None
        if _card(digits):
            return at
    return None


def _card(digits: str) -> bool:
    """Return whether digits are a payment card's: the issuers' first digits, and the check digit by Luhn."""
    if not 13 <= len(digits) <= 19 or digits[0] not in "23456":
        return False
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0
