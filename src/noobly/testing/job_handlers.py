"""Tasks of the working suite that run in processes of their own, which find them by their names here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from noobly.core.errors import RateLimited
from noobly.core.following import origin
from noobly.working import ProcessContext, Tasks

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
def origins() -> list[str]:
    """Return the correlation id and the trace."""
    return list(origin())


@tasks.task(execution="process")
async def origins_later() -> list[str]:
    """Return the correlation id and the trace, from a loop of its own."""
    return list(origin())


@tasks.task(execution="process")
def about(_: None, job: ProcessContext) -> dict[str, object]:
    """Return what the handler knows of its job."""
    known: dict[str, object] = msgspec.to_builtins(job.info)
    return known | {"pid": os.getpid()}


@tasks.task(execution="process")
def reporting(_: None, job: ProcessContext) -> list[object]:
    """Report."""
    job.progress({"percent": 50})
    job.log("one", "two")
    return [job.id, job.queue, job.task, job.attempt, job.last, job.key, job.cancelled]


@tasks.task(execution="process")
def unreportable(_: None, job: ProcessContext) -> None:
    """Report what JSON cannot carry."""
    job.progress(object())


@tasks.task(execution="process")
def leaving(_: None) -> None:
    """Leave, as programs do."""
    sys.exit(3)


@tasks.task(execution="process")
def dying(code: int) -> None:
    """End the process: by an exit code, or by a signal where it is less than 0."""
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


@tasks.task(execution="process")
def printing(text: str) -> str:
    """Use the standard streams, here and in a program."""
    print(text, flush=True)  # noqa: T201 - this is what it is about
    read = subprocess.run(["cat"], capture_output=True, check=True).stdout.decode()
    subprocess.run(["echo", text], check=True)
    return read


@tasks.task(execution="process")
def forking(_: None) -> str:
    """Fork; the fork comes back as well."""
    own = os.getpid()
    if child := os.fork():
        os.waitpid(child, 0)
    return "parent" if os.getpid() == own else "fork"


@tasks.task(execution="process")
def parenting(path: str) -> None:
    """Begin a program, write its number into a file, and wait for its end."""
    with subprocess.Popen(["sleep", "600"]) as program:
        Path(path).write_text(str(program.pid))


@tasks.task(execution="process", retries=5)
def misleading(_: None) -> None:
    """Fail with a pause that is no number."""
    error = ValueError("no luck")
    error.retry_after = "120"  # type: ignore[attr-defined]
    raise error


class Unspoken(Exception):
    """What cannot tell what it is."""

    def __str__(self) -> str:
        raise RuntimeError


@tasks.task(execution="process")
def speechless(_: None) -> None:
    """Fail without a text."""
    raise Unspoken


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
