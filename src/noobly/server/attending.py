"""Calls that wait for something: they end when their client leaves, so that nothing is handed to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")


async def attended(call: Awaitable[T], receive: Receive) -> T:
    """Return what a call returns, and cancel it when its client leaves.

    Args:
        call: The call.
        receive: Where the request comes from; its body has been read.

    Raises:
        ClientDisconnect: The client has left.
    """
    working = asyncio.ensure_future(call)
    leaving = asyncio.ensure_future(left(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def left(receive: Receive) -> None:
    """Return when the client of a request has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
