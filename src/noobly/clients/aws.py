"""Calling an AWS service: botocore finds credentials and endpoint and signs, httpx carries the calls.

Nothing is tried again here; that is the retry layer's, and so are the deadlines of whole calls. Only a call
that is refused because the keys have expired is sent once more, with new ones: the service has done nothing yet.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Annotated, ClassVar, NamedTuple, Protocol, TypeVar, cast

import botocore.config
import botocore.session
import httpx2
import msgspec
from botocore import UNSIGNED
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError

from noobly.clients.aws_credentials import Chain, Keychain, Keys, keep_discreet
from noobly.clients.aws_errors import AwsError, classify, refused
from noobly.core.config import Config
from noobly.core.errors import ConfigError

__all__ = ["AwsClient", "AwsConfig", "AwsError", "AwsJson", "Service", "classify", "sign"]

T = TypeVar("T")

_JSON = "application/x-amz-json-1.0"
_IDLE = 15.0
"""Seconds a connection is kept open without a call."""


class AwsConfig(Config, frozen=True, kw_only=True):
    """The options that all providers on AWS share. Credentials come from botocore's chain and never from here.

    Args:
        region: The region; by default the one of ``AWS_REGION``, ``AWS_DEFAULT_REGION`` or the profile.
        endpoint: Another endpoint than the region's: a private one, or a server that stands in for AWS.
        profile: The profile in the shared configuration files.
        connect_timeout: Seconds to wait for a connection.
        request_timeout: Seconds without a byte after which a call is given up.
        connections: Connections at most, of which each waiting call holds one.
    """

    url_parts: ClassVar[Mapping[str, str]] = {"host": "region"}

    region: str | None = None
    endpoint: str | None = None
    profile: str | None = None
    connect_timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    request_timeout: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    connections: Annotated[int, msgspec.Meta(gt=0)] = 200


class Service(NamedTuple):
    """Where one service of one region is, and how calls to it are signed."""

    endpoint: str
    region: str
    signing_name: str
    signature: str
    target: str
    ca: str | None


class _Model(Protocol):
    signing_name: str
    signature_version: str
    metadata: Mapping[str, str]


class _Meta(Protocol):
    endpoint_url: str
    region_name: str
    service_model: _Model


class _Client(Protocol):
    meta: _Meta


def find_service(service: str, config: AwsConfig) -> Service:
    """Return where a service is: the configured endpoint, else that of environment or profile, else the region's.

    Reads files, so not to be called on an event loop.

    Raises:
        ConfigError: The region is missing, or something in the AWS configuration is wrong.
    """
    try:
        session = botocore.session.Session(profile=config.profile)
        region = config.region or session.get_config_variable("region")
        if not region:
            raise ConfigError(f"{service} needs a region: {service}://eu-west-1, or set AWS_REGION")
        unsigned = botocore.config.Config(signature_version=UNSIGNED)
        client = session.create_client(service, region_name=region, endpoint_url=config.endpoint, config=unsigned)
        ca = cast("str | None", session.get_config_variable("ca_bundle"))
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"the AWS settings for {service} are wrong: {error}") from error
    return _described(cast(_Client, client).meta, ca)


def _described(meta: _Meta, ca: str | None) -> Service:
    model = meta.service_model
    target = model.metadata.get("targetPrefix", "")
    return Service(meta.endpoint_url, meta.region_name, model.signing_name, model.signature_version, target, ca)


def sign(service: Service, keys: Keys, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """Return the headers of a POST with its signature, version 4."""
    request = AWSRequest(method="POST", url=url, data=body, headers=dict(headers))
    SigV4Auth(keys, service.signing_name, service.region).add_auth(request)
    return dict(request.headers.items())


class AwsClient:
    """Signed calls to one service over kept-open connections.

    Args:
        service: Its name as botocore knows it.
        config: Where it is, and how long to wait for it.
    """

    def __init__(self, service: str, config: AwsConfig) -> None:
        self._name, self._config = service, config
        self._service: Service | None = None
        self._http: httpx2.AsyncClient | None = None
        self._keychain = Keychain(self._chain)

    def _chain(self) -> Chain:
        return cast(Chain, botocore.session.Session(profile=self._config.profile))

    async def start(self, stack: AsyncExitStack) -> None:
        """Find endpoint and credentials; the first call connects.

        Raises:
            ConfigError: The AWS configuration is wrong.
            Unauthenticated: There are no credentials.
            Unavailable: Who gives them out does not answer.
        """
        keep_discreet()
        self._service = await asyncio.to_thread(find_service, self._name, self._config)
        if self._service.signature != "v4":
            raise ConfigError(f"{self._name} signs with {self._service.signature}, which this client does not know")
        stack.push_async_callback(self._keychain.close)
        await self._keychain.keys()
        self._http = await stack.enter_async_context(_http(self._config, self._service.ca))

    @property
    def service(self) -> Service:
        """Where the service is.

        Raises:
            ConfigError: The client was not started.
        """
        if self._service is None:
            raise ConfigError(f"the AWS client for {self._name} was not started")
        return self._service

    async def post(self, headers: Mapping[str, str], body: bytes, path: str = "/") -> bytes:
        """Send a signed POST and return the body of a good answer.

        Raises:
            AwsError: The service refused it.
            Unauthenticated: The credentials cannot be renewed.
        """
        service = self.service
        keys = await self._keychain.keys()
        try:
            return await self._post(service, keys, headers, body, path)
        except AwsError as error:
            if not error.expired or (renewed := await self._renewed(keys)) == keys:
                raise
        return await self._post(service, renewed, headers, body, path)

    async def _renewed(self, keys: Keys) -> Keys:
        """Return keys that were looked up since some have expired; many calls may find that out at once."""
        if await self._keychain.keys() == keys:
            self._keychain.forget()
        return await self._keychain.keys()

    async def _post(self, service: Service, keys: Keys, headers: Mapping[str, str], body: bytes, path: str) -> bytes:
        if (http := self._http) is None:
            raise ConfigError(f"the AWS client for {self._name} was not started")
        url = service.endpoint.rstrip("/") + path
        response = await http.post(url, content=body, headers=sign(service, keys, url, headers, body))
        if response.is_success:
            return response.content
        raise refused(response.status_code, response.headers, response.content)


class AwsJson:
    """Calls in the protocol AWS JSON 1.0 (https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html)."""

    def __init__(self, client: AwsClient) -> None:
        self._client = client
        self._encode = msgspec.json.Encoder().encode

    async def call(self, operation: str, request: msgspec.Struct, answer: type[T]) -> T:
        """Call an operation and return its answer.

        Raises:
            AwsError: The service refused it.
        """
        target = f"{self._client.service.target}.{operation}"
        headers = {"content-type": _JSON, "x-amz-target": target, "user-agent": "noobly"}
        body = await self._client.post(headers, self._encode(request))
        return msgspec.json.decode(body or b"{}", type=answer)


def _http(config: AwsConfig, ca: str | None) -> httpx2.AsyncClient:
    try:
        verify = ssl.create_default_context(cafile=ca) if ca else True
    except OSError as error:
        raise ConfigError(f"the certificates of AWS_CA_BUNDLE cannot be read: {ca}") from error
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(config.request_timeout, connect=config.connect_timeout, pool=None),
        limits=httpx2.Limits(
            max_connections=config.connections,
            max_keepalive_connections=config.connections,
            keepalive_expiry=_IDLE,
        ),
        verify=verify,
        trust_env=True,  # Proxies, as botocore has them.
    )
