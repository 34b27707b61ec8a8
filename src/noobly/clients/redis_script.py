"""Lua scripts on a Redis server, sent by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from noobly.clients.redis_reply import Arg, Execute, RedisReplyError, Reply


class RedisScript:
    """A Lua script and its digest, computed once."""

    __slots__ = ("sha", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


async def run_script(execute: Execute, script: RedisScript, keys: Sequence[Arg], args: Sequence[Arg]) -> Reply:
    """Return what a script gives, sending its source only where the server does not know its digest."""
    try:
        return await execute("EVALSHA", script.sha, len(keys), *keys, *args)
    except RedisReplyError as error:
        if error.code != "NOSCRIPT":
            raise
    return await execute("EVAL", script.source, len(keys), *keys, *args)
