"""The client of servers of this suite."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack

import pytest

from noobly.clients.http import HttpCaller, HttpConfig
from noobly.core.scope import Environment


@pytest.mark.parametrize(("scheme", "read"), [("http", False), ("remote", False), ("https", True)])
async def test_certificates_are_read_where_some_are_shown(
    monkeypatch: pytest.MonkeyPatch, scheme: str, read: bool
) -> None:
    contexts: list[ssl.SSLContext] = []
    load = ssl.SSLContext.load_verify_locations

    def loaded(context: ssl.SSLContext, *args: object, **options: object) -> None:
        contexts.append(context)
        load(context, *args, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", loaded)
    async with AsyncExitStack() as stack:
        await HttpCaller(HttpConfig(scheme=scheme), Environment()).start(stack)
    assert bool(contexts) is read
    assert all(context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname for context in contexts)
