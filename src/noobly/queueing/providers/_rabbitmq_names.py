"""The queues on the server behind one queue: their names and arguments, and how a delayed message goes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from noobly.queueing import names
from noobly.queueing.providers._rabbitmq_ladder import LONGEST, STEPS, Binding, Ladder, Rung, key, levels

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,120}")
_LIMIT = "x-delivery-limit"
_OTHER_LIMIT = re.compile(rf"inequivalent arg '{_LIMIT}'.* but current is (?:none|(?:the value )?'(\d+)')")
"""How the server says that a queue has another limit, which is the one thing that may differ."""
_UNUSED = LONGEST + 24 * 60 * 60 * 1000
"""Milliseconds after which a delay queue that nobody declares goes away: later than any message that is to reach it."""
_NEVER = 1_000_000_000
"""A delivery limit that nobody reaches; without one, RabbitMQ 4 drops a message after 20 deliveries."""


class Place(msgspec.Struct, frozen=True):
    """A queue on the server.

    Args:
        name: Its name there.
        arguments: What it is declared with.
        binding: What it gets from an exchange of ours; None for nothing.
    """

    name: str
    arguments: Mapping[str, str | int]
    binding: Binding | None = None


class Path(msgspec.Struct, frozen=True):
    """How a delayed message goes.

    Args:
        exchange: Where it begins.
        key: Its routing key.
        places: Where it waits, one after another; at least one.
    """

    exchange: str
    key: str
    places: tuple[Place, ...]


class Places:
    """Names what the server keeps for one namespace. Names that it may not take are hashed, behind a ``#``."""

    def __init__(self, namespace: str, delivery_limit: int) -> None:
        self._namespace = namespace
        self._limit = delivery_limit
        self._ladder = Ladder(namespace)

    def name(self, queue: str) -> str:
        """Return the name on the server."""
        digest = hashlib.blake2b(queue.encode(), digest_size=16).hexdigest
        return f"{self._namespace}.{queue if _PLAIN.fullmatch(queue) else '#' + digest()}"

    def main(self, queue: str) -> Place:
        """Return where a queue's messages are; those that the server gives up go to its dead letters by themselves."""
        name = self.name(queue)
        if names.is_dead(queue):
            return Place(name, {"x-queue-type": "quorum", _LIMIT: _NEVER}, self._ladder.out(name))
        forwards = {**_forwards(""), "x-dead-letter-routing-key": self.name(names.dead(queue))}
        return Place(name, {**forwards, _LIMIT: self._limit}, self._ladder.out(name))

    def path(self, queue: str, seconds: float) -> Path:
        """Return how a message of a queue waits so long; no longer than it can wait at a stretch."""
        needed = levels(seconds)
        places = tuple(self._delay(queue, level) for level in needed)
        return Path(self._ladder.exchange(needed[0]), key(seconds, self.name(queue)), places)

    def delays(self, queue: str) -> list[str]:
        """Return the names of all delay queues that a queue may have, in the order in which messages go."""
        return [self._delay(queue, level).name for level in reversed(range(len(STEPS)))]

    def rungs(self) -> list[Rung]:
        """Return the exchanges that delayed messages go through; see ``Ladder``."""
        return self._ladder.rungs()

    def _delay(self, queue: str, level: int) -> Place:
        name = self.name(queue)
        arguments = {**_forwards(self._ladder.exchange(level - 1)), "x-message-ttl": STEPS[level], "x-expires": _UNUSED}
        return Place(f"{name}#{STEPS[level]}", {**arguments, _LIMIT: _NEVER}, self._ladder.into(level, name))

    def roll(self) -> Place:
        """Return where the names of the queues are kept; no queue of ours has this name, for it has no dot."""
        return Place(f"{self._namespace}#names", {"x-queue-type": "quorum", _LIMIT: _NEVER})


def _forwards(exchange: str) -> dict[str, str | int]:
    """Return the arguments of a queue that sends on what ends there, through an exchange, losing nothing."""
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange,
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
    return replace(place, arguments={**arguments, _LIMIT: int(other[1])} if other[1] else arguments)
