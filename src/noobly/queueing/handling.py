"""Handling messages side by side: one task for each, a bound, and a graceful end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar, cast

from noobly.core.correlation import carried
from noobly.queueing.consuming import Consumption
from noobly.queueing.holding import Message

T = TypeVar("T")
Handler = Callable[[Message[T]], Awaitable[object] | object]
"""What is done with a message; a plain function runs in a thread."""


async def handle(consumption: Consumption[T], handler: Handler[T], grace: float) -> None:
    """Run a handler for each message until the consumption stops or the caller is cancelled.

    Then nothing more is received; handlers under way have ``grace`` seconds, are cancelled, and their messages go back.
    A plain handler cannot be cancelled: its thread goes on until it returns.
    """
    running: set[asyncio.Task[None]] = set()
    threads = ThreadPoolExecutor(consumption.concurrency, thread_name_prefix=f"queue {consumption.queue}")
    try:
        async for message in consumption:
            task = asyncio.create_task(_one(message, handler, threads), name=f"message {message.id}")
            running.add(task)
            task.add_done_callback(running.discard)
    finally:
        consumption.stop()
        try:
            await _drain(set(running), grace)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            await consumption.close()


async def _one(message: Message[T], handler: Handler[T], threads: Executor) -> None:
    async with message:
        if inspect.iscoroutinefunction(handler):
            await cast(Awaitable[object], handler(message))
            return
        made = await asyncio.get_running_loop().run_in_executor(threads, carried(handler), message)
        if inspect.isawaitable(made):  # Such as a callable object whose call is async.
            await made


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
