"""A connection whose server has forgotten its scripts."""

from __future__ import annotations

import pytest

from noobly.clients.redis import RedisReplyError, RedisScript
from noobly.clients.redis_taught import TaughtClient

SCRIPT = RedisScript("return 1")
RUN = ("EVALSHA", SCRIPT.sha, 0)


class Server:
    """A server that forgets what it has learnt so many times."""

    def __init__(self, forgets=0):
        self.known, self.forgets, self.seen = False, forgets, []

    def _reply(self, command):
        self.seen.append(command[0])
        if command[:2] == ("SCRIPT", "LOAD"):
            self.known, self.forgets = self.forgets <= 0, self.forgets - 1
        if command == ("FAIL",):
            return RedisReplyError("ERR", "of another kind")
        return 1 if self.known or command[0] != "EVALSHA" else RedisReplyError("NOSCRIPT", "No matching script.")

    async def execute(self, *args):
        (reply,) = await self.execute_many([args])
        if isinstance(reply, RedisReplyError):
            raise reply
        return reply

    async def execute_many(self, commands):
        replies, queued = [], None
        for command in commands:
            if command == ("MULTI",):
                queued = []
                replies.append(b"OK")
            elif command == ("EXEC",):
                replies.append([self._reply(one) for one in queued])
            elif queued is not None:
                queued.append(command)
                replies.append(b"QUEUED")
            else:
                replies.append(self._reply(command))
        return replies


async def test_one_command():
    server = Server()
    assert await TaughtClient(server, [SCRIPT]).execute(*RUN) == 1
    assert server.seen == ["EVALSHA", "SCRIPT", "EVALSHA"]


async def test_only_what_failed_for_it_is_repeated():
    server = Server()
    first, failed, last = await TaughtClient(server, [SCRIPT]).execute_many([("PING",), ("FAIL",), RUN])
    assert (first, failed.code, last) == (1, "ERR", 1)
    assert server.seen == ["PING", "FAIL", "EVALSHA", "SCRIPT", "EVALSHA"]


async def test_a_transaction_is_repeated_as_a_whole():
    server = Server()
    *_, done = await TaughtClient(server, [SCRIPT]).execute_many([("MULTI",), ("PING",), RUN, ("EXEC",)])
    assert done == [1, 1]
    assert server.seen == ["PING", "EVALSHA", "SCRIPT", "PING", "EVALSHA"]


async def test_a_server_that_forgets_again_and_for_ever():
    assert await TaughtClient(Server(forgets=2), [SCRIPT]).execute(*RUN) == 1
    with pytest.raises(RedisReplyError, match="NOSCRIPT"):
        await TaughtClient(Server(forgets=9), [SCRIPT]).execute(*RUN)


async def test_other_errors_are_the_callers_affair():
    server = Server()
    with pytest.raises(RedisReplyError, match="another kind"):
        await TaughtClient(server, [SCRIPT]).execute("FAIL")
    assert server.seen == ["FAIL"]
