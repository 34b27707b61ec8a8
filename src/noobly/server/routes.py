"""The one table of endpoints: every way in, with the permission it needs. What is not in the table does not exist."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from noobly.core.errors import ConfigError, InvalidArgument, NooblyError
from noobly.server.problems import problem

Handler = Callable[[Request, tuple[str, ...]], Awaitable[Response]]
"""Answers a request; the texts are the path's last segments, where the endpoint takes some."""
Render = Callable[[NooblyError, str], Response]
"""Makes an answer of an error and the request's id."""

ADMIT = "noobly.admit"
"""Where a request's scope keeps what lets requests in, for what must ask again later."""
_MOST_SEGMENTS = 3
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


class Open(Enum):
    """Access for everybody: only what shows nothing of the application's own."""

    EVERYBODY = "everybody"


class Access(msgspec.Struct, frozen=True):
    """Access for callers with a scope: ``caching:read``."""

    service: str
    permission: str


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One way in.

    Args:
        method: The HTTP method.
        path: The whole path, or with ``segments`` its beginning without the last slash.
        access: Who may come in.
        handler: What answers.
        name: What metrics and the explorer call it; never holds user text.
        segments: How many path segments of user text follow; only the legacy API has them.
        folded: The path ignores letter case and a slash at its end, as the legacy API does.
        render: How errors are answered.
        body_limit: Bytes of body it takes at most; None for the server's own limit.
    """

    method: str
    path: str
    access: Access | Open
    handler: Handler
    name: str
    segments: int = 0
    folded: bool = False
    render: Render = problem
    body_limit: int | None = None


class Match(msgspec.Struct, frozen=True):
    """The endpoint a request meets, and the user's texts from its path."""

    endpoint: Endpoint
    texts: tuple[str, ...]


class Table:
    """Endpoints by path. Looking one up costs the same however many there are."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._paths: tuple[dict[str, dict[str, Endpoint]], ...] = tuple({} for _ in range(_MOST_SEGMENTS + 1))
        for endpoint in self.endpoints:
            self._add(endpoint)

    def _add(self, endpoint: Endpoint) -> None:
        if not isinstance(endpoint.access, Access | Open):
            raise ConfigError(f"the route {endpoint.method} {endpoint.path} declares no permission")
        path = endpoint.path.lower() if endpoint.folded else endpoint.path
        methods = self._paths[endpoint.segments].setdefault(path, {})
        if endpoint.method in methods:
            raise ConfigError(f"the route {endpoint.method} {endpoint.path} is declared twice")
        methods[endpoint.method] = endpoint

    def find(self, method: str, raw_path: str) -> Match | frozenset[str]:
        """Return what a request meets, or the methods the path has (none where there is no such path).

        Args:
            method: The HTTP method; HEAD meets GET.
            raw_path: The path as it was sent, still percent-encoded.
        """
        wanted = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        methods = self._paths[0].get(raw_path)
        if methods is not None:
            if wanted in methods:
                return Match(methods[wanted], ())
            allowed.update(methods)
        head = raw_path.removesuffix("/") or "/"
        texts: tuple[str, ...] = ()
        for paths in self._paths:
            for path in (head, head.lower()):
                methods = paths.get(path)
                if methods is None:
                    continue
                endpoint = methods.get(wanted)
                if endpoint is not None and (endpoint.folded or path == head):
                    return Match(endpoint, tuple(map(_text, texts)))
                allowed.update(methods)
            head, cut, text = head.rpartition("/")
            if not cut or not text:
                break
            texts = (text, *texts)
        return frozenset(allowed)


def _text(segment: str) -> str:
    if "%" not in segment:
        return segment
    if _BAD_ESCAPE.search(segment):
        raise InvalidArgument("the path has a % that is not followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument("the path is not UTF-8") from error
