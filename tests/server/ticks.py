"""A small service with a stream, for the tests of streams: nothing in it belongs to any one service of the suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from noobly.app import Noobly
from noobly.clients.http import HttpCaller, HttpConfig
from noobly.core.config import Config
from noobly.core.errors import Conflict, InvalidArgument
from noobly.core.lifecycle import Portable
from noobly.core.public import public_stream
from noobly.core.remote import Remote, remote
from noobly.core.scope import Environment, Policy, Scope
from noobly.core.streams import Feed, Skipped
from noobly.layers import Breaker, default_stack
from noobly.settings import Server, Settings


class Tick(msgspec.Struct, frozen=True):
    number: int
    note: str = ""


class Ticks(Portable):
    """Ticks that somebody makes, and that others follow."""

    service = "ticking"

    def __init__(self) -> None:
        self._begin(scope_of("ticking"), Config())
        self.siblings = {"default": self}
        self.feed = Feed[Tick]()
        self.closed = 0

    @public_stream("GET", "ticks", permission="read")
    async def follow(self, least: int = 0, *, note: str | None = None) -> AsyncGenerator[Tick | Skipped]:
        """Yield ticks from now on.

        Args:
            least: The first number to be told of.
            note: Only ticks with this note.
        """
        if least < 0:
            raise InvalidArgument("least must not be negative")
        try:
            async for tick in self.feed.read(lambda tick: tick.number >= least and note in (None, tick.note)):
                yield tick
        finally:
            self.closed += 1

    @public_stream("POST", "count", permission="read")
    async def count(self, upto: int) -> AsyncIterator[Tick]:
        """Yield so many ticks at once; 13 is one too many."""
        for number in range(upto):
            if number == 13:
                raise Conflict("thirteen is bad luck")
            yield Tick(number)

    @public_stream("GET", "defect", permission="read")
    async def defect(self) -> AsyncIterator[Tick]:
        """Fail after a while."""
        yield Tick(1)
        await asyncio.sleep(0)
        raise KeyError("secret")


def scope_of(service: str) -> Scope:
    return Scope(service=service, instance="default", provider="memory", policy=Policy(), environment=Environment())


@asynccontextmanager
async def opened(ticks: Ticks, **server: float) -> AsyncIterator[Noobly]:
    async with Noobly.open(settings=Settings(server=Server(**server))) as noobly:
        noobly.services = {**noobly.services, "ticking": ticks}
        yield noobly


@asynccontextmanager
async def client_of(base: str) -> AsyncIterator[Ticks]:
    host, _, port = base.removeprefix("http://").partition(":")
    scope = scope_of("ticking")
    caller = HttpCaller(HttpConfig(host=host, port=int(port)), scope.environment)
    async with AsyncExitStack() as stack:
        await caller.start(stack)
        calls = Remote(Ticks, caller, default_stack(scope, Breaker(scope)))
        yield remote(Ticks)(calls, scope, Config())
