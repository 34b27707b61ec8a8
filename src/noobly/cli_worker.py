"""``noobly worker``: run the jobs of a program's tasks until SIGTERM."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from noobly.cli_reach import DEFAULT, Place, reach, run
from noobly.cli_show import complain, exit_code
from noobly.core.errors import ConfigError, MissingDependency, NooblyError

if TYPE_CHECKING:
    from noobly.layers.opening import Request
    from noobly.working import Jobs, Tasks

_LEAVES = 2.0
"""Seconds that a process has to end by itself once its worker has."""


def worker(
    tasks: Annotated[str, Parameter(help="Where the tasks are, as MODULE:NAME, such as shop.jobs:tasks.")],
    /,
    *,
    queues: Annotated[list[str] | None, Parameter(help="The queues to serve; by default those of all tasks.")] = None,
    concurrency: Annotated[int, Parameter(help="Jobs that run at once.")] = 10,
    grace: Annotated[float, Parameter(help="Seconds that running jobs have at the end.")] = 30.0,
    metrics: Annotated[
        str | None, Parameter(help="Answer /metrics and /health/live on HOST:PORT; PORT alone is on this machine.")
    ] = None,
    place: Place = DEFAULT,
    dev: Annotated[bool, Parameter(help="Begin anew whenever a Python file below this folder changes.")] = False,
) -> None:
    """Run the jobs of a program's tasks until SIGTERM or Ctrl-C; a second one takes the grace away."""
    request = reach("working", place)
    plan = Plan(where=tasks, queues=queues, concurrency=concurrency, grace=grace, metrics=_address(metrics))
    if dev:
        _reloading(plan, request)
    else:
        serve(plan, request)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a worker process does.

    Args:
        where: The tasks, as ``MODULE:NAME``.
        queues: The queues; None for those of all tasks.
        concurrency: Jobs that run at once.
        grace: Seconds that running jobs have at the end.
        metrics: The host and port of the metrics; None for none.
    """

    where: str
    queues: list[str] | None
    concurrency: int
    grace: float
    metrics: tuple[str, int] | None


def serve(plan: Plan, request: Request) -> None:
    """Run jobs until a signal; running ones have the plan's grace then.

    Args:
        plan: What to do.
        request: How to reach the jobs.
    """
    found = load(plan.where)
    _log_to_stderr()

    async def work(jobs: Jobs) -> None:
        async with _measured(jobs, plan.metrics):
            served = ", ".join(plan.queues or found.queues())
            sys.stderr.write(f"noobly: working on {served} with {plan.concurrency} jobs at once; Ctrl-C ends it\n")
            await _until_stopped(
                jobs.work(queues=plan.queues, concurrency=plan.concurrency, grace=plan.grace, tasks=found)
            )

    run("working", request, work)


async def _until_stopped(work: Coroutine[object, object, None]) -> None:
    working = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    try:
        await working
    except asyncio.CancelledError:
        sys.stderr.write("noobly: the worker has ended\n")
        _leave_soon(None)
    except Exception as error:
        _leave_soon(error)
        raise


def _leave_soon(error: Exception | None) -> None:
    """End the process in a moment, though threads and handlers that nothing can stop run on: Python waits for them."""

    def leave() -> None:
        if isinstance(error, NooblyError):
            complain(error)
        elif error is not None:
            traceback.print_exception(error)
        sys.stderr.write("noobly: some handlers run on; they are left\n")
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code(error))

    timer = threading.Timer(_LEAVES, leave)
    timer.daemon = True
    timer.start()


@asynccontextmanager
async def _measured(jobs: Jobs, where: tuple[str, int] | None) -> AsyncIterator[None]:
    if where is None:
        yield
        return
    from noobly.server.beside import beside

    async with beside(jobs.scope.environment.meter, *where) as base:
        sys.stderr.write(f"noobly: metrics are at {base}/metrics\n")
        yield


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"--metrics takes HOST:PORT or PORT, such as 9100, not {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def _log_to_stderr() -> None:
    """Show what the suite and the program log, unless the program has set up logging itself."""
    if logging.root.handlers:
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # It would tell of each call to a server.


def load(where: str) -> Tasks:
    """Return the tasks that ``MODULE:NAME`` names; the folder one is in is searched first.

    Raises:
        ConfigError: There is no such module, or no tasks of that name in it.
    """
    from noobly.working import Tasks

    module, _, name = where.partition(":")
    if not module or not name:
        raise ConfigError(f"the tasks are named as MODULE:NAME, such as shop.jobs:tasks, not {where!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise ConfigError(f"there is no module {module!r} here or on the path of Python") from error
    if not hasattr(loaded, name):
        raise ConfigError(f"the module {module!r} has no {name!r}")
    found = getattr(loaded, name)
    if not isinstance(found, Tasks):
        raise ConfigError(f"{where!r} is no noobly.working.Tasks but {type(found).__name__}")
    if not found.queues():
        raise ConfigError(f"there are no tasks in {where!r}")
    return found


def _reloading(plan: Plan, request: Request) -> None:
    try:
        from watchfiles import PythonFilter, run_process
    except ImportError as error:
        raise MissingDependency("--dev watches files: pip install 'noobly[reload]'") from error
    arguments = (replace(plan, grace=min(plan.grace, 2.0)), request)
    run_process(Path.cwd(), target=cast("type[object]", _serve_once), args=arguments, watch_filter=PythonFilter())


def _serve_once(plan: Plan, request: Request) -> None:
    """Serve until a file has changed; what is wrong with the tasks may be mended meanwhile."""
    try:
        serve(plan, request)
    except NooblyError as error:
        complain(error)
