"""A harness for the way over HTTP: a server in this process, and clients that reach it without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2

from noobly.app import Noobly
from noobly.caching import Cache, CacheOptions
from noobly.clients.http import HttpCaller, HttpConfig
from noobly.core.capability import Capability
from noobly.core.registry import Provider, Registry
from noobly.core.scope import Environment
from noobly.layers.opening import Request, open_remote, split
from noobly.server.app import Application
from noobly.server.auth import DevGuard
from noobly.settings import Instance, Server, Settings
from noobly.testing.harness import EmbeddedHarness

_BODY = 64 * 1024 * 1024


class RemoteHarness(EmbeddedHarness):
    """An embedded provider seen through a server: each opening starts one with the same options.

    Args:
        url: What the server opens.
        capabilities: What its provider claims.
        shared: Whether two servers opened from the URL see the same entries.
        options: Options for every opening; those of a test win.
    """

    direct = False

    def __init__(
        self,
        url: str,
        *,
        capabilities: frozenset[Capability] = frozenset(),
        shared: bool = False,
        options: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(url, capabilities=capabilities, shared=shared, options=options)

    @asynccontextmanager
    async def open(self, *, require: Sequence[Capability] = (), **options: object) -> AsyncIterator[Cache]:
        """See the protocol."""
        kept = Instance(url=self.url, options=self.options | options)
        settings = Settings(server=Server(max_body_bytes=_BODY), services={"caching": {"default": kept}})
        async with AsyncExitStack() as stack:
            noobly = await stack.enter_async_context(
                Noobly.open(settings=settings, environment=Environment(clock=self.clock))
            )
            registry = _Near(Application(noobly, DevGuard()))
            request = Request(url="remote://localhost", options=options, require=require)
            there, _ = await open_remote(
                stack, registry, Cache, split(request, CacheOptions), request, Environment(clock=self.clock)
            )
            stack.push_async_callback(there.close)
            yield there


class _Near(Registry):
    """Knows one server, by its application."""

    def __init__(self, application: Application) -> None:
        super().__init__("caching", {"remote": Provider("")})
        self._application = application

    def load(self, scheme: str) -> type[object]:
        """Return a caller of the application."""
        application = self._application

        class NearCaller(HttpCaller):
            Config = HttpConfig

            async def start(self, stack: AsyncExitStack) -> None:
                transport = httpx2.ASGITransport(app=application)
                client = httpx2.AsyncClient(transport=transport, base_url=self._base)
                self._client = await stack.enter_async_context(client)

        return NearCaller
