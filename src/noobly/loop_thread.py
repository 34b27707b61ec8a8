"""An event loop in a thread of its own, and how plain code and async code call each other across it."""

from __future__ import annotations

import asyncio
import concurrent.futures as futures
import functools
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, ParamSpec, Self, TypeVar

from noobly.core.errors import Closed, InvalidArgument

__all__ = ["Held", "LoopThread", "protected", "threaded"]

A = ParamSpec("A")
R = TypeVar("R")

_WORKERS = 256
"""Functions of callers that run at once. They may call back and so wait for each other, hence not a few."""


class LoopThread:
    """Runs async functions for any number of threads; to be entered before use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._end = asyncio.Event()
        # A thread of a program that forgets to close must not keep the program from ending.
        self._thread = threading.Thread(target=self._main, name="noobly", daemon=True)
        self._process = os.getpid()

    def __enter__(self) -> Self:
        _refuse_loop()
        self._thread.start()
        self._loop = self._started.result()
        return self

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(futures.ThreadPoolExecutor(_WORKERS, thread_name_prefix="noobly-worker"))
        self._started.set_result(loop)
        await self._end.wait()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and os.getpid() == self._process:
            loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    def run(self, function: Callable[A, Awaitable[R]], *args: A.args, **kwargs: A.kwargs) -> R:
        """Run an async function and wait for its result; a wait that is interrupted cancels it.

        Raises:
            InvalidArgument: The calling thread runs an event loop.
            Closed: The loop has ended, or lives in another process.
        """

        async def work() -> R:
            return await function(*args, **kwargs)

        future: Future[R] = Future()
        try:
            self.submit(work, future)
            return self.wait(future)
        except BaseException:
            future.cancel()
            raise

    def submit(self, work: Callable[[], Coroutine[object, object, R]], future: Future[R]) -> None:
        """Start a coroutine on the loop, with the calling thread's context variables.

        The future is the caller's, who can thus cancel the work even where Ctrl-C comes before this returns.

        Args:
            work: Makes the coroutine.
            future: Gets its result; cancelling it cancels the coroutine.
        """
        _refuse_loop()
        if os.getpid() != self._process:
            raise Closed("SyncNoobly was opened before this process was forked; open it in the process that uses it")
        with self._lock:
            if self._loop is None:
                raise Closed("SyncNoobly is closed; use it inside its with block")
            self._loop.call_soon_threadsafe(_begin, work, future)

    def wait(self, future: Future[R]) -> R:
        """Wait for what was submitted.

        Raises:
            Closed: The loop ended first.
        """
        try:
            return future.result()
        except futures.CancelledError as error:
            if self._loop is not None:
                raise
            raise Closed("SyncNoobly was closed while the call was under way") from error
        except Ended as ended:
            raise ended.error from None
        except BaseException:
            future.cancel()
            raise

    def post(self, function: Callable[[], object]) -> None:
        """Call a function on the loop soon, unless the loop has ended."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)

    def hold(self, manager: AbstractAsyncContextManager[R]) -> Held[R]:
        """Return a context manager that enters and leaves an async one."""
        return Held(manager, self)


class Held(Generic[R]):
    """An async context manager as a plain one; it is entered and left in one task, which owns it meanwhile."""

    def __init__(self, manager: AbstractAsyncContextManager[R], thread: LoopThread) -> None:
        self._manager = manager
        self._thread = thread

    def __enter__(self) -> R:
        entered: Future[R] = Future()
        self._done: Future[bool] = Future()
        self._done.add_done_callback(lambda _: entered.cancel())
        try:
            self._thread.submit(functools.partial(self._hold, entered), self._done)
            return entered.result()
        except futures.CancelledError:
            self._thread.wait(self._done)
            raise
        except BaseException:
            self._done.cancel()
            raise

    async def _hold(self, entered: Future[R]) -> bool:
        self._left: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        async with self._manager as value:
            if not entered.cancelled():
                entered.set_result(value)
            error = await self._left
            if error is not None:
                raise error
        return error is not None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._thread.post(functools.partial(self._leave, error))
        try:
            return self._thread.wait(self._done)
        except BaseException as raised:
            if raised is error or (error is not None and isinstance(raised, futures.CancelledError)):
                return False
            raise

    def _leave(self, error: BaseException | None) -> None:
        if self._left.done():
            return
        if error is None or isinstance(error, Exception):
            self._left.set_result(error)
        else:
            # KeyboardInterrupt and its like would end the loop, were they raised in it.
            self._left.cancel()


class Ended(Exception):
    """Carries what cannot be raised on an event loop: StopIteration, and what would end the loop itself."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


def protected(function: Callable[..., object]) -> Callable[..., object]:
    """Return a plain function that raises ``Ended`` instead of what an event loop cannot carry."""
    if inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                raise
            raise Ended(error) from error

    return call


def threaded(function: object) -> object:
    """Return a plain function as an async one that runs in a worker thread; anything else as it is."""
    if not callable(function) or inspect.iscoroutinefunction(function):
        return function
    guarded = protected(function)

    async def call(*args: object, **kwargs: object) -> object:
        made = await asyncio.to_thread(guarded, *args, **kwargs)
        return await made if inspect.isawaitable(made) else made

    return call


def _begin(work: Callable[[], Coroutine[object, object, R]], future: Future[R]) -> None:
    if future.cancelled():
        return
    loop = asyncio.get_running_loop()
    task = loop.create_task(work())
    task.add_done_callback(functools.partial(_settle, future))

    def cancel(ended: Future[R]) -> None:
        if ended.cancelled() and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    future.add_done_callback(cancel)


def _settle(future: Future[R], task: asyncio.Task[R]) -> None:
    if task.cancelled():
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    error = task.exception()
    if error is None:
        future.set_result(task.result())
    else:
        future.set_exception(error)


def _refuse_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InvalidArgument("SyncNoobly would block the running event loop; use the async API, noobly.Noobly, here")
