"""The remote provider: logs on a Noobly server; batches that it cannot take now wait in files and follow in order."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar, TypeVarTuple

import msgspec

from noobly.clients.http import HttpCaller, HttpConfig, Received
from noobly.core.errors import DeadlineExceeded, InvalidArgument, NooblyError, TooLarge, Unavailable
from noobly.core.lifecycle import Tasks
from noobly.core.public import Route, routes
from noobly.core.scope import Environment
from noobly.core.wire import MSGPACK, Outgoing
from noobly.logging.logs import Logs
from noobly.logging.spool import Spool

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_log = logging.getLogger("noobly.logging.remote")
_STORED = Received(msgspec.msgpack.encode(None), MSGPACK)
_APPEND = next(route for route in routes(Logs) if route.name == "append")


class RemoteConfig(HttpConfig, frozen=True, kw_only=True):
    """The options of the remote provider.

    Args:
        scheme: ``http`` or ``https``; ``remote`` and ``api`` stand for ``http``.
        host: The server.
        port: Its port; 11000, or 443 for https.
        path: Where the server is mounted below its host.
        at: The name of the instance on the server.
        key: The API key, by reference.
        connect_timeout: Seconds to wait for a connection.
        connections: Connections kept open at most.
        spool: The folder of batches that wait for the server; empty for none, so that they fail at once.
        spool_bytes: Bytes it may take; the oldest batches leave first.
        spool_after: Seconds that one attempt to send a batch may take before it is put there.
        spool_retry: Seconds between attempts to reach a server that was down.
        gzip_above: Bytes from which a body is sent compressed; None for never.
    """

    spool: str = ".noobly/spool"
    spool_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024)] = 64 * 1024 * 1024
    spool_after: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    spool_retry: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    gzip_above: int | None = 1024


class _Batch(NamedTuple):
    """A batch as it waits: where it goes, and its body."""

    service: str
    content_type: str
    body: bytes


class RemoteLogs(HttpCaller):
    """Calls a server's logs. A batch is acknowledged once the server has it, or the disk while the server is down.

    Each batch has an id by which the server knows it, so that one whose answer was lost may be sent again.
    """

    Config = RemoteConfig

    def __init__(self, config: RemoteConfig, environment: Environment) -> None:
        super().__init__(config, environment)
        self._options = config
        # Batches for one server and instance must not be sent to another that is configured later.
        where = hashlib.sha256(f"{self._base} {config.at}".encode()).hexdigest()[:16]
        self._spool = Spool(Path(config.spool).absolute() / where, config.spool_bytes) if config.spool else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="noobly-log-spool")
        self._tasks = Tasks()
        self._replaying: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def start(self, stack: AsyncExitStack) -> None:
        """Open the client, and send what an earlier process left; the first call connects."""
        await super().start(stack)
        if self._spool is None:
            return
        stack.callback(self._spool.close)
        stack.push_async_callback(asyncio.to_thread, self._thread.shutdown)
        stack.push_async_callback(self._tasks.close)
        try:
            await self._off_loop(self._spool.open)
        except OSError as error:
            raise Unavailable(f"the spool {self._options.spool} cannot be used: {error}") from error
        self._replay_soon()

    async def call(self, service: str, route: Route, call: Outgoing, accept: str) -> Received:
        """Send one call; see ``Caller``. Batches are kept where the server does not take them now."""
        if self._spool is None or route.name != _APPEND.name:
            return await super().call(service, route, call, accept)
        async with self._turn:  # So that batches follow each other in order.
            if self._spool.empty:
                try:
                    return await self._send(service, route, call, accept)
                except Exception as error:
                    failure = error if isinstance(error, NooblyError) else self.classify(error)
                    if failure is None or not failure.temporary:
                        raise
            return await self._keep(self._spool, _Batch(service, call.content_type, call.body or b""))

    async def _send(self, service: str, route: Route, call: Outgoing, accept: str) -> Received:
        try:
            async with asyncio.timeout(self._options.spool_after):
                return await super().call(service, route, call, accept)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._base} did not take a batch in {self._options.spool_after} s") from error

    async def _keep(self, spool: Spool, batch: _Batch) -> Received:
        try:
            lost = spool.lost
            await self._off_loop(spool.add, msgspec.msgpack.encode(batch))
            if spool.lost > lost:
                _log.warning("the spool for %s is full; its oldest %d bytes are lost", self._base, spool.lost - lost)
        except OSError as error:
            raise Unavailable(f"{self._base} takes no records, and the spool fails too: {error}") from error
        self._replay_soon()
        return _STORED

    def _replay_soon(self) -> None:
        if self._spool is not None and not self._spool.empty and (self._replaying is None or self._replaying.done()):
            self._replaying = self._tasks.spawn(self._replay(self._spool), "noobly-log-spool")

    async def _replay(self, spool: Spool) -> None:
        """Send what waits, in order, until nothing does."""
        while not spool.empty:
            async with self._turn:
                message = await self._off_loop(spool.first)
                done = message is None or await self._delivered(msgspec.msgpack.decode(message, type=_Batch))
                if done and message is not None:
                    await self._off_loop(spool.sent)
            if not done:
                await asyncio.sleep(self._options.spool_retry)

    async def _delivered(self, batch: _Batch) -> bool:
        """Send one batch that waited; return whether it need not be sent again."""
        try:
            await self._send(batch.service, _APPEND, Outgoing("", batch.body, batch.content_type), MSGPACK)
        except (InvalidArgument, TooLarge) as error:
            # It would be refused again and again, and keep all that follows from being sent.
            _log.warning("a batch that waited for %s was refused and is lost: %s", self._base, error.message)
        except Exception as error:
            if not isinstance(error, NooblyError) and self.classify(error) is None:
                raise
            return False
        return True

    async def _off_loop(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
