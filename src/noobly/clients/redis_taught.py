"""A Redis connection whose server knows some scripts, whatever happens to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from noobly.clients.redis import Arg, Command, Execute, RedisClient, RedisReplyError, RedisScript, Reply

_LESSONS = 3
"""How often a call is repeated whose scripts the server does not know."""


class TaughtClient:
    """Teaches scripts to a server that has forgotten them, and repeats what it could not run for that.

    A server forgets at ``SCRIPT FLUSH``, and where it was replaced behind a proxy. What fails for that has done
    nothing, so that it may be repeated; a transaction is repeated as a whole.

    Args:
        client: The connection.
        scripts: What ``EVALSHA`` may name.
    """

    def __init__(self, client: RedisClient, scripts: Sequence[RedisScript]) -> None:
        self._client = client
        self._loads: list[Command] = [("SCRIPT", "LOAD", script.source) for script in scripts]

    async def teach(self, execute: Execute) -> None:
        """Let a session know all scripts, so that they can be named by their digests."""
        await asyncio.gather(*(execute(*load) for load in self._loads))

    async def start(self) -> None:
        """Connect and log in."""
        await self._client.start()

    async def close(self) -> None:
        """Give everything back; later calls raise ``Closed``."""
        await self._client.close()

    async def execute(self, *args: Arg) -> Reply:
        """Return the reply to one command; raises as the connection."""
        try:
            return await self._client.execute(*args)
        except RedisReplyError as error:
            if not _unknown(error):
                raise
            unknown = error
        (reply,) = await self._repeated([args], [unknown])
        if isinstance(reply, RedisReplyError):
            raise reply
        return reply

    def submit(self, command: Command) -> Awaitable[Reply]:
        """Return the future reply to one command, which must be awaited at once."""
        return self.execute(*command)

    async def execute_many(self, commands: Sequence[Command]) -> list[Reply | RedisReplyError]:
        """Return the replies to all commands in order, an error in its place."""
        return await self._repeated(commands, await self._client.execute_many(commands))

    async def _repeated(
        self, commands: Sequence[Command], replies: list[Reply | RedisReplyError]
    ) -> list[Reply | RedisReplyError]:
        for _ in range(_LESSONS):
            failed = _failed(commands, replies)
            if not failed:
                break
            # Both leave together, so that the server hardly has time to forget again.
            again = await self._client.execute_many([*self._loads, *(commands[place] for place in failed)])
            for place, reply in zip(failed, again[len(self._loads) :], strict=True):
                replies[place] = reply
        return replies

    async def script(self, script: RedisScript, keys: Sequence[Arg], args: Sequence[Arg]) -> Reply:
        """Return what a Lua script gives, whether it is among the known ones or not."""
        return await self._client.script(script, keys, args)


def _failed(commands: Sequence[Command], replies: Sequence[Reply | RedisReplyError]) -> list[int]:
    """Return the places of the commands that are to be repeated: all of a transaction."""
    if commands and commands[0] == ("MULTI",) and isinstance(results := replies[-1], list):
        return list(range(len(commands))) if any(map(_unknown, results)) else []
    return [place for place, reply in enumerate(replies) if _unknown(reply)]


def _unknown(reply: Reply | RedisReplyError) -> bool:
    return isinstance(reply, RedisReplyError) and reply.code == "NOSCRIPT"
