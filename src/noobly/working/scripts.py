"""Scripts: Python files of the activities folder that jobs run, ``run(data)`` of each, in a process besides."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path, PurePosixPath
from types import ModuleType

import msgspec

from noobly.core.errors import InvalidArgument, NotFound
from noobly.working.context import Report
from noobly.working.executing import Begun, Executor
from noobly.working.records import Held, Value
from noobly.working.tasks import Task

TASK = "noobly.script"
QUEUE = "noobly.scripts"
_LONGEST = 500


class Run(msgspec.Struct, frozen=True):
    """What a script's job carries.

    Args:
        path: The file, relative to the activities folder.
        data: What its ``run`` gets.
    """

    path: str
    data: Value = None


class Located(msgspec.Struct, frozen=True):
    """A script's job with the folder that its worker has."""

    folder: str
    path: str
    data: Value = None


def check(path: str) -> str:
    """Return a script's path, relative to the activities folder.

    Raises:
        InvalidArgument: It is absolute, leads out of the folder, or is no path.
    """
    if not isinstance(path, str):
        raise InvalidArgument(f"a script's path must be text, not {type(path).__name__}")
    parts = PurePosixPath(path).parts
    bad = not parts or len(path) > _LONGEST or "\0" in path or "\\" in path
    if bad or path.startswith("/") or ".." in parts or parts[0].endswith(":"):
        raise InvalidArgument(f"{path[:100]!r} is no path below the activities folder")
    return path


def locate(folder: str, path: str) -> Path:
    """Return the file of a script, which is inside of the folder also where links lead.

    Raises:
        InvalidArgument: It is outside.
        NotFound: There is no such file.
    """
    root = Path(folder).resolve()
    try:
        found = (root / check(path)).resolve()
    except (OSError, RuntimeError) as error:
        raise InvalidArgument(f"the links of the script {path!r} lead nowhere, or in a circle") from error
    if not found.is_relative_to(root):
        raise InvalidArgument(f"the script {path!r} leads out of the activities folder")
    if found.suffix != ".py" or not found.is_file():
        raise NotFound(f"there is no Python file {path!r} in the activities folder")
    return found


def run(located: Located) -> object:
    """Run a script; called in a process besides, which next runs another one."""
    file = locate(located.folder, located.path)
    with _beside(file, Path(located.folder)):
        function = getattr(_loaded(file, located.path), "run", None)
        if not callable(function):
            raise NotFound(f"the script {located.path!r} has no function run(data)")
        result = function(located.data)
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


@contextmanager
def _beside(file: Path, folder: Path) -> Iterator[None]:
    """Let a script import its neighbours; they are forgotten at its end, for they may change until the next one."""
    importlib.invalidate_caches()
    sys.path.insert(0, str(file.parent))
    try:
        yield
    finally:
        with suppress(ValueError):  # The script may have done it.
            sys.path.remove(str(file.parent))
        for name, module in list(sys.modules.items()):
            place = getattr(module, "__file__", None)
            if isinstance(place, str) and Path(place).is_relative_to(folder):
                del sys.modules[name]


def _loaded(file: Path, path: str) -> ModuleType:
    name = f"noobly_activity_{file.stem}"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise NotFound(f"the script {path!r} cannot be loaded")
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def _awaited(result: Awaitable[object]) -> object:
    return await result


class ScriptExecutor(Executor):
    """Runs scripts; only it knows the folder, so that no job can name another one.

    Args:
        concurrency: Scripts at once.
        report: Stores what handlers report.
        folder: The activities folder.
    """

    def __init__(self, concurrency: int, report: Report, folder: str) -> None:
        super().__init__(concurrency, report)
        self._folder = str(Path(folder).resolve())

    async def run(self, task: Task[..., object], args: Value, held: Held, begun: Begun) -> object:
        """See ``Executor.run``."""
        given = args if isinstance(args, Mapping) else {}
        await asyncio.to_thread(locate, self._folder, given.get("path", ""))  # Before a process is begun for nothing.
        return await super().run(task, {**given, "folder": self._folder}, held, begun)
