"""The byte stream to one Redis server: commands out in order, replies matched to callers by that order.

All commands issued in one turn of the event loop leave in one write
(https://redis.io/docs/latest/develop/using-commands/pipelining/). RESP3 is required, so that push messages
can be told from replies (https://redis.io/docs/latest/develop/reference/protocol-spec/).
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TypeAlias, cast

import hiredis

from noobly.clients.redis_reply import Command, RedisReplyError, Reply
from noobly.core.errors import NooblyError, Unavailable

BUFFER_BYTES = 1 << 20
"""Unsent bytes at which callers begin to wait."""

_DEMOTED = frozenset(("READONLY", "MASTERDOWN"))
_CONFIRMED = frozenset((b"subscribe", b"unsubscribe"))
"""Pushes that stand where the reply to a command would."""
_MORE = object()
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)


class Batch:
    """Gathers the replies to several commands for one waiting caller; stands in for a future in the queue."""

    __slots__ = ("_replies", "_size", "done", "future", "set_exception")

    def __init__(self, future: asyncio.Future[list[Reply | RedisReplyError]], size: int) -> None:
        self.future = future
        self.done = future.done
        self.set_exception = future.set_exception
        self._size = size
        self._replies: list[Reply | RedisReplyError] = []

    def set_result(self, reply: Reply | RedisReplyError) -> None:
        """Take the next reply; the last one wakes the caller."""
        self._replies.append(reply)
        if len(self._replies) == self._size:
            self.future.set_result(self._replies)


_Slot: TypeAlias = "asyncio.Future[Reply] | Batch"


class RedisWire(asyncio.Protocol):
    """One TCP, TLS or Unix connection; never reconnects.

    Args:
        limit: Commands in flight above which callers queue up, first come first served.
        stall: Seconds without any byte from the server, while commands wait, after which it counts as dead.
        on_push: Called with each push message, in order with the replies around it.
        on_drop: Called once, before any caller learns that the connection is gone.
    """

    def __init__(
        self,
        *,
        limit: int,
        stall: float,
        on_push: Callable[[list[Reply]], None],
        on_drop: Callable[[RedisWire], None],
    ) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failure: NooblyError | None = None
        self.proven = False
        self._loop = self.lost.get_loop()
        self._limit, self._stall = limit, stall
        self._on_push, self._on_drop = on_push, on_drop
        self._reader = hiredis.Reader(replyError=RedisReplyError.parse, notEnoughData=_MORE)
        self._pending: deque[_Slot] = deque()
        self._backlog: deque[tuple[Sequence[Command], _Slot]] = deque()
        self._out: list[bytes] = []
        self._out_bytes = self._left = self._quiet = 0
        self._held = self._paused = self._heard = False
        self._demoted: RedisReplyError | None = None

    def submit(self, command: Command) -> asyncio.Future[Reply]:
        """Return the future reply to a command, which leaves at the end of this turn of the loop."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self._held or len(self._pending) >= self._limit:
            self._queue((command,), future)
        else:
            self._send(_pack(command))
            self._pending.append(future)
        return future

    def submit_many(self, commands: Sequence[Command]) -> asyncio.Future[list[Reply | RedisReplyError]]:
        """Return the future replies to commands that leave together, errors in their places."""
        batch = Batch(self._loop.create_future(), len(commands))
        if self._held or len(self._pending) >= self._limit:
            self._queue(commands, batch)
        else:
            self._send_all(commands, batch)
        return batch.future

    def drop(self, kind: type[NooblyError], why: str, cause: BaseException | None = None) -> None:
        """Cut the connection at once and fail every waiting caller; a second call does nothing."""
        if self.failure is not None:
            return
        self.failure, self._held = _error(kind, why, cause), True
        self._timer.cancel()
        self._transport.abort()
        self._on_drop(self)
        unsure = f"{why}; the command may or may not have been executed"
        for slot in self._pending:
            if not slot.done():
                slot.set_exception(_error(kind, unsure, cause))
        for _, slot in self._backlog:
            if not slot.done():
                slot.set_exception(_error(kind, f"{why}; the command was not sent", cause))
        self._pending.clear()
        self._backlog.clear()
        self._out.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch the peer (asyncio's callback)."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=BUFFER_BYTES)
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._timer = self._loop.call_later(self._stall / 4, self._watch)

    def data_received(self, data: bytes) -> None:
        """Hand the replies in these bytes to their callers (asyncio's callback)."""
        self._heard = self.proven = True
        pending, reader = self._pending, self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _MORE:
                kind = type(reply)
                if kind is hiredis.PushNotification and reply[0] not in _CONFIRMED:
                    self._loop.call_soon(self._on_push, reply)
                    continue
                slot = pending.popleft()
                if kind is RedisReplyError:
                    self._refuse(slot, reply)
                elif not slot.done():
                    slot.set_result(reply)
        except (hiredis.ProtocolError, IndexError, TypeError) as error:
            self.drop(Unavailable, f"the server does not speak the Redis protocol ({error})", error)
        if self._demoted:
            self.proven = False
            self.drop(Unavailable, f"the server stopped being the primary ({self._demoted.code})", self._demoted)
        elif self._backlog:
            self._admit()

    def pause_writing(self) -> None:
        """Make callers wait: the server reads too slowly (asyncio's callback)."""
        self._paused = self._held = True

    def resume_writing(self) -> None:
        """Let callers go on (asyncio's callback)."""
        self._paused = False
        self._admit()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whoever waits (asyncio's callback)."""
        cause = exc or ConnectionResetError("connection closed by the server")
        self.drop(Unavailable, f"the connection to redis was lost ({cause})", cause)
        self.lost.set_result(None)

    def _queue(self, commands: Sequence[Command], slot: _Slot) -> None:
        if self.failure is not None:
            raise self.failure
        self._backlog.append((commands, slot))
        self._held = True

    def _admit(self) -> None:
        while self._backlog and not self._paused and len(self._pending) < self._limit:
            commands, slot = self._backlog.popleft()
            if slot.done():
                continue
            try:
                self._send_all(commands, slot)
            except (TypeError, ValueError) as error:
                slot.set_exception(error)
        self._held = self._paused or bool(self._backlog) or self.failure is not None

    def _send_all(self, commands: Sequence[Command], slot: _Slot) -> None:
        packed = b"".join(map(_pack, commands))
        self._pending.extend(repeat(slot, len(commands)))
        self._send(packed)

    def _send(self, packed: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        self._out_bytes += len(packed)
        if self._out_bytes >= BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
            self._out_bytes = 0

    def _refuse(self, slot: _Slot, error: RedisReplyError) -> None:
        if error.code in _DEMOTED:
            self._demoted = error
        if slot.done():
            return
        if isinstance(slot, Batch):
            slot.set_result(error)
        else:
            slot.set_exception(error)

    def _watch(self) -> None:
        """Count quarters of the stall time without progress; a loop that was busy itself counts as one."""
        left = self._transport.get_write_buffer_size()
        idle = not self._pending or self._heard or left != self._left
        self._quiet = 0 if idle else self._quiet + 1
        self._heard, self._left = False, left
        if self._quiet > 4:
            why = f"redis did not answer for {self._stall} s"
            self.drop(Unavailable, why, TimeoutError(why))
        else:
            self._timer = self._loop.call_later(self._stall / 4, self._watch)


def _error(kind: type[NooblyError], message: str, cause: BaseException | None) -> NooblyError:
    error = kind(message)
    error.__cause__ = cause
    return error
