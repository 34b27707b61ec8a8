"""What an AWS service answers when it refuses a call, and which of the suite's errors that is."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx2
import msgspec

from noobly.core.errors import (
    Conflict,
    Internal,
    InvalidArgument,
    NooblyError,
    NotFound,
    PermissionDenied,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

_PAUSE = 1.0
"""Seconds to wait after throttling where the service does not say; AWS's own clients begin there."""

_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_UNKNOWN = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_THROTTLED = re.compile(
    "Thrott|Throughput|^TooManyRequests|^RequestLimit|^LimitExceeded|^BandwidthLimit|^SlowDown|^OverLimit"
)
_DENIED = re.compile("^Kms|^KMS|AccessDenied|^Unauthorized|^NotAuthorized|^AuthorizationError|OptInRequired")
_MISSING = re.compile("NotFound|DoesNotExist|NonExistent|^NoSuch")
_WRONG = re.compile("^Invalid|^Missing|^Malformed|^Validation|^Unsupported|^SerializationException")
_TOO_LARGE = re.compile("TooLong|TooLarge|^RequestEntityTooLarge")
_DOWN = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "KMSDisabledException",
        "KMSInvalidStateException",
        "KmsDisabled",
        "KmsInvalidState",
        "QueueDeletedRecently",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
    }
)
_PAUSES = {"QueueDeletedRecently": 60.0}
"""Seconds to wait where the service says how long only in its documentation."""


class AwsError(Exception):
    """A service refused a call.

    Args:
        code: The error's name, without any prefix.
        message: What the service says; empty where it may repeat signed headers, and so a session token.
        status: The HTTP status.
        retry_after: Seconds to wait, where the service said so.
    """

    def __init__(self, code: str, message: str = "", *, status: int = 400, retry_after: float | None = None) -> None:
        self.code = _plain(code)
        self.message = "" if self.code in _UNKNOWN else message
        self.status = status
        self.retry_after = retry_after
        super().__init__(f"{self.code}: {self.message}" if self.message else self.code)

    @property
    def expired(self) -> bool:
        """Whether the credentials were good once."""
        return self.code in _EXPIRED


class _Body(msgspec.Struct, frozen=True, rename={"type": "__type", "capital": "Message"}):
    type: str = ""
    code: str = ""
    message: str = ""
    capital: str = ""


def refused(status: int, headers: Mapping[str, str], body: bytes) -> AwsError:
    """Return the error in a JSON answer; the body's type counts, for the query-compatible header has older names."""
    try:
        found = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, msgspec.ValidationError):
        found = _Body()
    code = found.type or headers.get("x-amzn-errortype", "") or found.code or f"HTTP{status}"
    return AwsError(code, found.message or found.capital, status=status, retry_after=_retry_after(headers))


def _plain(code: str) -> str:
    """Return ``QueueDoesNotExist`` of ``com.amazonaws.sqs#QueueDoesNotExist:http://…``."""
    return re.split(r"[#.]", code.partition(":")[0])[-1]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("x-amz-retry-after", 1000.0), ("retry-after", 1.0)):
        if (value := headers.get(name, "")).isdigit():
            return float(value) / unit
    return None


def classify(error: Exception) -> NooblyError | None:
    """Return the suite's error for a refusal, or for a connection that failed; None for anything else."""
    if isinstance(error, httpx2.TransportError):
        return Unavailable(f"AWS cannot be reached: {type(error).__name__}: {error}")
    return _of(error) if isinstance(error, AwsError) else None


def _of(error: AwsError) -> NooblyError:
    code, said = error.code, str(error)
    if error.expired:
        return Unauthenticated(f"the AWS credentials have expired ({code}); renew them where they come from")
    if code in _UNKNOWN:
        return Unauthenticated(f"AWS does not accept the credentials ({code}); check them, their region and the clock")
    if _THROTTLED.search(code) or error.status == 429:
        return RateLimited(f"AWS asks for fewer calls: {said}", retry_after=error.retry_after or _PAUSE)
    if code in _DOWN or error.status >= 500:
        return Unavailable(f"AWS cannot do it now: {said}", retry_after=error.retry_after or _PAUSES.get(code))
    return _kind(error)(f"AWS refused the call: {said}")


def _kind(error: AwsError) -> type[NooblyError]:
    table: tuple[tuple[re.Pattern[str], type[NooblyError]], ...] = (
        (_DENIED, PermissionDenied),
        (_MISSING, NotFound),
        (_TOO_LARGE, TooLarge),
        (_WRONG, InvalidArgument),
        (re.compile("Exists$|InProgress$|Conflict"), Conflict),
    )
    found = next((kind for pattern, kind in table if pattern.search(error.code)), None)
    return found or (PermissionDenied if error.status in (401, 403) else TooLarge if error.status == 413 else Internal)
