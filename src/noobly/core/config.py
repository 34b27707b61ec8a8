"""Strict configuration: a provider's URL and options become one frozen struct, or a clear error.

Secrets are given by reference (``env:NAME``, ``file:PATH``) or as a ``Secret``, never as plain text and never inside
the user part of a URL.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, NoReturn, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from noobly.core.errors import ConfigError

C = TypeVar("C", bound="Config")


class Secret:
    """A value that shows itself only to ``reveal()``: not in repr, logs, errors or JSON."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret text."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    @classmethod
    def refer(cls, reference: str, name: str) -> Secret:
        """Return the secret that ``env:NAME`` or ``file:PATH`` points to.

        Raises:
            ConfigError: The reference has another form, or nothing is there.
        """
        kind, _, where = reference.partition(":")
        if kind == "env" and where:
            if where not in os.environ:
                raise ConfigError(f"{name} refers to the environment variable {where}, which is not set")
            return cls(os.environ[where])
        if kind == "file" and where:
            try:
                return cls(Path(where).read_text(encoding="utf-8").strip())
            except OSError as error:
                raise ConfigError(f"{name} refers to the file {where}, which cannot be read") from error
        raise ConfigError(f"{name} must refer to a secret as env:NAME or file:PATH, not hold it")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of each provider's configuration.

    ``url_parts`` says which field takes the URL's ``scheme``, ``host``, ``port``, ``path`` (without its first slash),
    ``netloc`` or ``user``; a part that is given but has no field is an error.
    """

    url_parts: ClassVar[Mapping[str, str]] = {}


class Url(msgspec.Struct, frozen=True):
    """A provider URL taken apart; ``parts`` holds only what is present."""

    scheme: str
    parts: Mapping[str, str]
    query: Mapping[str, str]


def parse_url(url: str) -> Url:
    """Take a provider URL apart.

    Raises:
        ConfigError: It has no scheme, holds a password, or repeats a parameter.
    """
    try:
        split = urlsplit(url)
        several = "," in split.netloc
        port = None if several else split.port
    except ValueError:
        # The cause would show what stands where a port should, and that may be the rest of a password.
        raise ConfigError("the URL cannot be read: its host or port is malformed") from None
    if not split.scheme:
        raise ConfigError("the URL has no scheme; write for example memory:// or redis://localhost/0")
    if split.password is not None:
        raise ConfigError(f"the {split.scheme} URL holds a password; give password=env:NAME or file:PATH instead")
    found = {
        "scheme": split.scheme,
        "netloc": split.netloc.rpartition("@")[2],
        "host": "" if several else split.hostname or "",
        "port": "" if port is None else str(port),
        "path": unquote(split.path.removeprefix("/")) if split.netloc else unquote(split.path),
        "user": unquote(split.username or ""),
    }
    query: dict[str, str] = {}
    for name, value in parse_qsl(split.query, keep_blank_values=True):
        if name in query:
            raise ConfigError(f"the {split.scheme} URL gives {name} twice")
        query[name] = value
    return Url(split.scheme, {name: value for name, value in found.items() if value}, query)


def load(config: type[C], url: Url, options: Mapping[str, object]) -> C:
    """Return the provider's configuration from its URL and options; options win over the URL.

    Raises:
        ConfigError: A part or name is unknown, or a value has the wrong type.
    """
    values: dict[str, object] = {}
    for part, value in url.parts.items():
        if part in config.url_parts:
            values[config.url_parts[part]] = value
        elif part not in ("scheme", "netloc", *_implied(config)):
            raise ConfigError(f"a {url.scheme} URL has no {part}: {value!r}")
    values |= url.query
    values |= options
    known = config.__struct_fields__
    for name in values:
        if name not in known:
            unknown(name, known, f"the {url.scheme} provider")
    return convert(config, values, f"the {url.scheme} provider")


def _implied(config: type[Config]) -> tuple[str, ...]:
    return ("host", "port") if "netloc" in config.url_parts else ()


def convert(config: type[C], values: Mapping[str, object], subject: str) -> C:
    """Return a configuration struct from plain values; text is read as the field's type.

    Raises:
        ConfigError: A value has the wrong type or is out of range.
    """
    try:
        return msgspec.convert(values, config, strict=False, dec_hook=_secret)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{subject} has a wrong setting: {error}") from error


def _secret(type: type[object], value: object) -> object:
    if type is not Secret:
        raise TypeError(f"{type.__name__} is not a type of setting")
    if isinstance(value, Secret):
        return value
    return Secret.refer(str(value), "a secret")


def unknown(name: str, known: Iterable[str], subject: str) -> NoReturn:
    """Refuse an unknown setting and suggest the nearest known one.

    Raises:
        ConfigError: Always.
    """
    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"; did you mean {near[0]}?" if near else f"; it knows {', '.join(sorted(known)) or 'none'}"
    raise ConfigError(f"{subject} has no setting {name!r}{hint}")
