"""A connection to RabbitMQ that comes back at the next call, and the errors of its client.

The client's own robust connection is not used: it comes back without its consumers, and it holds up calls meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import (
    AMQPChannelError,
    AMQPError,
    AuthenticationError,
    ChannelPreconditionFailed,
    ConnectionClosed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from noobly.core.errors import (
    Closed,
    ConfigError,
    NooblyError,
    PermissionDenied,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from noobly.core.lifecycle import Tasks
from noobly.queueing.providers._rabbitmq_config import Address, RabbitmqConfig, addresses, credentials, tls

T = TypeVar("T")

_NOT_ALLOWED = 530


def classify(error: BaseException) -> NooblyError | None:
    """Return the suite's error for one of the client's; None for what is none of them."""
    if isinstance(error, ProbableAuthenticationError | AuthenticationError):
        return Unauthenticated("RabbitMQ refuses the user or password")
    if isinstance(error, ChannelPreconditionFailed):
        return _unmet(_said(error))
    if isinstance(error, AMQPChannelError) and "ACCESS_REFUSED" in _said(error):
        return PermissionDenied(f"RabbitMQ does not allow this user what was asked: {_said(error)}")
    if _no_host(error):
        return ConfigError("RabbitMQ has no such virtual host, or this user may not use it")
    if isinstance(error, AMQPError | OSError | RuntimeError):
        return Unavailable(f"RabbitMQ does not answer, or has closed the connection: {_said(error)}")
    return None


def _unmet(said: str) -> NooblyError:
    """Return the error for the one code that stands for several things."""
    if "inequivalent arg" in said or "invalid arg" in said:
        return ConfigError(f"RabbitMQ has this queue with other arguments, or refuses them: {said}")
    if "message size" in said:
        return TooLarge(f"RabbitMQ does not take a message of this size: {said}")
    return Unavailable(f"RabbitMQ has closed the channel, and taken back what was held: {said}")


def _no_host(error: BaseException) -> bool:
    """Return whether opening a virtual host failed; some releases of the client only say what else they expected."""
    refused = isinstance(error, ConnectionClosed) and error.args[:1] == (_NOT_ALLOWED,)
    return refused or (isinstance(error, InvalidFrameError) and "Connection.OpenOk" in _said(error))


def _said(error: BaseException) -> str:
    return " ".join(str(part) for part in error.args) or type(error).__name__


class Connection(aio_pika.Connection):
    """A connection that is closed at once where it cannot be opened; else its finalizer would, at the wrong moment."""

    async def connect(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the client's own argument
        """Connect; see the client."""
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()
            raise


class RabbitLink:
    """One connection, shared by all calls.

    Args:
        config: How to connect.
        tasks: Where what outlives a call runs.
        role: What it is for, shown by the server beside the connection.
    """

    def __init__(self, config: RabbitmqConfig, tasks: Tasks, role: str) -> None:
        self._config, self._tasks, self._role = config, tasks, role
        self._addresses = deque(addresses(config))
        self._connection: AbstractConnection | None = None
        self._attempt: asyncio.Task[AbstractConnection] | None = None
        self._doubted: set[AbstractConnection] = set()
        self._closed = False

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """Return a new channel, connecting where there is no connection.

        Raises:
            Unavailable: The server cannot be reached.
            Unauthenticated: It refuses the user or password.
            ConfigError: There is no such virtual host.
        """
        connection = await self._ready()
        async with self.bounded():
            channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
            await channel.initialize()
        return channel

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """Doubt a connection on which the body gets no answer in time; errors of the client become ours.

        The body must run in a task that only the end of the provider cancels: the client closes the channel of a call
        that is cancelled.
        """
        connection = self._connection
        try:
            async with asyncio.timeout(self._config.stall_timeout):
                yield
        except TimeoutError as error:
            if connection is not None and connection not in self._doubted:
                self._doubted.add(connection)
                self._tasks.spawn(self._test(connection), "testing a connection")
            raise Unavailable(f"RabbitMQ did not answer within {self._config.stall_timeout:g} s") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # With this the client ends the calls of a connection that it has found silent.
            raise Unavailable("the connection to RabbitMQ was lost") from error
        except NooblyError:
            raise
        except Exception as error:
            known = classify(error)
            if known is None:
                raise
            raise known from error

    async def close(self) -> None:
        """Close the connection; later calls raise ``Closed``."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _ready(self) -> AbstractConnection:
        if self._closed:
            raise Closed("the connection to RabbitMQ is closed")
        if self._connection is not None and not self._connection.is_closed and self._connection.connected.is_set():
            return self._connection
        if self._attempt is None or self._attempt.done():
            self._attempt = self._tasks.spawn(self._connect(), "connecting to RabbitMQ")
        return await asyncio.shield(self._attempt)

    async def _connect(self) -> AbstractConnection:
        if self._connection is not None:
            await self._connection.close()  # It is lost, and would close itself some time later.
        for _ in range(len(self._addresses) - 1):
            with suppress(Unavailable):
                return await self._connected(self._addresses[0])
            self._addresses.rotate(-1)  # The one that works stays the first.
        return await self._connected(self._addresses[0])

    async def _connected(self, address: Address) -> AbstractConnection:
        config = self._config
        user, password = credentials(config)
        context = tls(config)
        try:
            self._connection = await aio_pika.connect(
                host=address.host,
                port=address.port,
                login=user,
                password=password,
                virtualhost=config.vhost,
                ssl=config.secure,
                ssl_context=context,
                timeout=config.connect_timeout,
                heartbeat=config.heartbeat,
                connection_class=Connection,
                client_properties={"connection_name": f"noobly {config.namespace} {self._role}"},
            )
        except (AMQPError, OSError, TimeoutError, RuntimeError) as error:
            failure = classify(error) or Unavailable(f"RabbitMQ at {address.host}:{address.port} cannot be reached")
            raise failure from error
        return self._connection

    async def _test(self, connection: AbstractConnection) -> None:
        """Give up a connection that is silent as a whole; one that answers may have a single queue without a leader."""
        try:
            async with asyncio.timeout(self._config.stall_timeout):
                channel = connection.channel(publisher_confirms=False)
                await channel.initialize()
                await channel.close()
        except (AMQPError, OSError, TimeoutError, RuntimeError):
            if connection is self._connection:
                self._connection = None
            await connection.close()
        finally:
            self._doubted.discard(connection)


async def uncut(
    tasks: Tasks, work: Coroutine[object, object, T], gone: Callable[[asyncio.Task[T]], None] | None = None
) -> T:
    """Await work that goes on if the caller is cancelled, and ends only with the provider.

    Args:
        tasks: Where it runs.
        work: What is awaited.
        gone: Called with the task if the caller is cancelled.

    Raises:
        Closed: The provider was closed meanwhile.
    """
    task = tasks.spawn(work, "rabbitmq call")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError as error:
        current = asyncio.current_task()
        if task.cancelled() and not (current and current.cancelling()):
            raise Closed("the connection to RabbitMQ was closed meanwhile") from error
        if gone is not None:
            gone(task)
        raise
