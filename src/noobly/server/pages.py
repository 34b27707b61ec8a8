"""The server's own pages: an overview, the explorer of the API, and the OpenAPI document that the explorer shows.

The pages are static files and show nothing of the application's own; their scripts ask the API, with the reader's key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from noobly.app import Noobly
from noobly.core.wire import JSON
from noobly.server.openapi import document
from noobly.server.routes import Access, Endpoint, Handler, Open

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
"""What the pages may do (Content Security Policy, level 3): load and call this server, and nothing else."""

PAGES = "pages"
"""The names of static files in the table begin with this."""

_PAGES = {"landing.html": "/", "explorer.html": "/explorer"}
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


def pages(endpoints: Sequence[Endpoint], noobly: Noobly) -> Iterator[Endpoint]:
    """Yield the OpenAPI document of these endpoints, the pages, and what the pages load."""
    yield _document(endpoints, noobly)
    files = resources.files("noobly.server").joinpath("explorer").iterdir()
    for file in sorted(files, key=lambda found: found.name):
        path = _PAGES.get(file.name, f"/assets/{file.name}")
        handler = _fixed(path, file.read_bytes(), {**_HEADERS, "content-type": _TYPES[PurePath(file.name).suffix]})
        yield Endpoint(method="GET", path=path, access=Open.EVERYBODY, handler=handler, name=f"{PAGES}.{file.name}")


def _document(endpoints: Sequence[Endpoint], noobly: Noobly) -> Endpoint:
    async def answer(request: Request, texts: tuple[str, ...]) -> Response:
        return await fixed(request, texts)

    path = "/openapi.json"
    own = Endpoint(method="GET", path=path, access=Access("server", "read"), handler=answer, name="openapi")
    fixed = _fixed(path, document([*endpoints, own], noobly), {"content-type": JSON})
    return own


def _fixed(path: str, content: bytes, headers: dict[str, str]) -> Handler:
    """Return a handler that always answers the same, unless the caller has it already (RFC 9110, 13.1.2)."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    sent = {**headers, "etag": tag, "cache-control": "no-cache"}

    async def answer(request: Request, _: tuple[str, ...]) -> Response:
        if request.scope["path"].endswith("/") != path.endswith("/"):  # the page's relative links would lead elsewhere
            return RedirectResponse(request.scope.get("root_path", "") + path)
        if _holds(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers=sent)
        return Response(content, headers=sent)

    return answer


def _holds(condition: str, tag: str) -> bool:
    return condition == "*" or tag in (one.strip().removeprefix("W/") for one in condition.split(","))
