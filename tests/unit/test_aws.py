"""The AWS client: signatures as botocore makes them, endpoints, errors, and no secret anywhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import botocore.auth
import botocore.loaders
import botocore.session
import httpx2
import msgspec
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from noobly.clients.aws import AwsClient, AwsConfig, AwsJson, Service, find_service, sign
from noobly.clients.aws_credentials import Keys
from noobly.clients.aws_errors import AwsError, classify, refused
from noobly.core.errors import (
    ConfigError,
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

ACCESS, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI-secret-key", "session-token-nobody-may-see"
KEYS = Keys(ACCESS, SECRET, TOKEN)
NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
LOADER = botocore.loaders.Loader(include_default_search_paths=True)
"""What botocore knows of services and regions, which it would read anew for each session."""
SIGNED = {"authorization", "x-amz-date", "x-amz-security-token"}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let botocore find nothing but what a test gives it."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(botocore.session, "create_loader", lambda *_: LOADER)


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


# Signing


def sent_by_botocore(service: str, keys: Keys, call: Callable[..., object]) -> AWSPreparedRequest:
    """Return the request that botocore's own client would send."""
    session = botocore.session.Session()
    session.set_credentials(*keys)
    client = session.create_client(service, region_name="eu-west-1")
    caught: list[AWSPreparedRequest] = []

    def catch(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        caught.append(request)
        return AWSResponse(request.url, 200, {}, _Raw())

    client.meta.events.register(f"before-send.{service}", catch)
    call(client)
    return caught[0]


class _Raw:
    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield b"{}"


@pytest.mark.parametrize("keys", [KEYS, Keys(ACCESS, SECRET, None)], ids=["token", "no token"])
@pytest.mark.parametrize("text", ["plain", "naïve 鍵 🦊\n", "x" * 100_000], ids=["plain", "unicode", "long"])
def test_a_signature_is_the_one_botocore_makes(monkeypatch: pytest.MonkeyPatch, keys: Keys, text: str) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW.replace(tzinfo=None))
    theirs = sent_by_botocore(
        "sqs", keys, lambda client: client.send_message(QueueUrl="https://x/1/q", MessageBody=text)
    )
    signed = _lower(theirs.headers)["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    given = {name: value for name, value in _lower(theirs.headers).items() if name in signed and name not in SIGNED}
    service = find_service("sqs", AwsConfig(region="eu-west-1"))
    ours = sign(service, keys, theirs.url, given, theirs.body)
    for name in SIGNED:
        assert _lower(ours).get(name) == _lower(theirs.headers).get(name)
    assert _lower(ours)["authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={ACCESS}/20261123/eu-west-1/sqs/")


def test_another_body_or_key_makes_another_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW.replace(tzinfo=None))
    service = Service("https://sqs.eu-west-1.amazonaws.com", "eu-west-1", "sqs", "v4", "AmazonSQS", None)
    cases = ((KEYS, b"1"), (KEYS, b"2"), (KEYS._replace(secret_key="other"), b"1"))
    assert len({sign(service, keys, service.endpoint, {}, body)["Authorization"] for keys, body in cases}) == 3


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _lower(headers: Mapping[str, str | bytes]) -> dict[str, str]:
    return {name.lower(): _text(value) for name, value in headers.items()}


# Where a service is


