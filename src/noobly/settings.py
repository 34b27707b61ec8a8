"""Settings: ``noobly.toml`` and the environment become one typed, frozen value that knows where each part came from.

The file has one table per service with ``url`` and options, ``[caching.instances.sessions]`` for each further instance,
and ``[server]``. A variable wins over the file: ``NOOBLY_CACHING__URL``, ``NOOBLY_CACHING__INSTANCES__SESSIONS__URL``,
``NOOBLY_SERVER__PORT``; its text is read as the setting's type. ``NOOBLY_CONFIG`` names the file, which is
``./noobly.toml`` otherwise and need not exist.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import msgspec

from noobly.core.config import Config, convert, unknown
from noobly.core.errors import ConfigError, NooblyError
from noobly.core.scope import Environment
from noobly.layers.opening import Request, make, options_fields, split
from noobly.services import SERVICES, Service

__all__ = ["Instance", "Problem", "Server", "Settings", "check"]

DEFAULT = "default"
SERVER = "server"
INSTANCES = "instances"

_FILE = "noobly.toml"
_FILE_VARIABLE = "NOOBLY_CONFIG"
_PREFIX = "NOOBLY_"
_OTHER_USES = re.compile(r"NOOBLY_(API_KEYS|CONFIG|REQUIRE_SERVERS|TEST_.*)")
_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST=.*|SERVICE_PORT(_.*)?=.*|PORT=\w+://.*|PORT_\d+_(TCP|UDP|SCTP).*)", re.DOTALL
)
"""What Kubernetes sets for a Service named ``noobly-…`` (https://kubernetes.io/docs/concepts/services-networking/service)."""

_INSTANCE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

Whole = Annotated[int, msgspec.Meta(gt=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Server(Config, frozen=True, kw_only=True):
    """How the stand-alone server runs: the table ``[server]``.

    Args:
        host: The address it listens on.
        port: The port; 0 for any that is free.
        data_dir: The folder of what the server itself keeps, such as API keys.
        connections: Connections that one process keeps open at once, idle ones included; more wait until one ends. Half
            as many calls may wait for something to come, such as a message.
        idle_timeout: Seconds after which a connection is closed on which no request has come.
        max_body_bytes: The largest request body.
        idempotency_ttl: Seconds for which the answer to an ``Idempotency-Key`` is kept.
        shutdown_grace: Seconds that requests under way may take to finish when the server is told to end.
        workers: Processes that serve the port together.
        per_worker: Instances in memory that each worker may have for itself, as their tables are named, with commas
            between them; without, several workers refuse them.
        otlp_url: Where metrics are pushed as OTLP, such as ``http://localhost:4318/v1/metrics``; empty for nowhere.
        otlp_interval: Seconds from one push to the next.
        stream_heartbeat: Seconds of silence after which the reader of a stream gets a comment, so that both sides know
            that the other is there; its key is looked at again that often.
        stream_buffer: Items that wait for a slow reader of a stream; it is told how many it missed.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 11000
    data_dir: str = ".noobly"
    connections: Annotated[int, msgspec.Meta(gt=0, le=1_000_000)] = 10_000
    idle_timeout: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] = 75.0
    max_body_bytes: Whole = 64 * 1024 * 1024
    idempotency_ttl: Positive = 86_400.0
    shutdown_grace: Positive = 30.0
    workers: Annotated[int, msgspec.Meta(gt=0, le=256)] = 1
    per_worker: str = ""
    otlp_url: str = ""
    otlp_interval: Positive = 60.0
    stream_heartbeat: Annotated[float, msgspec.Meta(gt=0, le=30)] = 15.0
    stream_buffer: Whole = 1000


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """What is configured for one instance of a service.

    Args:
        url: The provider's URL.
        options: Options by name: the service's, the policy's and the provider's.
    """

    url: str
    options: Mapping[str, object] = {}

    def __repr__(self) -> str:
        # A value may hold a secret by mistake, so only names are shown.
        return f"Instance(scheme={self.url.partition(':')[0]!r}, options={sorted(self.options)})"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with one instance.

    Args:
        subject: The instance's table in the file.
        error: What opening it would raise.
    """

    subject: str
    error: NooblyError


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of an application.

    Args:
        server: How the stand-alone server runs.
        services: Instances by service and name; a service without a ``default`` one gets its embedded one.
        origins: Where values came from, by dotted name such as ``caching.ttl``; what is not here is a default.
    """

    server: Server = Server()
    services: Mapping[str, Mapping[str, Instance]] = {}
    origins: Mapping[str, str] = {}

    @classmethod
    def read(cls, config: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """Read the file and the environment.

        Args:
            config: The file; by default the one ``NOOBLY_CONFIG`` names, or ``noobly.toml`` where that exists.
            environ: The environment variables; the process's own by default.

        Raises:
            ConfigError: The file cannot be read, or a table, key or value of the server is unknown or wrong. Options
                of instances are checked by ``check`` and when they are opened.
        """
        environ = os.environ if environ is None else environ
        path = _file(config, environ)
        given = {value.name: value for value in _from_file(path)} if path else {}
        known = {name for name in given if INSTANCES in name}
        given |= {value.name: value for value in _from_environment(environ, known)}
        return cls(
            server=_server(given),
            services={service: _instances(service, given) for service in SERVICES},
            origins={".".join(name): value.origin for name, value in given.items()},
        )

    def instances(self, service: str) -> dict[str, Instance]:
        """Return a service's instances by name, the default one first."""
        configured = self.services.get(service, {})
        default = configured.get(DEFAULT) or Instance(url=SERVICES[service].default)
        return {DEFAULT: default, **{name: one for name, one in configured.items() if name != DEFAULT}}

    def with_server(self, **changes: str | int | None) -> Self:
        """Return the settings with some of the server's replaced, as the command line does; None leaves one alone.

        Raises:
            ConfigError: A setting is unknown or wrong.
        """
        made = {name: value for name, value in changes.items() if value is not None}
        server = convert(Server, {**msgspec.structs.asdict(self.server), **made}, "[server]")
        origins = {**self.origins, **{f"{SERVER}.{name}": "command line" for name in made}}
        return msgspec.structs.replace(self, server=server, origins=origins)


Name = tuple[str, ...]
"""``("server", "port")``, ``("caching", "url")`` or ``("caching", "instances", "sessions", "url")``."""


class _Given(NamedTuple):
    name: Name
    value: object
    origin: str


def _file(config: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    named = config or environ.get(_FILE_VARIABLE)
    if named:
        return Path(named)
    return Path(_FILE) if Path(_FILE).is_file() else None


def _from_file(path: Path) -> Iterator[_Given]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not TOML: {error}") from error
    for table, settings in content.items():
        if table != SERVER and table not in SERVICES:
            unknown(table, (SERVER, *SERVICES), f"the settings file {path}")
        yield from _from_table((table,), settings, path)


def _from_table(where: Name, table: object, path: Path) -> Iterator[_Given]:
    heading = f"{path} [{'.'.join(where)}]"
    if not isinstance(table, dict):
        raise ConfigError(f"{heading} must be a table of settings, not {type(table).__name__}")
    holds_instances = where[0] != SERVER and len(where) == 1
    for name, value in table.items():
        if not isinstance(value, dict):
            yield _Given((*where, name), value, heading)
            continue
        if not holds_instances or name != INSTANCES:
            unknown(name, [INSTANCES] if holds_instances else [], f"{heading}, as a table,")
        for instance, settings in value.items():
            _check_name(where[0], instance)
            yield from _from_table((*where, name, instance), settings, path)


def _check_name(service: str, instance: str) -> None:
    if instance == DEFAULT:
        raise ConfigError(f"the {service} instance named default is the table [{service}] itself; write it there")
    if not _INSTANCE_NAME.fullmatch(instance):
        raise ConfigError(f"the {service} instance {instance!r} must be named with up to 63 of a-z, 0-9, - and _")


def _from_environment(environ: Mapping[str, str], known: set[Name]) -> Iterator[_Given]:
    for variable, text in environ.items():
        if variable.startswith(_PREFIX) and not _OTHER_USES.fullmatch(variable):
            parts = variable.removeprefix(_PREFIX).lower().split("__")
            if len(parts) > 1:
                yield _Given(_name(parts, variable, known), text, f"environment {variable}")
            else:
                _check_separator(variable, parts[0], text)


def _name(parts: list[str], variable: str, known: set[Name]) -> Name:
    if parts[0] != SERVER and parts[0] not in SERVICES:
        tables = [f"{_PREFIX}{table.upper()}__{parts[1].upper()}" for table in (SERVER, *SERVICES)]
        unknown(variable, tables, "the environment")
    if parts[0] != SERVER and len(parts) == 4 and parts[1] == INSTANCES:
        # Names of variables have no hyphen and no small letters, so the file's own spelling comes first.
        spelt = {name[2].replace("-", "_"): name[2] for name in known if name[0] == parts[0]}
        instance = spelt.get(parts[2], parts[2])
        _check_name(parts[0], instance)
        return (parts[0], INSTANCES, instance, parts[3])
    if len(parts) == 2 and "" not in parts:
        return (parts[0], parts[1])
    known_form = f"{_PREFIX}{parts[0].upper()}__{parts[-1].upper()}"
    raise ConfigError(f"the environment has no setting {variable!r}; did you mean {known_form}?")


def _check_separator(variable: str, name: str, text: str) -> None:
    """Refuse ``NOOBLY_CACHING_URL``, which would silently do nothing; leave other programs' variables alone."""
    for table in (SERVER, *SERVICES):
        if name.startswith(f"{table}_") and not _SERVICE_LINK.fullmatch(f"{variable}={text}"):
            meant = f"{_PREFIX}{table.upper()}__{name.removeprefix(table + '_').upper()}"
            raise ConfigError(f"the environment has no setting {variable!r}; did you mean {meant}?")


def _server(given: Mapping[Name, _Given]) -> Server:
    values: dict[str, object] = {}
    for name, value in given.items():
        if name[0] == SERVER:
            if name[1] not in Server.__struct_fields__:
                unknown(name[1], Server.__struct_fields__, value.origin)
            values[name[1]] = value.value
    return convert(Server, values, f"[{SERVER}]")


def _instances(service: str, given: Mapping[Name, _Given]) -> dict[str, Instance]:
    found: dict[str, dict[str, object]] = {}
    for name, value in given.items():
        if name[0] == service:
            instance = name[2] if len(name) == 4 else DEFAULT
            found.setdefault(instance, {})[name[-1]] = value.value
    return {instance: _instance(service, instance, values) for instance, values in found.items()}


def _instance(service: str, instance: str, values: dict[str, object]) -> Instance:
    url = values.pop("url", SERVICES[service].default if instance == DEFAULT else None)
    if not isinstance(url, str):
        raise ConfigError(f"[{title(service, instance)}] needs a url, such as {SERVICES[service].default}")
    return Instance(url=url, options=values)


def title(service: str, instance: str) -> str:
    """Return the name of an instance's table in the file."""
    return service if instance == DEFAULT else f"{service}.{INSTANCES}.{instance}"


def check(settings: Settings) -> list[Problem]:
    """Return what is wrong with the instances, found without connecting to anything."""
    problems: list[Problem] = []
    for name, service in SERVICES.items():
        for instance, configured in settings.instances(name).items():
            try:
                _check(service, Request(url=configured.url, options=configured.options, instance=instance))
            except NooblyError as error:
                problems.append(Problem(subject=title(name, instance), error=error))
    return problems


def _check(service: Service, request: Request) -> None:
    parts = split(request, service.options)
    make(service.registry, parts, options_fields(parts), Environment(), request.instance)
