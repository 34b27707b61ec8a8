"""A stand-in for the calls to AWS that answers from a script."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from noobly.clients.aws import AwsError


class Scripted:
    """Answers calls from a script: an answer, or the code of a refusal; the last one for ever."""

    def __init__(self, **script: list[object]) -> None:
        self.script = script
        self.calls: list[str] = []
        self.requests: list[Any] = []

    async def call(self, operation: str, request: msgspec.Struct, answer: type[object]) -> object:
        self.calls.append(operation)
        self.requests.append(request)
        await asyncio.sleep(0)
        left = self.script[operation]
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, str):
            raise AwsError(found)
        return msgspec.convert(found, answer)


def scripted(**script: list[object]) -> Any:
    """Return a stand-in for the calls to AWS."""
    return Scripted(**script)
