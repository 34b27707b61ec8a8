"""The queues on the server behind one queue: their names and arguments, and where a delayed message waits."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping

import msgspec

from noobly.queueing import names

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,120}")
_SHORTEST, _BASE, _STEPS = 32, 4, 14
STEPS: tuple[int, ...] = tuple(_SHORTEST * _BASE**step for step in range(_STEPS))
"""Milliseconds a message can wait at a stretch: 32 ms to 25 days. Few, for each is a queue of its own."""

_LIMIT = "x-delivery-limit"
_OTHER_LIMIT = re.compile(rf"inequivalent arg '{_LIMIT}'.* but current is (?:none|(?:the value )?'(\d+)')")
"""How the server says that a queue has another limit, which is the one thing that may differ."""
_DAY = 24 * 60 * 60 * 1000
_NEVER = 1_000_000_000
"""A delivery limit that nobody reaches; without one, RabbitMQ 4 drops a message after 20 deliveries."""


class Place(msgspec.Struct, frozen=True):
    """A queue on the server.

    Args:
        name: Its name there.
        arguments: What it is declared with.
    """

    name: str
    arguments: Mapping[str, str | int]


class Places:
    """Names what the server keeps for one namespace. Names that it may not take are hashed, behind a ``#``."""

    def __init__(self, namespace: str, delivery_limit: int) -> None:
        self._namespace = namespace
        self._limit = delivery_limit

    def name(self, queue: str) -> str:
        """Return the name on the server."""
        digest = hashlib.blake2b(queue.encode(), digest_size=16).hexdigest
        return f"{self._namespace}.{queue if _PLAIN.fullmatch(queue) else '#' + digest()}"

    def main(self, queue: str) -> Place:
        """Return where a queue's messages are; those that the server gives up go to its dead letters by themselves."""
        if names.is_dead(queue):
            return Place(self.name(queue), {"x-queue-type": "quorum", _LIMIT: _NEVER})
        target = self.name(names.dead(queue))
        return Place(self.name(queue), {**_forwards(target), _LIMIT: self._limit})

    def delay(self, queue: str, step: int) -> Place:
        """Return where messages of a queue wait for ``step`` milliseconds, one after another."""
        name = self.name(queue)
        arguments = {**_forwards(name), "x-message-ttl": step, "x-expires": step + _DAY}
        return Place(f"{name}#{step}", {**arguments, _LIMIT: _NEVER})

    def roll(self) -> Place:
        """Return where the names of the queues are kept; no queue of ours has this name, for it has no dot."""
        return Place(f"{self._namespace}#names", {"x-queue-type": "quorum", _LIMIT: _NEVER})


def _forwards(target: str) -> dict[str, str | int]:
    """Return the arguments of a queue that sends on what ends there, through the default exchange, losing nothing."""
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": target,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def kept_limit(place: Place, refusal: str) -> Place | None:
    """Return a queue with the delivery limit that it was made with; None where the refusal is for something else.

    Args:
        place: What was declared.
        refusal: What the server said.
    """
    other = _OTHER_LIMIT.search(refusal)
    if other is None:
        return None
    arguments = {name: value for name, value in place.arguments.items() if name != _LIMIT}
    return Place(place.name, {**arguments, _LIMIT: int(other[1])} if other[1] else arguments)


def step_for(seconds: float) -> int:
    """Return the longest step that is no longer than a delay, in milliseconds; the shortest for a shorter one.

    A message waits step by step: the one who receives it too early sends it to wait for the rest. So messages of equal
    step all wait equally long, and none is held up by one before it that has to wait longer.
    """
    left = max(STEPS[0], math.ceil(seconds * 1000))
    return max(step for step in STEPS if step <= left)
