"""API keys: who may do what over HTTP.

A key reads ``noobly_<id>_<secret>``. The id finds it, the secret proves it, and only the secret's digest is kept.
Scopes are ``service:permission``, where ``admin`` includes ``write`` and ``write`` includes ``read``; ``*`` stands for
every service, and alone for everything.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import string
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from noobly.core.clock import Clock, SystemClock
from noobly.core.config import Secret
from noobly.core.errors import ConfigError, InvalidArgument, NotFound

if sys.platform != "win32":
    import fcntl

__all__ = ["Issued", "Key", "KeyStore", "Keyring", "Keys", "Permission", "Principal", "StaticKeys"]

Permission = Literal["read", "write", "admin"]

VARIABLE = "NOOBLY_API_KEYS"
FILE = "keys.json"

_PREFIX = "noobly"
_ID_LENGTH = 12
_SECRET_LENGTH = 43
"""Characters of 62 kinds: 256 bits. Without an underscore, which separates the parts."""
_SHORTEST_STATIC = 16
_LONGEST = 1024
_ALPHABET = string.ascii_letters + string.digits
_SCOPE = re.compile(r"\*|(\*|[a-z][a-z0-9_-]*):(read|write|admin)")
_RANK: Mapping[str, int] = {"read": 1, "write": 2, "admin": 3}

_log = logging.getLogger("noobly.keys")


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who makes a request.

    Args:
        name: The key's name, for people.
        scopes: What it may do.
        id: The key's id, which is no secret; empty where there is no key, as in a browser session.
    """

    name: str
    scopes: frozenset[str]
    id: str = ""

    def may(self, service: str, permission: Permission | str) -> bool:
        """Return whether a scope allows this; a permission that is none of the three is never allowed."""
        if permission not in _RANK:
            return False
        return "*" in self.scopes or any(_allows(scope, service, _RANK[permission]) for scope in self.scopes)


def _allows(scope: str, service: str, rank: int) -> bool:
    granted, _, level = scope.partition(":")
    return granted in ("*", service) and _RANK.get(level, 0) >= rank


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a key.

    Args:
        id: Its public part.
        name: What it is for.
        digest: SHA-256 of its secret, in hexadecimal digits.
        scopes: What it may do.
        created: Seconds since the epoch.
        expires: Seconds since the epoch; None for never.
    """

    id: str
    name: str
    digest: str
    scopes: list[str]
    created: float
    expires: float | None = None


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A new key with its whole text, which is shown once and kept nowhere."""

    key: Key
    text: Secret


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: Literal[1] = 1
    keys: list[Key] = []


def _digest(secret: str) -> str:
    # A slow hash protects guessable secrets. One of 256 random bits cannot be guessed however fast the hash is, and a
    # slow one would cost each request its milliseconds.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


_NO_DIGEST = _digest("")


class StaticKeys:
    """Keys from ``NOOBLY_API_KEYS``: a comma-separated list, each with all scopes. Only their digests are kept.

    Args:
        text: The variable's value; keys that are short enough to be guessed are warned of.
    """

    def __init__(self, text: str = "") -> None:
        keys = [key for part in text.split(",") if (key := part.strip())]
        for position, key in enumerate(keys, 1):
            if len(key) < _SHORTEST_STATIC:
                _log.warning("key %d of %s has fewer than %d characters", position, VARIABLE, _SHORTEST_STATIC)
        self._known = [
            (_digest(key), Principal(id=f"static-{number}", name=f"{VARIABLE} {number}", scopes=frozenset({"*"})))
            for number, key in enumerate(keys, 1)
        ]

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> StaticKeys:
        """Return the keys that the environment holds."""
        return cls((os.environ if environ is None else environ).get(VARIABLE, ""))

    def __len__(self) -> int:
        return len(self._known)

    def authenticate(self, presented: str) -> Principal | None:
        """Return whom a key stands for; it is compared with all of them, whichever it is."""
        digest = _digest(presented)
        matches = [principal for known, principal in self._known if hmac.compare_digest(digest, known)]
        return matches[0] if matches else None


