"""Opening one instance of a service: from a URL and options to a driver bound to its layers, on an exit stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import ClassVar, Generic, Protocol, TypeVar, cast

import msgspec

from noobly.core.binding import Layer, bind, seal
from noobly.core.capability import Capability, names, require
from noobly.core.config import Config, Url, convert, load, parse_url, unknown
from noobly.core.errors import Unsupported
from noobly.core.lifecycle import Portable, Startable
from noobly.core.operation import Driver, capabilities
from noobly.core.registry import Registry
from noobly.core.remote import Caller, Remote, remote
from noobly.core.scope import Environment, Policy, Scope
from noobly.layers import Breaker, default_stack

AnyConfig = Config
D = TypeVar("D", bound=Driver)
P = TypeVar("P", bound=Portable)
O = TypeVar("O", bound=Config)  # noqa: E741 - the options of a service


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to open.

    Args:
        url: The provider's URL; its query may hold any option.
        options: Options by name, which win over the URL: the provider's, the service's and the policy's.
        instance: The instance's name.
        require: Capabilities without which opening fails.
        inner: Further layers next to the provider, for tests.
    """

    url: str
    options: Mapping[str, object] = {}
    instance: str = "default"
    require: Sequence[Capability] = ()
    inner: Sequence[Layer] = ()


class Opened(msgspec.Struct, Generic[D, O], frozen=True, kw_only=True):
    """An opened provider.

    Args:
        driver: The driver, bound to its layers.
        scope: What its layers share.
        options: The service's options.
        circuit: Its circuit breaker.
        capabilities: The names of what it can do beyond the core.
    """

    driver: D
    scope: Scope
    options: O
    circuit: Breaker
    capabilities: frozenset[str]


class Split(msgspec.Struct, Generic[O], frozen=True, kw_only=True):
    """The settings of one instance, by whom they concern."""

    url: Url
    provider: dict[str, object]
    options: O
    policy: Policy


class ProviderClass(Protocol):
    """What a provider class offers besides its operations; ``configure`` only where ``load`` does not do."""

    Config: ClassVar[type[AnyConfig]]

    def __call__(self, config: AnyConfig, environment: Environment) -> Driver:
        """Make the provider; no I/O happens."""
        ...


def split(request: Request, options: type[O]) -> Split[O]:
    """Return the settings of a request, sorted by whom they concern.

    Raises:
        ConfigError: The URL is wrong, or a value of the service's options or the policy is.
    """
    url = parse_url(request.url)
    given: dict[str, object] = {**url.query, **request.options}
    mine = {name: given.pop(name) for name in options.__struct_fields__ if name in given}
    policy = {name: given.pop(name) for name in Policy.__struct_fields__ if name in given}
    return Split(
        url=msgspec.structs.replace(url, query={}),
        provider=given,
        options=convert(options, mine, "the service"),
        policy=convert(Policy, policy, "the policy"),
    )


async def open_driver(
    stack: AsyncExitStack,
    registry: Registry,
    protocol: type[D],
    settings: Split[O],
    request: Request,
    environment: Environment,
) -> Opened[D, O]:
    """Open a provider and bind it.

    Args:
        stack: Where its end is registered; afterwards every call raises Closed.
        registry: The service's providers.
        protocol: The service's driver protocol.
        settings: The request's settings, from ``split``.
        request: What to open.
        environment: What the application hands to all it opens.

    Raises:
        ConfigError: A setting is unknown or wrong.
        MissingDependency: The provider's package is not installed.
        Unsupported: The provider lacks a required capability.
        Unavailable: The far side does not answer.
    """
    driver = make(registry, settings, options_fields(settings), environment, request.instance)
    able = await _started(stack, driver, protocol, request)
    scope = _scope(registry, driver.scheme, settings, request, environment)
    circuit = Breaker(scope)
    bound = bind(protocol, cast(D, driver), default_stack(scope, circuit, inner=request.inner))
    stack.callback(seal, bound, protocol, _closed(scope))
    return Opened(driver=bound, scope=scope, options=settings.options, circuit=circuit, capabilities=able)


async def _started(stack: AsyncExitStack, driver: Driver, protocol: type[Driver], request: Request) -> frozenset[str]:
    """Start a provider and return the names of what it can do, which its server may have a say in."""
    require(request.require, capabilities(protocol, driver), driver.scheme)
    start = getattr(driver, "start", None)
    if start is not None:
        await start(stack)
    able = capabilities(protocol, driver) - lacks(driver)
    require(request.require, able, driver.scheme)
    return frozenset(names(able))


def _scope(registry: Registry, provider: str, settings: Split[O], request: Request, environment: Environment) -> Scope:
    return Scope(
        service=registry.service,
        instance=request.instance,
        provider=provider,
        policy=settings.policy,
        environment=environment,
    )


def _closed(scope: Scope) -> str:
    return f"the {scope.service} instance {scope.instance!r} is closed; open it before use"


def is_remote(registry: Registry, settings: Split[O]) -> bool:
    """Return whether the URL names a server of the suite rather than a store."""
    return hasattr(registry.load(settings.url.scheme), "call")


async def open_remote(
    stack: AsyncExitStack,
    registry: Registry,
    portable: type[P],
    settings: Split[O],
    request: Request,
    environment: Environment,
) -> tuple[P, Breaker]:
    """Open an instance that lives on a server, and return it with its circuit; see ``open_driver``."""
    caller = cast(Caller, make(registry, settings, options_fields(settings), environment, request.instance))
    await cast(Startable, caller).start(stack)
    able = await caller.capabilities(registry.service) if request.require else frozenset()
    missing = sorted(set(names(request.require)) - able)
    if missing:
        raise Unsupported(f"the {registry.service} instance on the server lacks {', '.join(missing)}")
    scope = _scope(registry, caller.scheme, settings, request, environment)
    circuit = Breaker(scope)
    calls = Remote(portable, caller, default_stack(scope, circuit, inner=request.inner))
    stack.callback(calls.seal, _closed(scope))
    return remote(portable)(calls, scope, settings.options), circuit


def options_fields(settings: Split[O]) -> tuple[str, ...]:
    """Return the names of the service's options and of the policy, for suggestions."""
    return (*settings.options.__struct_fields__, *Policy.__struct_fields__)


def make(
    registry: Registry,
    settings: Split[O],
    others: Iterable[str],
    environment: Environment,
    instance: str,
) -> Driver:
    """Return a provider, not started.

    Raises:
        ConfigError: A setting is unknown or wrong.
    """
    loaded = registry.load(settings.url.scheme)
    provider, configure = cast(ProviderClass, loaded), getattr(loaded, "configure", None)
    values = dict(settings.provider)
    if configure is not None or "namespace" in provider.Config.__struct_fields__:
        values.setdefault("namespace", "noobly" if instance == "default" else f"noobly.{instance}")
    if configure is not None:
        return provider(cast(Config, configure(settings.url, values)), environment)
    known = provider.Config.__struct_fields__
    for name in set(known).intersection(settings.options.__struct_fields__):  # What both have, the service decides.
        values[name] = getattr(settings.options, name)
    for name in values:
        if name not in known:
            unknown(name, (*known, *others), f"the {settings.url.scheme} provider")
    return provider(load(provider.Config, settings.url, values), environment)


def lacks(driver: Driver) -> frozenset[Capability]:
    """Return what a started provider found its server to lack."""
    found: frozenset[Capability] = getattr(driver, "lacks", frozenset())
    return found
