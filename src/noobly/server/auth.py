"""Who may come in: API keys in headers, one browser session for a server without keys, and nobody else."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Protocol

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from noobly.core.errors import PermissionDenied, Unauthenticated
from noobly.server.incoming import same_origin
from noobly.server.keys import Keyring, KeyStore, Principal, StaticKeys
from noobly.server.routes import Access, Open
from noobly.settings import Settings

COOKIE = "noobly_session"
PRINCIPAL = "noobly.principal"
"""Where a request's scope keeps the id of who makes it."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


class MissingKey(Unauthenticated):
    """The request carries no credentials at all."""


def keyring(settings: Settings) -> Keyring:
    """Return the keys of an installation: those of ``NOOBLY_API_KEYS`` and those kept in the data folder."""
    return Keyring([StaticKeys.from_environment(), KeyStore(Path(settings.server.data_dir) / "keys.json")])


class Guard(Protocol):
    """Decides on each request."""

    def admit(self, request: Request, access: Access | Open) -> None:
        """Let a request in.

        Raises:
            Unauthenticated: It has no valid credentials.
            PermissionDenied: Its credentials do not allow this.
        """
        ...


class KeyGuard:
    """Lets in callers with an API key, and the holder of the printed link where the server has no keys."""

    def __init__(self, keyring: Keyring, sessions: Sessions) -> None:
        self._keyring = keyring
        self._sessions = sessions

    def admit(self, request: Request, access: Access | Open) -> None:
        """See the protocol."""
        if access is Open.EVERYBODY:
            return
        principal = self._principal(request)
        # Names are for people, and not unique.
        request.scope[PRINCIPAL] = principal.id or principal.name
        if isinstance(access, Access) and not principal.may(access.service, access.permission):
            raise PermissionDenied(f"this key lacks the scope {access.service}:{access.permission}")

    def _principal(self, request: Request) -> Principal:
        presented = _presented(request)
        if presented is not None:
            found = self._keyring.authenticate(presented)
            if found is None:
                raise Unauthenticated("the API key is unknown, expired or revoked")
            return found
        if self._sessions.knows(request.cookies.get(COOKIE)):
            if not same_origin(request):
                raise PermissionDenied("a session is only good for the server's own pages")
            return Principal(name="session", scopes=frozenset({"*"}))
        raise MissingKey("no API key was given; send it as x-api-key or as Authorization: Bearer")


class DevGuard:
    """Lets everybody on this machine in, but no page that a browser brought from elsewhere.

    A web page may send requests to a server on the visitor's own machine, and DNS rebinding makes them look like the
    server's own; so both the origin and the host must be this machine.
    """

    def admit(self, request: Request, access: Access | Open) -> None:
        """See the protocol."""
        if access is Open.EVERYBODY:
            return
        host = request.headers.get("host", "localhost")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name not in _LOOPBACK or not same_origin(request):
            raise PermissionDenied("a server started with --dev answers only this machine and its own pages")


class Sessions:
    """Browser sessions, begun by a link that works once."""

    def __init__(self) -> None:
        self.ticket: str | None = secrets.token_urlsafe(24)
        self._cookies: set[bytes] = set()

    def knows(self, cookie: str | None) -> bool:
        """Return whether a cookie belongs to a session."""
        return cookie is not None and hashlib.sha256(cookie.encode()).digest() in self._cookies

    async def enter(self, request: Request, _: tuple[str, ...]) -> Response:
        """Answer the printed link: begin a session and go to the first page; the second time it is refused."""
        given = request.query_params.get("ticket", "")
        if self.ticket is None or not hmac.compare_digest(given.encode(), self.ticket.encode()):
            raise Unauthenticated("this link was used already, or is not the one the server printed")
        self.ticket = None
        cookie = secrets.token_urlsafe(32)
        self._cookies.add(hashlib.sha256(cookie.encode()).digest())
        response = RedirectResponse(request.scope.get("root_path", "") + "/", status_code=303)
        response.set_cookie(
            COOKIE, cookie, httponly=True, samesite="strict", path=request.scope.get("root_path") or "/"
        )
        return response


def _presented(request: Request) -> str | None:
    for name in ("x-api-key", "api-key"):
        given = request.headers.get(name)
        if given:
            return given
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if scheme in ("Bearer", "ApiKey") and given.strip() else None
