"""AWS credentials from botocore's chain: environment, files, containers, instances, roles and single sign-on.

botocore asks files, processes and servers with blocking calls, so it does that in threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

from botocore import exceptions as botocore
from botocore.credentials import RefreshableCredentials

from noobly.core.errors import NooblyError, Unauthenticated, Unavailable

_LEAST = 60.0
"""Seconds credentials must still be good for, to be used while new ones are fetched."""

_TALKATIVE = ("botocore.auth", "botocore.endpoint", "botocore.parsers")
"""The loggers that write tokens and keys when their level is DEBUG."""


class Keys(NamedTuple):
    """Credentials at one moment; shows no secret."""

    access_key: str
    secret_key: str
    token: str | None

    def __repr__(self) -> str:
        return "Keys(***)"


class Source(Protocol):
    """What botocore calls credentials."""

    def get_frozen_credentials(self) -> object:
        """Return the keys, renewed first where that is needed."""
        ...


class Chain(Protocol):
    """What looks credentials up: botocore's session."""

    def get_credentials(self) -> Source | None:
        """Return the first credentials that the chain finds."""
        ...


class Keychain:
    """The keys to sign with, renewed before they expire.

    Args:
        renew: Returns a chain that has looked nothing up yet.
    """

    def __init__(self, renew: Callable[[], Chain]) -> None:
        self._renew = renew
        self._source: Source | None = None
        self._keys: Keys | None = None
        self._renewal: asyncio.Task[Keys] | None = None
        self._pressing = False

    async def keys(self) -> Keys:
        """Return keys that are good now; while those at hand are, nobody waits for new ones.

        Raises:
            Unauthenticated: There are none, or they cannot be renewed.
            Unavailable: Who gives them out does not answer.
        """
        if self._renewal is None or self._renewal.done():
            if self._keys is not None and not self._due(None):
                return self._keys
            self._pressing = self._due(_LEAST)  # Asked now, for the renewal changes what is asked.
            self._renewal = asyncio.get_running_loop().create_task(self._fetch(), name="AWS credentials")
            self._renewal.add_done_callback(_noticed)
        if self._keys is not None and not self._pressing and not self._due(_LEAST):
            return self._keys
        return await asyncio.shield(self._renewal)

    def forget(self) -> None:
        """Look the whole chain up again at the next call, for the service says that the keys have expired."""
        self._source = self._keys = None

    async def close(self) -> None:
        """Wait for a renewal that is under way; its thread cannot be stopped."""
        if self._renewal is not None:
            await asyncio.gather(self._renewal, return_exceptions=True)

    def _due(self, within: float | None) -> bool:
        source = self._source
        return isinstance(source, RefreshableCredentials) and bool(source.refresh_needed(within))

    async def _fetch(self) -> Keys:
        try:
            self._source, keys = await asyncio.to_thread(self._look_up, self._source)
        except NooblyError:
            raise
        except Exception as error:
            raise _failure(error) from error
        self._keys = keys
        return keys

    def _look_up(self, source: Source | None) -> tuple[Source, Keys]:
        source = source or self._renew().get_credentials()
        if source is None:
            raise Unauthenticated(
                "no AWS credentials were found; set AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
                " or run where a role is given"
            )
        frozen = cast(Keys, source.get_frozen_credentials())
        return source, Keys(frozen.access_key, frozen.secret_key, frozen.token)


def _noticed(task: asyncio.Task[Keys]) -> None:
    if not task.cancelled():
        task.exception()  # Who waits for the task gets it; a failure in advance is tried again at the next call.


def _failure(error: Exception) -> NooblyError:
    """Return the error for a failed look-up; its text stays in the cause, for a program may have written into it."""
    if isinstance(error, botocore.ConnectionError | botocore.ReadTimeoutError | OSError):
        return Unavailable(f"who gives out the AWS credentials cannot be reached: {type(error).__name__}")
    kind = (
        type(error).__name__
        if isinstance(error, botocore.BotoCoreError)
        else f"an error of kind {type(error).__name__}"
    )
    return Unauthenticated(f"the AWS credentials cannot be had: {kind}; the cause says more")


class _Discreet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG


_discreet = _Discreet()


def keep_discreet() -> None:
    """Let no logger of botocore write secrets, whatever its level."""
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_discreet)