class KeyStore:
    """Keys in a file that several processes may use at once; a change by one is seen by all with the next request.

    Args:
        path: The file, ``keys.json`` in the data folder; it and the folder are made when the first key is.
        clock: Where time is read.

    Raises:
        ConfigError: The file is there but cannot be read.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._load()

    def __len__(self) -> int:
        self._refresh()
        return len(self._keys)

    def authenticate(self, presented: str) -> Principal | None:
        """Return whom a key stands for, or None where it is unknown, wrong, revoked or expired."""
        parts = presented.split("_")
        if len(parts) != 3 or parts[0] != _PREFIX:
            return None
        self._refresh()
        key = self._keys.get(parts[1])
        same = hmac.compare_digest(_digest(parts[2]), key.digest if key else _NO_DIGEST)
        if key is None or not same or (key.expires is not None and key.expires <= self._clock.time()):
            return None
        return Principal(id=key.id, name=key.name, scopes=frozenset(key.scopes))

    def create(self, name: str, scopes: Sequence[str], *, lifetime: float | None = None) -> Issued:
        """Make a key and keep its digest.

        Args:
            name: What it is for.
            scopes: What it may do.
            lifetime: Seconds until it expires; None for never.

        Raises:
            InvalidArgument: The name is empty, there is no scope, one is malformed, or the lifetime is not positive.
            ConfigError: The file cannot be read or written.
        """
        _check(name, scopes, lifetime)
        secret, now = _random(_SECRET_LENGTH), self._clock.time()
        with self._changing() as keys:
            key = Key(
                id=_random(_ID_LENGTH),
                name=name,
                digest=_digest(secret),
                scopes=sorted(set(scopes)),
                created=now,
                expires=None if lifetime is None else now + lifetime,
            )
            keys[key.id] = key
        return Issued(key=key, text=Secret(f"{_PREFIX}_{key.id}_{secret}"))

    def list(self) -> list[Key]:
        """Return all keys, the oldest first, expired ones too."""
        self._load()
        return sorted(self._keys.values(), key=lambda key: (key.created, key.id))

    def revoke(self, id: str) -> Key:
        """Drop a key for good and return what was kept of it.

        Raises:
            NotFound: There is no such key.
        """
        with self._changing() as keys:
            if id not in keys:
                raise NotFound(f"there is no key with the id {id!r}; list them to see which there are")
            return keys.pop(id)

    def _refresh(self) -> None:
        try:
            # One stat per request, of a local file: a few microseconds, and a revoked key ends at once.
            if self._identity() != self._seen:
                self._load()
        except ConfigError as error:
            if self._keys:
                _log.error("no API key of the store is accepted: %s", error)
            # Until the file is mended none counts: a key that was revoked in it must not come back.
            self._keys = {}

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"the key file {self._path} cannot be read: {error.strerror}") from error
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _load(self) -> None:
        self._seen = self._identity()
        try:
            content = self._path.read_bytes() if self._seen else b"{}"
            self._keys = {key.id: key for key in msgspec.json.decode(content, type=_File).keys}
        except OSError as error:
            raise ConfigError(f"the key file {self._path} cannot be read: {error.strerror}") from error
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ConfigError(f"the key file {self._path} is damaged: {error}") from error

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self._path.with_suffix(".lock")):
                self._load()
                keys = dict(self._keys)
                yield keys
                _replace(self._path, msgspec.json.format(msgspec.json.encode(_File(keys=[*keys.values()]))))
                self._load()
        except OSError as error:
            raise ConfigError(f"the key file {self._path} cannot be written: {error.strerror}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, so that two commands at once lose no key."""
    with path.open("w") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _replace(path: Path, content: bytes) -> None:
    """Put a whole new file in the place of the old one; ``mkstemp`` makes it readable by its owner only."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Keys(Protocol):
    """A source of keys."""

    def __len__(self) -> int:
        """Return how many keys it has."""
        ...

    def authenticate(self, presented: str) -> Principal | None:
        """Return whom a key stands for, or None."""
        ...


class Keyring:
    """All keys that a server accepts.

    Args:
        sources: Where they are kept; asked in turn.
    """

    def __init__(self, sources: Sequence[Keys]) -> None:
        self._sources = tuple(sources)

    def empty(self) -> bool:
        """Return whether there is no key at all."""
        return not any(len(source) for source in self._sources)

    def authenticate(self, presented: str) -> Principal | None:
        """Return whom a key stands for, or None where it is unknown, wrong, revoked or expired."""
        if len(presented) > _LONGEST:
            return None
        for source in self._sources:
            found = source.authenticate(presented)
            if found is not None:
                return found
        return None


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _check(name: str, scopes: Sequence[str], lifetime: float | None) -> None:
    if not name.strip() or not name.isprintable() or len(name) > 100:
        raise InvalidArgument(f"a key's name must be 1 to 100 printable characters, not {name!r}")
    if not scopes:
        raise InvalidArgument("a key needs a scope, such as caching:read")
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            raise InvalidArgument(f"the scope {scope!r} is not <service>:read, :write or :admin, *:… or *")
    if lifetime is not None and not 0 < lifetime < 1e10:
        raise InvalidArgument(f"a key's lifetime must be more than 0 and less than 1e10 seconds, not {lifetime}")
