"""What runs in a process of its own: one attempt of a task, found by module and name."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec

from noobly.core.codec import converted
from noobly.core.errors import InvalidArgument
from noobly.working.context import JobInfo
from noobly.working.tasks import Rules, Task


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How the attempt ended, as it travels back.

    Args:
        result: What the function returned, as JSON.
        error: What it raised; empty for nothing.
        final: Trying again is useless.
        retry_after: Seconds to wait before that, where the error says so.
    """

    result: bytes = b""
    error: str = ""
    final: bool = False
    retry_after: float = 0.0


def attempt(module: str, name: str, data: bytes, info: bytes) -> bytes:
    """Run a task's function on its argument and return an ``Ending`` as JSON; nothing is raised.

    Args:
        module: The module that has the task.
        name: Its qualified name there.
        data: The argument as JSON.
        info: A ``JobInfo`` as JSON.
    """
    task: Task[..., object] | None = None
    try:
        task = _find(module, name)
        result = _run(task, data, msgspec.json.decode(info, type=JobInfo))
        ending = Ending(result=b"" if result is None else msgspec.json.encode(result))
    except Exception as error:  # noqa: BLE001 - a handler's error is an answer, and may be of a class nobody else knows
        final = task is not None and isinstance(error, (InvalidArgument, *task.rules.no_retry_on))
        after = getattr(error, "retry_after", None)
        ending = Ending(error=error_text(error), final=final, retry_after=after or 0.0)
    return msgspec.json.encode(ending)


def _find(module: str, name: str) -> Task[..., object]:
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if isinstance(found, Task):
        return found
    return Task(name, cast("Callable[..., object]", found), Rules())  # added by `Tasks.add`, not by the decorator


def _run(task: Task[..., object], data: bytes, info: JobInfo) -> object:
    argument = converted(msgspec.json.decode(data), task.argument, f"job {info.id}")
    given = (argument, info)[: task.wants_data + task.wants_job]
    if inspect.iscoroutinefunction(task.function):
        return asyncio.run(_awaited(cast("Awaitable[object]", task.function(*given))))
    return task.function(*given)


async def _awaited(result: Awaitable[object]) -> object:
    return await result


def error_text(error: BaseException) -> str:
    """Return what is kept of an error."""
    if isinstance(error, InvalidArgument):
        return f"{error.code}: {error.message}"
    return f"{type(error).__name__}: {error}"
