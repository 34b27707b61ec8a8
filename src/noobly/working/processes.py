"""Processes beside the worker's, in which handlers run: used again and again, and killed where one is stopped.

Worker and child speak over a socket of their own, so that a handler has its standard streams for itself, and what it
starts has, too. A child leads a group of processes, which ends with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from subprocess import DEVNULL
from time import monotonic

import msgspec

from noobly.core.errors import NooblyError
from noobly.working.child import HEAD, Answer, Begun, Ending, Reported, Start, packed

_PROGRAM = "import sys; end = int(sys.argv[1]); sys.path[:] = sys.argv[2:]; del sys.argv[1:]; "
_PROGRAM += "from noobly.working.child import serve; serve(end)"

_STDERR = 2
_BEGINNING = 60.0
"""Seconds that a process has until the handler's function begins: to start, and to load its module."""

_PARTING = 1.0
"""Seconds that a process has to end once it has closed its end of the socket."""

_IDLE = 300.0
"""Seconds after which a process that nothing was to be done in ends."""

Message = Begun | Reported | Ending
_decode: Callable[[bytes], Message] = msgspec.json.Decoder(Message).decode

Reporting = Callable[[Reported], Awaitable[object]]


class Failed(NooblyError):
    """A handler in a process has failed, or the process has.

    Args:
        message: Its error.
        retry_after: Seconds to wait before trying again.
        final: Trying again is useless.
        trace: Where it failed, as text.
    """

    def __init__(
        self, message: str = "", *, retry_after: float | None = None, final: bool = False, trace: str = ""
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.final, self.trace = final, trace


class Processes:
    """Processes that attempts run in, one in each at a time.

    Args:
        most: How many there are at most.
    """

    def __init__(self, most: int) -> None:
        self._places = asyncio.Semaphore(most)
        self._idle: list[Process] = []
        self._all: set[Process] = set()

    async def run(self, start: Start, begun: Callable[[], None], report: Reporting) -> Ending:
        """Run one attempt; where this is cancelled, its process is killed, and all that it has begun.

        Args:
            start: What is to be run.
            begun: Called when the function begins.
            report: Stores what the handler reports.

        Raises:
            Failed: The process has ended before the function has.
        """
        async with self._places:
            process = self._unused() or await self._new()
            try:
                ending = await process.run(start, begun, report)
            except BaseException:
                process.end()
                raise
            process.since = monotonic()
            self._idle.append(process)
            return ending

    async def close(self) -> None:
        """End all processes."""
        ending = self._all.union(self._idle)
        for process in ending:
            process.end()
        await asyncio.gather(*(process.over for process in ending))

    def _unused(self) -> Process | None:
        """Return the process used last; those unused for long end."""
        while self._idle and self._idle[0].since < monotonic() - _IDLE:
            self._idle.pop(0).end()
        while self._idle:
            process = self._idle.pop()
            if process.lives:
                return process
            process.end()
        return None

    async def _new(self) -> Process:
        process = await Process.begin()
        self._all.add(process)
        process.over.add_done_callback(lambda _: self._all.discard(process))
        return process


class Process:
    """A child process, and the socket to it.

    Attributes:
        over: Done when it has ended.
        since: When it was used last, in seconds of the monotonic clock.
    """

    def __init__(self, process: asyncio.subprocess.Process, end: socket.socket, streams: Streams) -> None:
        self._process, self._end = process, end
        self._reader, self._writer = streams
        self.over = asyncio.create_task(self._watch(), name=f"process {process.pid}")
        self.since = 0.0

    @classmethod
    async def begin(cls) -> Process:
        """Begin a process."""
        ours, theirs = socket.socketpair()
        with theirs:
            streams = await _streams(ours)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-u", "-P", "-c", _PROGRAM, str(theirs.fileno()), *map(str, sys.path)),
                    stdin=DEVNULL,
                    stdout=_STDERR,  # What a worker prints may be what another program reads.
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except BaseException:
                streams[1].close()
                raise
        return cls(process, ours, streams)

    @property
    def lives(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    def end(self) -> None:
        """Kill it, with all that it has begun."""
        self._kill()
        self._writer.close()

    async def run(self, start: Start, begun: Callable[[], None], report: Reporting) -> Ending:
        """Run one attempt; see ``Processes.run``."""
        self._writer.write(packed(start))
        message = await self._first()
        while not isinstance(message, Ending):
            if isinstance(message, Begun):
                begun()
            else:
                self._writer.write(packed(await _answer(message, report)))
            message = await self._next()
        return message

    async def _first(self) -> Message:
        try:
            async with asyncio.timeout(_BEGINNING):
                return await self._next()
        except TimeoutError as error:
            raise Failed(f"its module was not loaded in a process within {_BEGINNING:g} s") from error

    async def _next(self) -> Message:
        try:
            head = await self._reader.readexactly(HEAD)
            return _decode(await self._reader.readexactly(int.from_bytes(head)))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await asyncio.wait([self.over], timeout=_PARTING)
            raise Failed(_epitaph(self._process.returncode)) from error

    async def _watch(self) -> None:
        await self._process.wait()
        self._kill()  # What it has begun would go on without it.
        with suppress(OSError):
            # A process that has outlived it may hold the other end, so that nothing else would end the reading.
            self._end.shutdown(socket.SHUT_RD)

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _streams(end: socket.socket) -> Streams:
    try:
        return await asyncio.open_unix_connection(sock=end)
    except BaseException:
        end.close()
        raise


async def _answer(reported: Reported, report: Reporting) -> Answer:
    try:
        await report(reported)
    except NooblyError as error:
        return Answer(code=error.code, message=error.message)
    return Answer()


def _epitaph(code: int | None) -> str:
    """Return how a process ended, of which no more is known."""
    if code is None:
        return "its process has closed the socket to its worker"
    if code >= 0:
        return f"its process has ended with exit code {code}"
    if -code == signal.SIGKILL:
        return "its process was ended by SIGKILL, which is often the system's answer to a lack of memory"
    known = {int(one): one.name for one in signal.Signals}
    return f"its process was ended by {known.get(-code, f'signal {-code}')}"
