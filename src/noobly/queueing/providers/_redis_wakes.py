"""Being told of messages: one channel per queue that somebody here waits for, pushed by the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from noobly.clients.redis import Execute, RedisConnection, Reply
from noobly.core.errors import Unavailable


class Wakes:
    """Subscriptions on a connection, which outlive its losses.

    Args:
        connection: Not yet started; its commands go on as before, for RESP3 tells pushes from answers.
        woken: Called with a channel on which something was said.
        lost: Called when the connection was lost, so that something may have been missed.
    """

    def __init__(self, connection: RedisConnection, woken: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._connection = connection
        self._woken = woken
        self._lost = lost
        self._channels: set[bytes] = set()
        self._heard: set[bytes] = set()
        connection.on_push(self._push)
        connection.on_connect(self._connect)
        connection.on_disconnect(self._disconnect)

    async def start(self, nodes: int) -> None:
        """Connect to the first of some nodes that is there; the connection goes to the next one at each attempt."""
        for left in reversed(range(nodes)):
            try:
                await self._connection.start()
            except Unavailable:
                if not left:
                    raise
            else:
                return

    def listens(self, channel: bytes) -> bool:
        """Return whether what is said on a channel is heard now."""
        return channel in self._heard

    async def listen(self, channel: bytes) -> None:
        """Hear what is said on a channel from now on, also after the connection was lost and came back."""
        self._channels.add(channel)
        await self._connection.execute("SUBSCRIBE", channel)
        if channel in self._channels and self._connection.connected:
            self._heard.add(channel)

    def forget(self, channel: bytes) -> bool:
        """Take a channel for one that nobody wants to hear any more; return whether ``leave`` is to be told."""
        self._heard.discard(channel)
        known = channel in self._channels
        self._channels.discard(channel)
        return known

    async def leave(self, channel: bytes) -> None:
        """Hear a forgotten channel no more, unless somebody wants to hear it again by now."""
        if channel not in self._channels and self._connection.connected:
            await self._connection.execute("UNSUBSCRIBE", channel)

    def _push(self, message: list[Reply]) -> None:
        if message[0] == b"message" and isinstance(message[1], bytes):
            self._woken(message[1])

    async def _connect(self, execute: Execute) -> None:
        channels = tuple(self._channels)
        await asyncio.gather(*(execute("SUBSCRIBE", channel) for channel in channels))
        self._heard.update(channels)

    def _disconnect(self) -> None:
        self._heard.clear()
        self._lost()
