"""From URL scheme to provider class: strings until opened, so that no provider's package loads before it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

import msgspec

from noobly.core.errors import ConfigError, MissingDependency


class Provider(msgspec.Struct, frozen=True):
    """Where a provider lives.

    Args:
        target: ``module:Class``.
        extra: The optional dependency group that installs what it needs; None for none.
        summary: One line for tables.
    """

    target: str
    extra: str | None = None
    summary: str = ""


class Listed(NamedTuple):
    """One row of what can be opened."""

    scheme: str
    provider: Provider
    builtin: bool


class Registry:
    """The providers of one service: a table, and the entry points of group ``noobly.<service>`` on a miss."""

    def __init__(self, service: str, table: Mapping[str, Provider]) -> None:
        self.service = service
        self._table = dict(table)

    def load(self, scheme: str) -> type[object]:
        """Return the provider class of a scheme.

        Raises:
            ConfigError: Nobody knows the scheme; the message lists the known ones.
            MissingDependency: Its package is not installed; the message names the extra.
        """
        return _import(self._find(scheme), scheme)

    def providers(self) -> list[Listed]:
        """Return every scheme that can be opened, built in or installed by others."""
        rows = [Listed(scheme, provider, builtin=True) for scheme, provider in self._table.items()]
        for point in self._entry_points():
            if point.name in self._table:
                raise ConfigError(f"{point.value} claims the built-in {self.service} scheme {point.name}")
            rows.append(Listed(point.name, Provider(point.value), builtin=False))
        return rows

    def _find(self, scheme: str) -> Provider:
        if scheme in self._table:
            return self._table[scheme]
        matches = {point.value for point in self._entry_points() if point.name == scheme}
        if len(matches) > 1:
            raise ConfigError(
                f"several packages offer the {self.service} scheme {scheme}: {', '.join(sorted(matches))}"
            )
        if matches:
            return Provider(matches.pop())
        known = ", ".join(sorted({listed.scheme for listed in self.providers()}))
        raise ConfigError(f"no {self.service} provider has the scheme {scheme!r}; known are {known}")

    def _entry_points(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=f"noobly.{self.service}"))


def _import(provider: Provider, scheme: str) -> type[object]:
    module, _, name = provider.target.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), name)
    except ImportError as error:
        if provider.extra is None:
            raise MissingDependency(f"the provider {scheme} ({provider.target}) cannot be imported: {error}") from error
        if error.name is None:  # It is there, and not as it should be.
            raise ConfigError(f"the provider {scheme} cannot be imported: {error}") from error
        install = f"pip install 'noobly[{provider.extra}]'"
        raise MissingDependency(f"the provider {scheme} needs {error.name}: {install}") from error
    if not isinstance(loaded, type):
        raise ConfigError(f"the provider {scheme} names {provider.target}, which is not a class")
    return loaded
