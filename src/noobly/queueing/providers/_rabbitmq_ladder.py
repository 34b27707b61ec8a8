"""Counting delays down in the server: a message falls from queue to queue, and each halves what it can still wait.

RabbitMQ lets a message out of a queue when those before it are out, so all that wait in one queue must wait equally
long. A delay is a sum of powers of two, each of which has a queue. The routing key of a message says which of them it
needs, a word each, and then where it goes; a topic exchange before each queue lets a message in whose word is 1, and
past it otherwise.
"""

from __future__ import annotations

import math

import msgspec

_UNIT, _LEVELS = 32, 26
_MOST = (1 << _LEVELS) - 1
STEPS: tuple[int, ...] = tuple(_UNIT << level for level in range(_LEVELS))
"""Milliseconds that the queue of each level holds a message: 32 ms to 12 days. Only those in use are made."""
LONGEST = sum(STEPS)
"""Milliseconds that all of them take together; who has to wait longer is sent down once more."""


class Binding(msgspec.Struct, frozen=True):
    """What an exchange lets in.

    Args:
        exchange: Its name.
        key: The pattern of routing keys.
    """

    exchange: str
    key: str


class Rung(msgspec.Struct, frozen=True):
    """An exchange, and what it gets from the one above.

    Args:
        exchange: Its name.
        past: What the one above does not keep.
    """

    exchange: str
    past: Binding


class Ladder:
    """The exchanges of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def exchange(self, level: int) -> str:
        """Return the exchange before the queues of a level; below the lowest one, that before the queues themselves."""
        return f"{self._namespace}#delay-{level}" if level >= 0 else f"{self._namespace}#due"

    def rungs(self) -> list[Rung]:
        """Return how the exchanges hang together, the lowest first."""
        return [
            Rung(self.exchange(level - 1), Binding(self.exchange(level), _pattern(level, "0", "#")))
            for level in range(_LEVELS)
        ]

    def into(self, level: int, name: str) -> Binding:
        """Return what the delay queue of a level lets in, of the queue with a name."""
        return Binding(self.exchange(level), _pattern(level, "1", name))

    def out(self, name: str) -> Binding:
        """Return what the queue itself lets in."""
        return Binding(self.exchange(-1), _pattern(-1, "", name))


def levels(seconds: float) -> list[int]:
    """Return the levels that a delay needs, the highest first; together they take no less than the delay."""
    units = _units(seconds)
    return [level for level in reversed(range(_LEVELS)) if units >> level & 1]


def key(seconds: float, name: str) -> str:
    """Return the routing key that leads through these levels to the queue with a name."""
    return ".".join([*format(_units(seconds), f"0{_LEVELS}b"), name])


def _units(seconds: float) -> int:
    return min(max(1, math.ceil(seconds * 1000 / _UNIT)), _MOST)


def _pattern(level: int, digit: str, rest: str) -> str:
    return ".".join([*(digit if level == one else "*" for one in reversed(range(_LEVELS))), rest])
