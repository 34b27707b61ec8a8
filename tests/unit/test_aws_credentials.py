"""AWS credentials: looked up and renewed in threads, once for all who need them."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import ConnectTimeoutError, CredentialRetrievalError

from noobly.clients.aws_credentials import Chain, Keychain, Keys, Source
from noobly.core.errors import (
    NooblyError,
    Unauthenticated,
    Unavailable,
)

ACCESS, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI-secret-key", "session-token-nobody-may-see"
NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


class Given:
    """A chain that finds what it was given."""

    def __init__(self, *sources: Source | Exception | None) -> None:
        self.sources = list(sources)
        self.asked = 0

    def __call__(self) -> Chain:
        return self

    def get_credentials(self) -> Source | None:
        self.asked += 1
        assert threading.current_thread() is not threading.main_thread()
        source = self.sources[0] if len(self.sources) == 1 else self.sources.pop(0)
        if isinstance(source, Exception):
            raise source
        return source


class Renewed:
    """Credentials that expire, and the time they look at."""

    def __init__(self) -> None:
        self.now = NOW
        self.count = 0
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.source = RefreshableCredentials(
            "old", SECRET, TOKEN, NOW + timedelta(hours=1), self._refresh, "test", time_fetcher=lambda: self.now
        )

    def _refresh(self) -> dict[str, str]:
        assert threading.current_thread() is not threading.main_thread()
        assert self.gate.wait(10)
        self.count += 1
        if self.failure is not None:
            raise self.failure
        expiry = (self.now + timedelta(hours=1)).isoformat()
        return {"access_key": f"new{self.count}", "secret_key": SECRET, "token": TOKEN, "expiry_time": expiry}


async def test_static_credentials_are_looked_up_once() -> None:
    chain = Given(Credentials(ACCESS, SECRET))
    keychain = Keychain(chain)
    found = await asyncio.gather(*(keychain.keys() for _ in range(20)))
    assert set(found) == {Keys(ACCESS, SECRET, None)}
    assert chain.asked == 1
    keychain.forget()
    assert await keychain.keys() == Keys(ACCESS, SECRET, None)
    assert chain.asked == 2


async def test_without_credentials() -> None:
    with pytest.raises(Unauthenticated, match="AWS_PROFILE"):
        await Keychain(Given(None)).keys()


async def test_credentials_are_renewed_once_for_all_who_wait() -> None:
    renewed = Renewed()
    keychain = Keychain(Given(renewed.source))
    assert (await keychain.keys()).access_key == "old"
    renewed.now += timedelta(minutes=59, seconds=30)
    renewed.gate.clear()
    waiting = [asyncio.create_task(keychain.keys()) for _ in range(30)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    renewed.gate.set()
    assert {(await one).access_key for one in waiting} == {"new1"}
    assert renewed.count == 1
    assert (await keychain.keys()).access_key == "new1"


async def test_good_credentials_serve_while_new_ones_are_fetched() -> None:
    renewed = Renewed()
    keychain = Keychain(Given(renewed.source))
    await keychain.keys()
    renewed.now += timedelta(minutes=50)
    renewed.gate.clear()
    assert (await keychain.keys()).access_key == "old"
    assert (await keychain.keys()).access_key == "old"
    renewed.gate.set()
    await keychain.close()
    assert (await keychain.keys()).access_key == "new1"
    assert renewed.count == 1


async def test_one_who_gives_up_does_not_stop_the_renewal() -> None:
    renewed = Renewed()
    keychain = Keychain(Given(renewed.source))
    await keychain.keys()
    renewed.now += timedelta(hours=2)
    renewed.gate.clear()
    first, second = (asyncio.create_task(keychain.keys()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    renewed.gate.set()
    assert (await second).access_key == "new1"
    assert first.cancelled()


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (CredentialRetrievalError(provider="process", error_msg=f"printed {SECRET}"), Unauthenticated),
        (ConnectTimeoutError(endpoint_url="http://169.254.169.254"), Unavailable),
        (ValueError(f"odd {SECRET}"), Unauthenticated),
    ],
    ids=["process", "metadata", "other"],
)
async def test_credentials_that_cannot_be_renewed(failure: Exception, kind: type[NooblyError]) -> None:
    renewed = Renewed()
    keychain = Keychain(Given(renewed.source))
    await keychain.keys()
    renewed.now += timedelta(hours=2)
    renewed.failure = failure
    with pytest.raises(kind) as caught:
        await keychain.keys()
    assert caught.value.__cause__ is failure
    assert SECRET not in f"{caught.value!r} {caught.value}"
    renewed.failure = None
    assert (await keychain.keys()).access_key == "new2"


async def test_a_chain_that_fails_is_asked_again() -> None:
    keychain = Keychain(Given(CredentialRetrievalError(provider="x", error_msg="y"), Credentials(ACCESS, SECRET)))
    with pytest.raises(Unauthenticated, match="CredentialRetrievalError"):
        await keychain.keys()
    assert (await keychain.keys()).access_key == ACCESS
