"""Handling messages side by side: one task for each, a bound, and a graceful end."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from noobly.core.errors import Conflict, NooblyError
from noobly.queueing.consuming import Consumption, Message

T = TypeVar("T")
Handler = Callable[[Message[T]], Awaitable[object] | object]
"""What is done with a message; a plain function runs in a thread."""

_log = logging.getLogger("noobly.queueing")


async def handle(consumption: Consumption[T], handler: Handler[T], grace: float) -> None:
    """Run a handler for each message until the consumption stops or the caller is cancelled.

    Then nothing more is received; handlers under way have ``grace`` seconds, are cancelled, and their messages go back.
    """
    running: set[asyncio.Task[None]] = set()
    try:
        async for message in consumption:
            task = asyncio.create_task(_one(message, handler), name=f"message {message.id}")
            running.add(task)
            task.add_done_callback(running.discard)
    finally:
        consumption.stop()
        try:
            await _drain(set(running), grace)
        finally:
            await consumption.close()


async def _one(message: Message[T], handler: Handler[T]) -> None:
    try:
        async with message:
            if inspect.iscoroutinefunction(handler):
                await cast(Awaitable[object], handler(message))
                return
            made = await asyncio.to_thread(handler, message)
            if inspect.isawaitable(made):  # Such as a callable object whose call is async.
                await made
    except Conflict:
        _log.warning("message %s is done, but lost its lease before; it may be worked on twice", message.id)
    except NooblyError as error:
        _log.warning("message %s could not be settled and comes again: %s", message.id, error)


async def _drain(running: set[asyncio.Task[None]], grace: float) -> None:
    if not running:
        return
    try:
        await asyncio.wait(running, timeout=grace)
    finally:  # Also where the caller is cancelled once more, and will not wait.
        late = [task for task in running if not task.done()]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
