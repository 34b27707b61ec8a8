"""``noobly worker``: run the jobs of a program's tasks until SIGTERM."""

from __future__ import annotations

import asyncio
import importlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from noobly.cli_reach import DEFAULT, Place, reach, run
from noobly.cli_show import complain
from noobly.core.errors import ConfigError, MissingDependency, NooblyError

if TYPE_CHECKING:
    from noobly.layers.opening import Request
    from noobly.working import Jobs, Tasks


def worker(
    tasks: Annotated[str, Parameter(help="Where the tasks are, as MODULE:NAME, such as shop.jobs:tasks.")],
    /,
    *,
    queues: Annotated[list[str] | None, Parameter(help="The queues to serve; by default those of all tasks.")] = None,
    concurrency: Annotated[int, Parameter(help="Jobs that run at once.")] = 10,
    grace: Annotated[float, Parameter(help="Seconds that running jobs have at the end.")] = 30.0,
    place: Place = DEFAULT,
    dev: Annotated[bool, Parameter(help="Begin anew whenever a Python file below this folder changes.")] = False,
) -> None:
    """Run the jobs of a program's tasks until SIGTERM or Ctrl-C."""
    request = reach("working", place)
    if dev:
        _reloading(tasks, request, queues, concurrency, grace)
    else:
        serve(tasks, request, queues, concurrency, grace)


def serve(where: str, request: Request, queues: list[str] | None, concurrency: int, grace: float) -> None:
    """Run jobs until a signal; running ones have ``grace`` seconds then.

    Args:
        where: The tasks, as ``MODULE:NAME``.
        request: How to reach the jobs.
        queues: The queues; None for those of all tasks.
        concurrency: Jobs that run at once.
        grace: Seconds.
    """
    found = load(where)

    async def work(jobs: Jobs) -> None:
        served = ", ".join(queues or found.queues())
        sys.stderr.write(f"noobly: working on {served} with {concurrency} jobs at once; Ctrl-C ends it\n")
        working = asyncio.ensure_future(jobs.work(queues=queues, concurrency=concurrency, grace=grace, tasks=found))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, working.cancel)
        try:
            await working
        except asyncio.CancelledError:
            sys.stderr.write("noobly: the worker has ended\n")

    run("working", request, work)


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


def _reloading(where: str, request: Request, queues: list[str] | None, concurrency: int, grace: float) -> None:
    try:
        from watchfiles import PythonFilter, run_process
    except ImportError as error:
        raise MissingDependency("--dev watches files: pip install 'noobly[reload]'") from error
    arguments = (where, request, queues, concurrency, min(grace, 2.0))
    run_process(Path.cwd(), target=cast("type[object]", _serve_once), args=arguments, watch_filter=PythonFilter())


def _serve_once(where: str, request: Request, queues: list[str] | None, concurrency: int, grace: float) -> None:
    """Serve until a file has changed; what is wrong with the tasks may be mended meanwhile."""
    try:
        serve(where, request, queues, concurrency, grace)
    except NooblyError as error:
        complain(error)
