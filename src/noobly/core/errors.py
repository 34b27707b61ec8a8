"""The one error tree of the suite.

    NooblyError                     code · status · temporary · retry_after · service · operation · provider
    ├── InvalidArgument        400  the call itself is wrong; nothing was sent
    │   └── ConfigError        400  a setting is wrong, unknown or missing
    ├── Unauthenticated        401  no credentials, or wrong ones
    ├── PermissionDenied       403  valid credentials that may not do this
    ├── NotFound               404
    │   └── NoRoute            404  the server has no such instance or operation, whatever would be in it
    ├── AlreadyExists          409
    ├── Conflict               409  somebody else changed or holds it
    ├── PreconditionFailed     412
    ├── TooLarge               413  over a size limit
    ├── RateLimited            429  temporary
    ├── Unsupported            501  this provider cannot do it
    ├── Unavailable            503  temporary: the far side is down or refuses work
    ├── Closed                 503  used before opening or after closing
    ├── DeadlineExceeded       504  temporary
    ├── MissingDependency      500  also an ImportError: an optional package is not installed
    └── Internal               500  a defect, here or in the provider

``code`` is stable: act on it or on the class, never on the text. The exception of an underlying driver is never raised
to a caller; it is the ``__cause__``.
"""

from __future__ import annotations

from typing import ClassVar


class NooblyError(Exception):
    """Base of every error the suite raises.

    Args:
        message: What happened, to which key or queue, and what to do about it.
        retry_after: Seconds to wait before trying again, where the far side said so.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    temporary: ClassVar[bool] = False

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.service = ""
        self.operation = ""
        self.provider = ""

    @property
    def message(self) -> str:
        """The text without class name or context."""
        return str(self.args[0]) if self.args else ""


class InvalidArgument(NooblyError):
    """The call itself is wrong; nothing was sent."""

    code = "invalid_argument"
    status = 400


class ConfigError(InvalidArgument):
    """A setting is wrong, unknown or missing."""

    code = "config_error"


class Unauthenticated(NooblyError):
    """No credentials were given, or they are wrong."""

    code = "unauthenticated"
    status = 401


class PermissionDenied(NooblyError):
    """The credentials are valid but may not do this."""

    code = "permission_denied"
    status = 403


class NotFound(NooblyError):
    """The named thing does not exist."""

    code = "not_found"
    status = 404


class NoRoute(NotFound):
    """The server has no such instance or operation; what was asked for may well exist elsewhere."""

    code = "no_route"


class AlreadyExists(NooblyError):
    """The named thing exists and the call asked to create it."""

    code = "already_exists"
    status = 409


class Conflict(NooblyError):
    """Somebody else changed or holds the thing."""

    code = "conflict"
    status = 409


class PreconditionFailed(NooblyError):
    """A condition given with the call does not hold."""

    code = "precondition_failed"
    status = 412


class TooLarge(NooblyError):
    """A size limit would be exceeded."""

    code = "too_large"
    status = 413


class RateLimited(NooblyError):
    """Too many calls; try again after ``retry_after`` seconds."""

    code = "rate_limited"
    status = 429
    temporary = True


class Unsupported(NooblyError):
    """The provider does not have this capability."""

    code = "unsupported"
    status = 501


class Unavailable(NooblyError):
    """The far side is down, unreachable or refuses work for now."""

    code = "unavailable"
    status = 503
    temporary = True


class Closed(NooblyError):
    """The service was used before it was opened or after it was closed."""

    code = "closed"
    status = 503


class DeadlineExceeded(NooblyError):
    """The call did not finish in its time; it may or may not have taken effect."""

    code = "deadline_exceeded"
    status = 504
    temporary = True


class MissingDependency(NooblyError, ImportError):
    """An optional package is not installed; the message names the extra."""

    code = "missing_dependency"


class Internal(NooblyError):
    """A defect, here or in the provider; the cause is attached."""

    code = "internal"


def _tree(base: type[NooblyError]) -> dict[str, type[NooblyError]]:
    found: dict[str, type[NooblyError]] = {}
    for child in base.__subclasses__():
        found |= _tree(child)
    found[base.code] = base
    return found


def by_code(code: str) -> type[NooblyError]:
    """Return the error class with this stable code; an unknown code is ``Internal``."""
    return _tree(NooblyError).get(code, Internal) if code != "internal" else Internal
