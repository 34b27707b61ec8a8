"""The names of queues, and of the queues of their dead letters."""

from __future__ import annotations

from noobly.core.checks import Limits, Text
from noobly.core.errors import InvalidArgument

_DEAD = ".dead"
_LONGEST = 200
_CHECK = Text(1, _LONGEST).compile("queue", Limits())


def check(queue: str) -> str:
    """Return a queue's name.

    Raises:
        InvalidArgument: It is no text of 1 to 200 characters.
    """
    if type(queue) is str and 0 < len(queue) <= _LONGEST and queue.isascii():
        return queue
    _CHECK(queue)
    return queue


def dead(queue: str) -> str:
    """Return the name of the queue that holds a queue's dead letters.

    Raises:
        InvalidArgument: The name is bad, or itself that of dead letters.
    """
    if is_dead(check(queue)):
        raise InvalidArgument(f"{queue!r} holds dead letters itself; name the queue they came from")
    return queue + _DEAD


def is_dead(queue: str) -> bool:
    """Return whether a queue holds dead letters."""
    return queue.endswith(_DEAD)


def origin(queue: str) -> str:
    """Return the queue whose dead letters a queue holds; of any other queue, itself."""
    return queue.removesuffix(_DEAD)
