"""Where scenarios take place: a provider with its server, what it can bear, and what was found there."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import TypeAlias

import msgspec

from noobly.core.clock import fresh_id
from noobly.core.errors import NooblyError
from noobly.testing.servers import OwnedServer, ServerMissing, private

_MORE = 50

TOGETHER = 10
"""Messages or jobs that a consumer or a worker has under way at once."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How big scenarios are.

    Args:
        messages: Messages or jobs of those about losing and ordering.
        idle: Seconds for which nothing happens before something shall happen at once.
        pause: Seconds for which a server is frozen.
        prompt: Seconds within which what is idle shall begin.
        early: Seconds that jobs under a rate may take less than it says, as the first one may begin late.
        late: Seconds that they may take more.
        patience: Seconds after which a scenario is given up.
    """

    messages: int
    idle: float
    pause: float
    prompt: float
    early: float
    late: float
    patience: float


FULL = Sizes(messages=10_000, idle=20.0, pause=10.0, prompt=0.1, early=0.05, late=0.6, patience=180.0)
SHORT = Sizes(messages=1_000, idle=2.0, pause=3.0, prompt=1.0, early=1.0, late=10.0, patience=60.0)
"""Times are for a machine that has other things to do; they are still shorter than any poll of a store."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One provider.

    Args:
        service: ``queueing`` or ``working``.
        name: What it is called.
        url: Its URL.
        options: Options of opening it.
        lease: The shortest lease, in seconds, that it measures well.
        most: The most messages it shall get.
        shared: Processes see the same messages.
        server: Its server, where it may be disturbed.
    """

    service: str
    name: str
    url: str
    options: Mapping[str, object] = {}
    lease: float = 1.0
    most: int = 1_000_000
    shared: bool = True
    server: OwnedServer | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one scenario.

    Args:
        good: All is as it should be.
        figures: What was counted and measured.
        skipped: Why it does not apply there; empty where it does.
    """

    good: bool = True
    figures: str = ""
    skipped: str = ""


class Scenario(msgspec.Struct, frozen=True):
    """A scenario under its name.

    Args:
        name: What shall hold.
        play: Finds out whether it does.
        alone: Nothing else shall happen meanwhile: it is much work, holds the event loop, or disturbs the server.
    """

    name: str
    play: Callable[[Place, Sizes], Awaitable[Finding]]
    alone: bool = False

    async def __call__(self, place: Place, sizes: Sizes) -> Finding:
        """Play it, within bounded time."""
        try:
            async with asyncio.timeout(sizes.patience):
                return await self.play(place, sizes)
        except TimeoutError:
            return Finding(good=False, figures=f"not over after {sizes.patience:g} s")


Lines: TypeAlias = list[str]


def fresh_name() -> str:
    """Return a queue name that nobody has used."""
    return f"soak-{fresh_id()[:12]}"


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is true; the scenario's patience is the bound."""
    while not condition():  # noqa: ASYNC110 - it is anybody's state
        await asyncio.sleep(0.005)


async def until_so(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until an awaitable gives something true."""
    while not await condition():  # noqa: ASYNC110 - it is the store's state
        await asyncio.sleep(0.02)


@asynccontextmanager
async def consumer(place: Place, queue: str, kind: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Lines]]:
    """Run a process that works on a queue and tells what it handles; it is killed at the end.

    Args:
        place: The provider.
        queue: The queue.
        kind: ``queue`` or ``jobs``.
    """
    lines: Lines = []
    arguments = [kind, place.url, json.dumps(dict(place.options)), queue, str(place.lease), str(TOGETHER)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "noobly.testing.soak.program", *arguments), stdout=asyncio.subprocess.PIPE
    )
    reading = asyncio.create_task(_read(process, lines))
    try:
        yield process, lines
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def _read(process: asyncio.subprocess.Process, lines: Lines) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        lines.append(line.decode().strip())


async def killed_after(place: Place, queue: str, kind: str, enough: int) -> Lines:
    """Let a process handle so many, kill it with SIGKILL, and return all that it handled."""
    async with consumer(place, queue, kind) as (process, lines):
        await until(lambda: len(lines) >= enough or process.returncode is not None)
        if process.returncode is not None:
            raise RuntimeError(f"the consumer of {queue} on {place.name} ended by itself")
    return lines


class Traffic:
    """A producer that goes on whatever happens; those who handle what it sends count it in ``seen``.

    Args:
        send: Sends one number.
    """

    def __init__(self, send: Callable[[int], Awaitable[object]]) -> None:
        self._send = send
        self.sent: set[int] = set()
        self.seen: Counter[int] = Counter()
        self.refused = 0
        self._over = asyncio.Event()

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Send beside the body."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._produce())
            try:
                yield
            finally:
                self._over.set()

    async def _produce(self) -> None:
        for number in count(1):
            if self._over.is_set():
                return
            try:
                await self._send(number)
            except NooblyError:
                self.refused += 1
                await asyncio.sleep(0.02)
            else:
                self.sent.add(number)
                await asyncio.sleep(0.001)

    async def through(self, server: OwnedServer, pause: float) -> str:
        """Restart a server, freeze it, wait until all is handled that was sent, and return the figures."""
        await self._grown()
        await asyncio.to_thread(server.restart)
        restarted = await self._grown()
        server.pause()
        try:
            await asyncio.sleep(pause)
        finally:
            server.resume()
        resumed = await self._grown()
        self._over.set()
        await until(lambda: self.sent <= self.seen.keys())
        twice = sum(self.seen.values()) - len(self.seen)
        return (
            f"{len(self.sent)} sent, 0 lost, {self.refused} refused, {twice} handled twice; {_MORE} more after "
            f"{restarted:.1f} s (restart) and {resumed:.1f} s (pause of {pause:g} s)"
        )

    async def _grown(self) -> float:
        """Return the seconds until some more have been handled."""
        began, aim = time.monotonic(), len(self.seen) + _MORE
        await until(lambda: len(self.seen) >= aim)
        return time.monotonic() - began


@contextmanager
def places(service: str, names: Sequence[str], folder: Path) -> Iterator[list[Place]]:
    """Start what providers need, all private, for the body of a ``with``; those without a server are left out.

    Args:
        service: ``queueing`` or ``working``.
        names: ``memory``, ``sqlite``, ``redis``, ``rabbitmq``, ``sqs``, ``bullmq``, or URLs.
        folder: Where files go.
    """
    with ExitStack() as stack:
        found = []
        for name in names:
            try:
                found.append(_place(service, name, folder, stack))
            except ServerMissing as missing:
                sys.stderr.write(f"without {name}: {missing}\n")
        yield found


def _place(service: str, name: str, folder: Path, stack: ExitStack) -> Place:
    if "://" in name:
        return Place(service=service, name=name.partition(":")[0], url=name)
    if name == "memory":
        return Place(service=service, name=name, url="memory://", shared=False)
    if name == "sqlite":
        return Place(service=service, name=name, url=f"sqlite://{folder}/{service}.db")
    if name == "sqs":
        return _sqs(stack)
    kind = {"bullmq": "redis"}.get(name, name)
    arguments = ("--appendonly", "yes") if kind == "redis" else ()
    server = stack.enter_context(private(kind, *arguments))
    return Place(service=service, name=name, url=server.url.replace(kind, name, 1), server=server)


def _sqs(stack: ExitStack) -> Place:
    server = stack.enter_context(private("moto"))
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "key")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "secret")
    options = {"endpoint": server.url}  # moto's time grows with the square of the messages
    return Place(service="queueing", name="sqs", url="sqs://eu-west-1", options=options, lease=2.0, most=200)
