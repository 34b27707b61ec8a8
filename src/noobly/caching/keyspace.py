"""From the user's keys to the driver's: what the suite itself stores never meets a user's key.

U+001F marks the suite's own entries: a claim on ``user:1`` is kept at ``user:1<US>c``, so that it goes with its
namespace; tags, locks and the list of hot keys stand at ``<US>t``, ``<US>l`` and ``<US>h``. In users' keys the
character is doubled.
"""

from __future__ import annotations

from collections.abc import Iterable

from noobly.core.errors import InvalidArgument

MARK = "\x1f"
HOT = f"{MARK}h"
LONGEST = 1024


def check(key: object, what: str = "key") -> str:
    """Return the driver's key for a user's key.

    Raises:
        InvalidArgument: It is not Unicode text of 1 to 1,024 characters.
    """
    if type(key) is str and 0 < len(key) <= LONGEST and key.isascii() and MARK not in key:
        return key
    if not isinstance(key, str):
        raise InvalidArgument(f"{what} must be text, not {type(key).__name__}")
    if not 0 < len(key) <= LONGEST:
        raise InvalidArgument(f"{what} must have 1 to {LONGEST} characters, not {len(key)}")
    if not key.isascii():
        _refuse_surrogates(key, what)
    return key if MARK not in key else _escape(key)


def within(namespace: str) -> str:
    """Return a namespace that is fit for the driver, empty for all of them.

    Raises:
        InvalidArgument: It is not Unicode text of up to 1,024 characters.
    """
    return check(namespace, "namespace") if namespace != "" else ""


def several(keys: Iterable[str]) -> list[str]:
    """Return keys as a list.

    Raises:
        InvalidArgument: They are one text, whose characters would pass for keys.
    """
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise InvalidArgument(f"keys must be a list of keys, not {type(keys).__name__}")
    return list(keys)


def _refuse_surrogates(key: str, what: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{what} holds a lone surrogate at {error.start}, which is not Unicode text") from error


def _escape(key: str) -> str:
    if len(key) > LONGEST // 2:
        raise InvalidArgument(f"a key with U+001F in it must have at most {LONGEST // 2} characters")
    return key.replace(MARK, MARK * 2)


def claim(key: str) -> str:
    """Return where the claim on a driver's key is kept."""
    return f"{key}{MARK}c"


def tag(name: str) -> str:
    """Return where the version of a tag is kept."""
    return f"{MARK}t{check(name, 'tag')}"


def lock(name: str) -> str:
    """Return where a lock is kept."""
    return f"{MARK}l{check(name, 'lock')}"


def user(key: str) -> str | None:
    """Return the user's key for a driver's key, or None for one of the suite's own."""
    if MARK not in key:
        return key
    plain = key.replace(MARK * 2, "")
    return None if MARK in plain else key.replace(MARK * 2, MARK)
