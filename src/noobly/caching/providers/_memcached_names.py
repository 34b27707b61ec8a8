"""How keys and namespaces are named in memcached, and what ties an entry to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

DEPTH = 8
"""The most levels a namespace that can be cleared may have: ``a:b:c`` has three."""

_KEY = 250
"""The longest name, in bytes (protocol.txt, "Keys")."""


def physical(plain: str, hashed: str, text: str) -> bytes:
    """Return memcached's name for some text: as it is where memcached can take it, or else hashed."""
    if len(plain) + len(text) <= _KEY and text.isascii() and text.isprintable() and " " not in text:
        return f"{plain}{text}".encode()
    return f"{hashed}{hashlib.sha256(text.encode()).hexdigest()}".encode()


def levels_of_all(keys: Iterable[str]) -> list[str]:
    """Return the namespaces that keys belong to; the empty one stands for all entries."""
    return list(dict.fromkeys(level for key in keys for level in levels_of(key)))


def levels_of(key: str) -> list[str]:
    levels, position = [""], key.find(":", 1)
    while position > 0 and len(levels) <= DEPTH:
        levels.append(key[:position])
        position = key.find(":", position + 1)
    return levels


def digest_of(key: str, epochs: Mapping[str, bytes | None]) -> bytes | None:
    """Return what ties an entry to its key, which its name may only hash, and to its epochs; None without one."""
    digest = hashlib.blake2b(key.encode(), digest_size=16)
    for level in levels_of(key):
        token = epochs.get(level)
        if token is None:
            return None
        digest.update(b"\0" + token)
    return digest.digest()
