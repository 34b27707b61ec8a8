"""A TCP proxy that misbehaves on command, for tests of what a client does when the network does."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Self

from noobly.testing._process import free_port

_CHUNK = 65_536
# Closing a socket with a linger time of zero sends RST instead of FIN (socket(7), SO_LINGER).
_RESET = struct.pack("ii", 1, 0)
_FINISH = struct.pack("ii", 0, 0)


class TcpProxy:
    """Forwards a loopback port to a server until told to cut, to fall silent or to be slow.

    Args:
        host: The server's IPv4 address or name.
        port: The server's port.

    Attributes:
        host: Where clients connect.
        port: The port on which they connect; it stays the same across ``cut`` and ``restore``.
        connections: How many connections were accepted in all.
        sent: Bytes forwarded to the server.
        received: Bytes forwarded from the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener: socket.socket | None = None
        self._links: dict[asyncio.Task[None], socket.socket] = {}
        self._flowing = asyncio.Event()
        self._pause = 0.0
        self.host = "127.0.0.1"
        self.port = free_port()
        self.connections = 0
        self.sent = 0
        self.received = 0

    async def __aenter__(self) -> Self:
        self.restore()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.cut()

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    async def cut(self) -> None:
        """Reset every connection and refuse new ones, as if the server's machine had gone."""
        if self._listener:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        links = list(self._links)
        for link in links:
            link.cancel()
        if links:
            await asyncio.wait(links)

    def restore(self) -> None:
        """Undo ``cut``, ``blackhole`` and ``delay``; what a blackhole held back is forwarded now."""
        self._flowing.set()
        self._pause = 0.0
        if self._listener is None:
            self._listener = self._listen()
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def blackhole(self) -> None:
        """Keep connections open and accept new ones, but forward nothing in either direction."""
        self._flowing.clear()

    def delay(self, seconds: float) -> None:
        """Hold every further chunk back for some seconds, in each direction."""
        self._pause = seconds

    def _listen(self) -> socket.socket:
        listener = socket.create_server((self.host, self.port), backlog=128)
        listener.setblocking(False)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        try:
            near, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client left before its turn
        self.connections += 1
        _prepare(near)
        task = asyncio.get_running_loop().create_task(self._link(near))
        self._links[task] = near
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._links.pop(task).close()  # here, because a task cancelled before its first step runs no code of its own

    async def _link(self, near: socket.socket) -> None:
        with socket.socket() as far:
            _prepare(far)
            try:
                await asyncio.get_running_loop().sock_connect(far, self._target)
                async with asyncio.TaskGroup() as directions:
                    directions.create_task(self._pump(near, far, self._count_sent))
                    directions.create_task(self._pump(far, near, self._count_received))
                for end in (near, far):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _FINISH)
            except* OSError:
                pass  # one side is gone or was never there: the other one sees a reset

    async def _pump(self, source: socket.socket, sink: socket.socket, count: Callable[[int], None]) -> None:
        loop = asyncio.get_running_loop()
        while chunk := await loop.sock_recv(source, _CHUNK):
            await self._hold()
            await loop.sock_sendall(sink, chunk)
            count(len(chunk))
        await self._hold()
        sink.shutdown(socket.SHUT_WR)

    async def _hold(self) -> None:
        await asyncio.sleep(self._pause)
        await self._flowing.wait()

    def _count_sent(self, size: int) -> None:
        self.sent += size

    def _count_received(self, size: int) -> None:
        self.received += size


def _prepare(end: socket.socket) -> None:
    end.setblocking(False)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # until both sides have said goodbye
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
