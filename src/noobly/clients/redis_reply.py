"""What goes to a Redis server and what comes back: commands, replies and error replies."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, TypeAlias

from noobly.core.errors import Conflict, NooblyError, PermissionDenied, Unauthenticated, Unavailable

Arg: TypeAlias = str | bytes | int | float
Command: TypeAlias = tuple[Arg, ...]
Reply: TypeAlias = "bool | int | float | bytes | list[Reply | RedisReplyError] | dict[bytes, Reply] | None"

_CODES: dict[str, type[NooblyError]] = {
    **dict.fromkeys(("LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "OOM"), Unavailable),
    **dict.fromkeys(("MISCONF", "NOREPLICAS"), Unavailable),
    **dict.fromkeys(("NOAUTH", "WRONGPASS"), Unauthenticated),
    "NOPERM": PermissionDenied,
    "WRONGTYPE": Conflict,
}


class RedisReplyError(Exception):
    """The server answered a command with an error: ``code`` is its first word, ``message`` the rest."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message

    @classmethod
    def parse(cls, text: str) -> RedisReplyError:
        """Return the error of an error line as the server wrote it."""
        code, _, message = text.partition(" ")
        return cls(code, message)


def classify(error: BaseException) -> NooblyError | None:
    """Return the suite's error for one of this module's or the network's; None where it is a defect."""
    if isinstance(error, NooblyError):
        return error
    if isinstance(error, OSError):
        return Unavailable(f"redis cannot be reached: {error or 'no answer in time'}")
    if not isinstance(error, RedisReplyError):
        return None
    full = error.message.startswith("max number of clients")
    kind = Unavailable if full else _CODES.get(error.code)
    return kind(f"redis refused the command: {error}") if kind else None


class Execute(Protocol):
    """Sends one command and gives its reply."""

    def __call__(self, *args: Arg) -> Awaitable[Reply]:
        """Return the reply."""
