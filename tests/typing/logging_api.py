"""What mypy must know of the public API; checked by ``scripts/check``, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import assert_type

from noobly.core.remote import Remote, remote
from noobly.core.scope import Scope
from noobly.core.streams import Skipped
from noobly.logging import Count, Entry, Logger, LogPage, Logs, Record, StructlogSink, bind, carried, open_logs


def calls(logs: Logs) -> None:
    logs.info("paid", order=7, anything=object())
    logs.exception("failed", error=ValueError("bad"))
    assert_type(logs.bind(user="ada"), Logger)
    assert_type(logs.named("shop").bind(order=7), Logger)
    logs.info(7)  # type: ignore[arg-type]  # a message is text
    logs.warn(message="paid")  # type: ignore[call-arg]  # so that an attribute may be called message


async def reads(logs: Logs) -> None:
    assert_type(await logs.search("paid", at_least="warn", since=datetime.now(UTC), attributes={"a": 1}), LogPage)
    assert_type((await logs.search()).records, list[Record])
    assert_type(logs.search_all("paid"), AsyncIterator[Record])
    assert_type(logs.tail("paid", attributes=["order=7"]), AsyncGenerator[Record | Skipped])
    assert_type(await logs.counts(bucket=60), list[Count])
    assert_type(await logs.level("shop"), str)
    await logs.search(since=1)  # type: ignore[arg-type]  # times have a zone


async def writes(logs: Logs) -> None:
    assert_type(await logs.write([Entry(message="from elsewhere")]), int)
    assert_type(await logs.flush(), bool)
    assert_type(await logs.drain(1.0), bool)
    await logs.set_level("debug", logger="shop")
    await logs.set_level("loud")  # type: ignore[arg-type]  # there is no such level


async def opens() -> None:
    async with open_logs("http://localhost:11000") as logs:
        assert_type(logs, Logs)


def remotes(calls: Remote, scope: Scope, logs: Logs) -> None:
    assert_type(remote(Logs)(calls, scope, logs.options), Logs)


def sources(logs: Logs) -> None:
    assert_type(logs.captured(), AbstractContextManager[None])
    assert_type(logs.structlog(), StructlogSink)


@carried
def in_a_thread(number: int) -> str:
    with bind(number=number):
        return str(number)


assert_type(in_a_thread(1), str)