def test_regions_and_endpoints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = find_service("sqs", AwsConfig(region="cn-north-1"))
    assert found.endpoint == "https://sqs.cn-north-1.amazonaws.com.cn"
    assert (found.region, found.signing_name, found.signature, found.target) == ("cn-north-1", "sqs", "v4", "AmazonSQS")
    assert find_service("sesv2", AwsConfig(region="eu-west-1")).signing_name == "ses"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert find_service("sqs", AwsConfig()).endpoint == "https://sqs.eu-central-1.amazonaws.com"
    (tmp_path / "config").write_text("[profile work]\nregion = us-west-2\n")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert find_service("sqs", AwsConfig(profile="work")).region == "us-west-2"
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")
    assert find_service("sqs", AwsConfig(region="eu-west-1")).endpoint == "http://127.0.0.1:9"
    assert find_service("sqs", AwsConfig(region="eu-west-1", endpoint="http://[::1]:8")).endpoint == "http://[::1]:8"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (AwsConfig(), "needs a region"),
        (AwsConfig(region="eu-west-1", profile="nobody"), "nobody"),
        (AwsConfig(region="eu-west-1", endpoint="not an address"), "not an address"),
        (AwsConfig(region="no region/"), "wrong"),
    ],
)
def test_wrong_settings(config: AwsConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        find_service("sqs", config)


# Errors

ERRORS: tuple[tuple[str, int, type[NooblyError]], ...] = (
    ("com.amazonaws.sqs#QueueDoesNotExist", 400, NotFound),
    ("AWS.SimpleQueueService.NonExistentQueue", 400, NotFound),
    ("com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", 400, NotFound),
    ("RequestThrottled", 400, RateLimited),
    ("ThrottlingException:http://internal.amazon.com/", 400, RateLimited),
    ("TooManyRequestsException", 429, RateLimited),
    ("KmsThrottled", 400, RateLimited),
    ("OverLimit", 403, RateLimited),
    ("Whatever", 429, RateLimited),
    ("AccessDeniedException", 403, PermissionDenied),
    ("AccessDenied", 400, PermissionDenied),
    ("KmsAccessDenied", 400, PermissionDenied),
    ("KmsOptInRequired", 403, PermissionDenied),
    ("com.amazonaws.sqs#KmsNotFound", 400, PermissionDenied),
    ("KmsInvalidKeyUsage", 400, PermissionDenied),
    ("KmsDisabled", 400, Unavailable),
    ("KmsInvalidState", 400, Unavailable),
    ("KMSInvalidStateException", 400, Unavailable),
    ("Whatever", 403, PermissionDenied),
    ("ExpiredToken", 403, Unauthenticated),
    ("ExpiredTokenException", 400, Unauthenticated),
    ("UnrecognizedClientException", 400, Unauthenticated),
    ("InvalidClientTokenId", 403, Unauthenticated),
    ("SignatureDoesNotMatch", 403, Unauthenticated),
    ("RequestTimeTooSkewed", 403, Unauthenticated),
    ("InvalidAttributeValue", 400, InvalidArgument),
    ("MissingParameter", 400, InvalidArgument),
    ("ValidationException", 400, InvalidArgument),
    ("BatchRequestTooLong", 400, TooLarge),
    ("QueueNameExists", 400, Conflict),
    ("PurgeQueueInProgress", 403, Conflict),
    ("InternalFailure", 500, Unavailable),
    ("ServiceUnavailable", 503, Unavailable),
    ("RequestTimeout", 400, Unavailable),
    ("Whatever", 502, Unavailable),
    ("Whatever", 418, Internal),
)


@pytest.mark.parametrize(("code", "status", "kind"), ERRORS, ids=lambda value: str(getattr(value, "code", value)))
def test_what_an_answer_means(code: str, status: int, kind: type[NooblyError]) -> None:
    body = msgspec.json.encode({"__type": code, "message": "the reason"})
    error = classify(refused(status, {}, body))
    assert type(error) is kind
    assert error.message
    assert (error.retry_after == 1.0) == (kind is RateLimited)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "7"}, 7.0), ({"x-amz-retry-after": "1500"}, 1.5), ({"retry-after": "x"}, 1)],
)
def test_when_to_come_again(headers: dict[str, str], seconds: float) -> None:
    error = classify(refused(429, headers, b"<html>"))
    assert isinstance(error, RateLimited)
    assert error.retry_after == seconds


def test_a_name_that_was_deleted_is_free_after_a_minute() -> None:
    error = classify(refused(400, {}, b'{"__type": "com.amazonaws.sqs#QueueDeletedRecently"}'))
    assert isinstance(error, Unavailable)
    assert error.retry_after == 60.0


def test_other_answers() -> None:
    assert refused(500, {}, b"").code == "HTTP500"
    assert refused(400, {"x-amzn-errortype": "Odd:"}, b"{}").code == "Odd"
    assert str(refused(400, {}, b'{"code": "Odd", "Message": "why"}')) == "Odd: why"
    assert classify(KeyError("x")) is None


# Over the wire


