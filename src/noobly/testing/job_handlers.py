"""Tasks of the working suite that run in processes of their own, which find them by their names here."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from noobly.core.errors import RateLimited
from noobly.working import JobInfo, Tasks

tasks = Tasks()


class Order(msgspec.Struct):
    """An argument with a type."""

    number: int
    lines: list[str]


class Hopeless(Exception):
    """What is not to be tried again."""


@tasks.task(execution="process", retries=3)
def twice(order: Order) -> int:
    """Return twice the order's number."""
    return order.number * 2


@tasks.task(execution="process")
async def awaited(number: int) -> int:
    """Return a number, from a loop of its own."""
    return number


@tasks.task(execution="process")
def about(_: None, info: JobInfo) -> dict[str, object]:
    """Return what the handler knows of its job."""
    known: dict[str, object] = msgspec.to_builtins(info)
    return known | {"pid": os.getpid()}


@tasks.task(execution="process")
def raising(_: None) -> None:
    """Fail."""
    raise ValueError("no luck")


@tasks.task(execution="process", retries=5, backoff=600, no_retry_on=[Hopeless])
def hopeless(_: None) -> None:
    """Fail for good."""
    raise Hopeless("give up")


@tasks.task(execution="process", retries=5)
def limited(after: float) -> None:
    """Fail, and say when it is worth another try."""
    raise RateLimited("slow down", retry_after=after)


@tasks.task(execution="process")
def unspeakable(_: None) -> object:
    """Return what JSON cannot carry."""
    return object()


@tasks.task(execution="process")
def stuck(path: str) -> None:
    """Write the process's number into a file, then never end."""
    Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(1)


@tasks.task(execution="process")
def busy(seconds: float) -> int:
    """Use a processor for so long."""
    until, turns = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        turns += 1
    return turns
