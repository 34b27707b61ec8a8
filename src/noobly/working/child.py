"""What runs in a child process: attempts of tasks, found by module and name, as the worker at the other end says."""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import inspect
import os
import runpy
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from queue import SimpleQueue
from threading import Lock, Thread
from types import ModuleType
from typing import Protocol, cast

import msgspec

from noobly.core.codec import Codec, converted, encode
from noobly.core.errors import InvalidArgument, by_code
from noobly.core.failure import error_text, trace_text, wanted_pause
from noobly.core.following import followed
from noobly.working.context import JobInfo, ProcessContext
from noobly.working.tasks import Rules, Task

HEAD = 4
"""Bytes before each message, which say how many follow."""

_NOTHING = msgspec.Raw(b"null")
_MAIN = "__mp_main__"
"""The name under which a program runs once more where its tasks are to be found, as ``multiprocessing`` has it."""


class Start(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An attempt to be run.

    Args:
        module: The module that has the task.
        name: Its qualified name there.
        file: The program's own file, where the module is ``__main__``.
        data: The argument.
        info: The job.
        correlation_id: The correlation id of the attempt.
        traceparent: The trace of the attempt, its span where it has one.
    """

    module: str
    name: str
    file: str = ""
    data: msgspec.Raw = _NOTHING
    info: JobInfo
    correlation_id: str = ""
    traceparent: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What became of a report: nothing is said where it is stored, else the error's code and message."""

    code: str = ""
    message: str = ""


class Begun(msgspec.Struct, frozen=True, tag=True):
    """The function begins now."""


class Reported(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What the handler reports; an ``Answer`` follows."""

    progress: msgspec.Raw = _NOTHING
    lines: list[str] = []


class Ending(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How the attempt ended.

    Args:
        result: What the function returned.
        error: What it raised; empty for nothing.
        trace: Where it did.
        final: Trying again is useless.
        retry_after: Seconds to wait before that, where the error says so.
    """

    result: msgspec.Raw = _NOTHING
    error: str = ""
    trace: str = ""
    final: bool = False
    retry_after: float = 0.0


class Line(Protocol):
    """How an attempt speaks to its worker."""

    def begun(self) -> None:
        """Say that the function begins."""
        ...

    def report(self, reported: Reported) -> None:
        """Have something stored, and wait for that."""
        ...


def serve(descriptor: int) -> None:
    """Run one attempt after another, until the worker at the other end of a socket is gone.

    Args:
        descriptor: The socket.
    """
    faulthandler.enable()
    channel, own = Channel(socket.socket(fileno=descriptor)), os.getpid()
    Thread(target=channel.listen, name="noobly-channel", daemon=True).start()
    while True:
        ending = attempt(channel.next(), channel)
        if os.getpid() != own:  # The handler has forked, and this is the fork, which has come back as well.
            return
        channel.send(ending)


class Channel:
    """The child's end of the socket to its worker."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._file = end, end.makefile("rb")
        self._starts: SimpleQueue[Start] = SimpleQueue()
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._asking = Lock()

    def listen(self) -> None:
        """Take what comes from the worker; without one, end with all that was begun here."""
        try:
            while head := self._file.read(HEAD):
                message = _decode(self._file.read(int.from_bytes(head)))
                if isinstance(message, Start):
                    self._starts.put(message)
                else:
                    self._answers.put(message)
        finally:
            os.killpg(0, signal.SIGKILL)

    def next(self) -> Start:
        """Wait for an attempt."""
        return self._starts.get()

    def send(self, message: Begun | Reported | Ending) -> None:
        """Send a message."""
        self._end.sendall(packed(message))

    def begun(self) -> None:
        """See ``Line``."""
        self.send(Begun())

    def report(self, reported: Reported) -> None:
        """See ``Line``; threads of a handler wait for each other here."""
        with self._asking:
            self.send(reported)
            answer = self._answers.get()
        if answer.code:
            raise by_code(answer.code)(answer.message)


_decode = msgspec.json.Decoder(Start | Answer).decode


def packed(message: msgspec.Struct) -> bytes:
    """Return a message with its length before it."""
    data = msgspec.json.encode(message)
    return len(data).to_bytes(HEAD) + data


def attempt(start: Start, line: Line) -> Ending:
    """Run a task's function on its argument; what it raises is part of the answer.

    Args:
        start: What is to be run.
        line: Where it reports.

    Raises:
        BaseException: In a fork of the handler's, which ends as forks do.
    """
    task: Task[..., object] | None = None
    own = os.getpid()
    try:
        task = _find(start)
        result = _run(task, start, line)
        data = encode(result, Codec.JSON, f"the result of job {start.info.id}")
    except BaseException as error:  # a handler's error is an answer, and may be of a class nobody else knows
        if os.getpid() != own:
            raise
        final = task is not None and isinstance(error, (InvalidArgument, *task.rules.no_retry_on))
        text, trace = error_text(error), trace_text(error)
        return Ending(error=text, trace=trace, final=final, retry_after=wanted_pause(error))
    return Ending(result=msgspec.Raw(data))


def _find(start: Start) -> Task[..., object]:
    found: object = _program(start.file) if start.module == "__main__" else importlib.import_module(start.module)
    for part in start.name.split("."):
        found = getattr(found, part)
    if isinstance(found, Task):
        return found
    return Task(start.name, cast("Callable[..., object]", found), Rules())  # added by `Tasks.add`, not by the decorator


def _program(file: str) -> ModuleType:
    """Return the worker's program, run once more under a name that shows it that it is not the program here."""
    if _MAIN not in sys.modules:
        found = ModuleType(_MAIN)
        found.__dict__.update(runpy.run_path(file, run_name=_MAIN))
        sys.modules["__main__"] = sys.modules[_MAIN] = found
    return sys.modules[_MAIN]


def _run(task: Task[..., object], start: Start, line: Line) -> object:
    argument = converted(msgspec.json.decode(start.data), task.argument, f"job {start.info.id}")
    given = (argument, ProcessContext(start.info, _report(line)))[: task.wants_data + task.wants_job]
    line.begun()
    with followed(start.correlation_id, start.traceparent, None) or nullcontext():
        if inspect.iscoroutinefunction(task.function):
            return asyncio.run(_awaited(cast("Awaitable[object]", task.function(*given))))
        return task.function(*given)


def _report(line: Line) -> Callable[[object, Sequence[str]], None]:
    def report(progress: object, lines: Sequence[str]) -> None:
        line.report(Reported(progress=msgspec.Raw(encode(progress, Codec.JSON, "the progress")), lines=list(lines)))

    return report


async def _awaited(result: Awaitable[object]) -> object:
    return await result