@asynccontextmanager
async def answering(*answers: tuple[int, str, bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve answers, the last one for ever; give the address and the requests that came."""
    requests: list[bytes] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        requests.append(head + await reader.readexactly(length))
        status, headers, body = left.pop(0) if len(left) > 1 else left[0]
        start = f"HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        writer.write(start.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests


class Ping(msgspec.Struct):
    text: str


@asynccontextmanager
async def client_of(endpoint: str, **options: object) -> AsyncIterator[AwsJson]:
    async with AsyncExitStack() as stack:
        client = AwsClient("sqs", msgspec.convert({"region": "eu-west-1", "endpoint": endpoint, **options}, AwsConfig))
        await client.start(stack)
        yield AwsJson(client)


async def test_a_call_is_made_once_and_signed(keyed: None) -> None:
    async with answering((200, "", b'{"text": "pong"}')) as (url, requests), client_of(url) as aws:
        assert await aws.call("Ping", Ping("ping"), Ping) == Ping("pong")
    (request,) = requests
    assert request.endswith(b'\r\n\r\n{"text":"ping"}')
    assert request.startswith(b"POST / HTTP/1.1\r\n")
    for part in (b"x-amz-target: amazonsqs.ping", b"content-type: application/x-amz-json-1.0", b"aws4-hmac-sha256"):
        assert part in request.lower()
    assert TOKEN.encode() in request


@pytest.mark.parametrize(("status", "kind"), [(503, Unavailable), (429, RateLimited), (400, Internal)])
async def test_nothing_is_tried_again(keyed: None, status: int, kind: type[NooblyError]) -> None:
    async with answering((status, "", b"{}")) as (url, requests), client_of(url) as aws:
        with pytest.raises(AwsError) as caught:
            await aws.call("Ping", Ping("ping"), Ping)
    assert isinstance(classify(caught.value), kind)
    assert len(requests) == 1


async def test_a_server_that_is_gone_or_silent(keyed: None) -> None:
    async with answering((200, "", b"{}")) as (url, _):
        pass
    async with client_of(url) as aws:
        with pytest.raises(httpx2.TransportError) as caught:
            await aws.call("Ping", Ping("ping"), Ping)
    assert isinstance(classify(caught.value), Unavailable)


EXPIRED = msgspec.json.encode({"__type": "ExpiredTokenException", "message": f"token {TOKEN} has expired"})


async def test_a_call_with_expired_credentials_is_made_again_with_new_ones(
    keyed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering((400, "", EXPIRED), (200, "", b'{"text": ""}')) as (url, requests), client_of(url) as aws:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDRENEWED")
        await aws.call("Ping", Ping("ping"), Ping)
        await aws.call("Ping", Ping("ping"), Ping)
    assert [b"AKIDRENEWED" in request for request in requests] == [False, True, True]


async def test_many_calls_with_expired_credentials_look_them_up_together(
    keyed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, found = AwsClient._chain, []

    async def post(_: AwsClient, __: Service, keys: Keys, *___: object) -> bytes:
        if keys.access_key == ACCESS:
            raise AwsError("ExpiredToken")
        return b'{"text": ""}'

    monkeypatch.setattr(AwsClient, "_post", post)
    monkeypatch.setattr(AwsClient, "_chain", lambda client: found.append(1) or chain(client))
    async with client_of("http://127.0.0.1:9") as aws:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDRENEWED")
        await asyncio.gather(*(aws.call("Ping", Ping("ping"), Ping) for _ in range(50)))
    assert len(found) == 2


async def test_expired_credentials_without_new_ones(keyed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering((400, "", EXPIRED)) as (url, requests), client_of(url) as aws:
        with pytest.raises(AwsError) as caught:
            await aws.call("Ping", Ping("ping"), Ping)
        assert len(requests) == 1
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDRENEWED")
        with pytest.raises(AwsError):
            await aws.call("Ping", Ping("ping"), Ping)
    error = classify(caught.value)
    assert isinstance(error, Unauthenticated)
    assert TOKEN not in str(error)
    assert len(requests) == 3


async def test_no_secret_is_shown(keyed: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    canonical = f"POST\n/\n\nx-amz-security-token:{TOKEN}"
    refusal = msgspec.json.encode({"__type": "SignatureDoesNotMatch", "message": canonical})
    async with answering((403, "", refusal)) as (url, _), client_of(url) as aws:
        with pytest.raises(AwsError) as caught:
            await aws.call("Ping", Ping("ping"), Ping)
    error = classify(caught.value)
    shown = f"{caught.value!r} {caught.value} {error!r} {error} {KEYS!r} {KEYS} {caplog.text}"
    assert "SignatureDoesNotMatch" in shown
    assert TOKEN not in shown
    assert SECRET not in shown


async def test_a_client_that_was_not_started() -> None:
    with pytest.raises(ConfigError, match="not started"):
        await AwsJson(AwsClient("sqs", AwsConfig(region="eu-west-1"))).call("Ping", Ping(""), Ping)


async def test_a_service_with_another_signature_is_refused(keyed: None) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match="signs with"):
            await AwsClient("sdb", AwsConfig(region="us-east-1")).start(stack)
