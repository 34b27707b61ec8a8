"""What every setting is and where it came from, with secrets masked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import get_args
from urllib.parse import SplitResult, parse_qsl, urlsplit

import msgspec

from noobly.core.config import Config, Secret
from noobly.core.errors import NooblyError
from noobly.core.scope import Policy
from noobly.services import SERVICES, Service
from noobly.settings import DEFAULT, SERVER, Instance, Server, Settings, title

MASK = "***"
_CODE = "code"
_DEFAULT = "default"

Fields = Mapping[str, msgspec.structs.FieldInfo]


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One setting.

    Args:
        name: Its dotted name, such as ``caching.instances.sessions.ttl``.
        value: What it is; three stars for a secret.
        origin: The file and table, the environment variable, ``command line``, ``code`` or ``default``.
    """

    name: str
    value: object
    origin: str


def explain(settings: Settings) -> list[Explained]:
    """Return all settings; of a provider's, those that are given and the defaults of those that its URL cannot give."""
    rows = list(_server(settings))
    for name, service in SERVICES.items():
        for instance, configured in settings.instances(name).items():
            rows += _instance(settings, service, instance, configured)
    return rows


def _server(settings: Settings) -> Iterator[Explained]:
    for name in Server.__struct_fields__:
        dotted, value = f"{SERVER}.{name}", getattr(settings.server, name)
        code = _DEFAULT if value == getattr(Server(), name) else _CODE
        yield Explained(name=dotted, value=value, origin=settings.origins.get(dotted, code))


def _instance(settings: Settings, service: Service, instance: str, configured: Instance) -> Iterator[Explained]:
    table = title(service.registry.service, instance)
    embedded = instance == DEFAULT and configured.url == service.default
    url_origin = settings.origins.get(f"{table}.url", _DEFAULT if embedded else _CODE)
    provider = _provider(service, configured.url)
    fields = {**_fields(provider), **_fields(Policy), **_fields(service.options)}
    yield Explained(name=f"{table}.url", value=mask_url(configured.url, fields), origin=url_origin)
    in_url = dict(_query(configured.url))
    for name, value in (in_url | dict(configured.options)).items():
        dotted = f"{table}.{name}"
        source = settings.origins.get(dotted, _CODE) if name in configured.options else f"in the URL: {url_origin}"
        yield Explained(name=dotted, value=_masked(name, value, fields), origin=source)
    given = {*in_url, *configured.options, *_unseen(provider)}
    for name, field in fields.items():
        if name not in given and not field.required:
            yield Explained(name=f"{table}.{name}", value=_default(field), origin=_DEFAULT)


def _provider(service: Service, url: str) -> type[Config] | None:
    try:
        loaded: type[Config] | None = getattr(service.registry.load(url.partition(":")[0]), "Config", None)
    except NooblyError:
        return None  # Explaining what is configured needs no provider; `check` tells what is wrong with it.
    return loaded


def _unseen(provider: type[Config] | None) -> Iterable[str]:
    """Return the fields whose effective value is not their default: parts of the URL, and the instance's namespace."""
    return (*provider.url_parts.values(), "namespace") if provider else ()


def _fields(config: type[Config] | None) -> Fields:
    return {field.name: field for field in msgspec.structs.fields(config)} if config else {}


def _default(field: msgspec.structs.FieldInfo) -> object:
    made = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return msgspec.to_builtins(made, enc_hook=str)


def _masked(name: str, value: object, fields: Fields) -> object:
    """Return a value only where its setting is known to be no secret, or where it is a reference to one."""
    if name in fields and not _secret(fields[name].type):
        return value
    if isinstance(value, str) and value.startswith(("env:", "file:")):
        return value
    return MASK


def _secret(type: object) -> bool:
    return type is Secret or any(_secret(part) for part in get_args(type))


def mask_url(url: str, fields: Fields) -> str:
    """Return a URL without its password and without the values of parameters that may be secret."""
    try:
        split = urlsplit(url)
    except ValueError:
        return MASK
    scheme, _, rest = url.partition(":")
    if "@" in f"{split.path}{split.query}{split.fragment}":
        # A password with one of /?# in it ends the authority early, so what looks like a host is a part of it.
        return f"{scheme}:{MASK}"
    slashes = "//" if rest.startswith("//") else ""
    query = "&".join(f"{name}={_masked(name, value, fields)}" for name, value in _query(url))
    return f"{scheme}:{slashes}{_host(split)}{split.path}{'?' if query else ''}{query}"


def _host(split: SplitResult) -> str:
    user, at, host = split.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{name}{colon}{MASK if colon else ''}{at}{host}"


def _query(url: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(urlsplit(url).query, keep_blank_values=True)
    except ValueError:
        return []
