"""Names that SQS takes: queues have 80 of ``A-Z a-z 0-9 _ -`` at most, groups and keys 128 printable ASCII characters.

What a name cannot hold is written ``_x2e``, by bytes of UTF-8; a name that gets too long ends in a digest instead.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import NamedTuple

from noobly.core.errors import ConfigError

_FOREIGN = re.compile(r"_(?=x[0-9a-f]{2})|[^A-Za-z0-9_-]", re.ASCII)
_ESCAPED = re.compile(r"(?:_x[0-9a-f]{2})+")
_DIGESTED = re.compile(r"_h[0-9a-f]{20}\Z")
_PLAIN = re.compile(r"[!-~]{1,128}")
_LONGEST, _NAMESPACE = 80, 48
_FIFO = ".fifo"
_TAG = "noobly-name-"
_TAG_SIZE = 256


class Place(NamedTuple):
    """A queue's name in SQS, and the tags that hold its own name where the other one does not tell it."""

    name: str
    tags: Mapping[str, str]


class Naming:
    """Names the queues of one namespace.

    Args:
        namespace: What the names begin with; empty for nothing, so that queues have the names users give them.
        fifo: Whether they are FIFO queues, whose names end in ``.fifo``.
    """

    def __init__(self, namespace: str, *, fifo: bool) -> None:
        self.prefix = f"{_escape(namespace)}-" if namespace else ""
        self._end = _FIFO if fifo else ""
        self._room = _LONGEST - len(self.prefix) - len(self._end)
        if len(self.prefix) > _NAMESPACE:
            raise ConfigError(f"the namespace {namespace!r} is too long for the name of a queue in SQS")

    def place(self, queue: str) -> Place:
        """Return where a queue is."""
        name = _escape(queue)
        if len(name) <= self._room and not _DIGESTED.search(name):
            return Place(f"{self.prefix}{name}{self._end}", {})
        name = f"{name[: self._room - 22]}_h{_digest(queue)[:20]}"
        return Place(f"{self.prefix}{name}{self._end}", _tags(queue))

    def queue(self, name: str) -> str | None:
        """Return the queue of a name in SQS; None where it is none of these, or only its tags say."""
        inner = self._inner(name)
        return None if inner is None or _DIGESTED.search(inner) else _unescape(inner)

    def digested(self, name: str) -> bool:
        """Return whether the tags of a queue tell its name."""
        return bool(_DIGESTED.search(self._inner(name) or ""))

    def _inner(self, name: str) -> str | None:
        """Return what stands between namespace and ending; None for queues of another namespace or kind."""
        mine = name.startswith(self.prefix) and name.endswith(_FIFO) == bool(self._end)
        return name.removeprefix(self.prefix).removesuffix(self._end) if mine else None


def told(tags: Mapping[str, str]) -> str | None:
    """Return the name that a queue's tags tell; None where it is not one of ours."""
    parts = [tags[name] for name in sorted(tags) if name.startswith(_TAG)]
    return urlsafe_b64decode("".join(parts)).decode() if parts else None


def token(text: str) -> str:
    """Return text as a message group or deduplication id: itself where it can be, else a digest."""
    return text if _PLAIN.fullmatch(text) else _digest(text)


def _escape(text: str) -> str:
    return _FOREIGN.sub(lambda found: "".join(f"_x{byte:02x}" for byte in found[0].encode()), text)


def _unescape(name: str) -> str:
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[0].replace("_x", "")).decode(errors="replace"), name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _tags(queue: str) -> Mapping[str, str]:
    text = urlsafe_b64encode(queue.encode()).decode()
    parts = range(0, len(text), _TAG_SIZE)
    return {f"{_TAG}{number}": text[start : start + _TAG_SIZE] for number, start in enumerate(parts)}
