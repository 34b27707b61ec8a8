"""Tasks: functions that jobs run, under a name, with how they are to be run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import cached_property
from types import CodeType
from typing import Generic, ParamSpec, TypedDict, TypeVar, Unpack, cast, get_type_hints

import msgspec

from noobly.core.checks import whole
from noobly.core.clock import Seconds, seconds
from noobly.core.config import unknown
from noobly.core.errors import ConfigError, NotFound
from noobly.working.driver import Bounds, Retrying
from noobly.working.lifespans import D, Lifespan, declared

P = ParamSpec("P")
R = TypeVar("R")

_RATE = re.compile(r"(\d{1,9})/(?:(\d{1,6}))?\s?(s|m|h|d)")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DEFAULT_QUEUE = "default"


class Execution(Enum):
    """Where a task's function runs."""

    ASYNC = "async"
    """As a task of the worker's event loop."""
    THREAD = "thread"
    """In a thread; it cannot be stopped from outside."""
    PROCESS = "process"
    """In a process besides, for CPU work; timeout and cancellation end the process."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How a task's jobs are run.

    Args:
        queue: The queue they wait in.
        retrying: How often they are tried.
        timeout: Seconds that one attempt may take; 0 for no limit.
        priority: 0 to 9.
        bounds: How fast they may run.
        unique: Jobs with equal arguments are added only once at a time.
        unique_for: Seconds for which that holds; 0 for until the job has ended.
        execution: Where the function runs.
        no_retry_on: Exceptions after which trying again is useless.
    """

    queue: str = DEFAULT_QUEUE
    retrying: Retrying = Retrying()
    timeout: float = 0.0
    priority: int = 0
    bounds: Bounds = Bounds()
    unique: bool = False
    unique_for: float = 0.0
    execution: Execution = Execution.ASYNC
    no_retry_on: tuple[type[BaseException], ...] = ()


class TaskOptions(TypedDict, total=False):
    """What ``task`` takes, by name; what is left out has the default.

    Args:
        queue: The queue of its jobs; ``default``, or its own name where it has a rate limit or a concurrency.
        retries: How often a job that failed is tried again; 0.
        backoff: Seconds of the first pause, 1; the next is twice as long, each drawn from [0, pause).
        backoff_cap: The longest pause, in seconds; 300.
        timeout: Seconds that one attempt may take; then it is stopped, and has failed. No limit.
        priority: 0 to 9; higher ones run first. 0.
        rate_limit: Jobs begun per time by all workers together: ``4/s``, ``100/m``, ``10/30s``.
        concurrency: Jobs running at once on all workers together.
        unique: A job whose arguments equal those of one that waits or runs is not added; a length of time instead of
            True says for how long that holds.
        execution: ``async``, ``thread`` or ``process``; by default ``async`` for async functions, else ``thread``.
        no_retry_on: Exceptions after which a job fails at once.
    """

    queue: str | None
    retries: int
    backoff: Seconds
    backoff_cap: Seconds
    timeout: Seconds | None
    priority: int
    rate_limit: str | None
    concurrency: int | None
    unique: bool | Seconds
    execution: str | None
    no_retry_on: Sequence[type[BaseException]]


class Task(Generic[P, R]):
    """A function under a name; calling it calls the function, here and now.

    Attributes:
        name: The name that jobs carry.
        function: The function.
        rules: How its jobs are run.
        argument: The type of its argument, to which a job's data is converted.
        wants_data: It has an argument for the data.
        wants_job: It has a second argument, for the job's context.
    """

    def __init__(self, name: str, function: Callable[P, R], rules: Rules) -> None:
        self.name = name
        self.function = function
        self.rules = rules
        parameters = inspect.signature(function).parameters.values()
        positional = [one for one in parameters if one.kind in _POSITIONAL]
        if named := [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]:
            raise ConfigError(f"task {name!r} wants {named[0]!r} by name; a task takes the data and the job, in order")
        if len(positional) > 2:
            raise ConfigError(f"task {name!r} takes {len(positional)} arguments; a task takes the data and the job")
        self.wants_data, self.wants_job = len(positional) > 0, len(positional) > 1
        self.argument: type[object] = _argument(name, function, positional)
        self.__name__ = getattr(function, "__name__", name)
        self.__doc__ = function.__doc__

    @cached_property
    def returns(self) -> type[object]:
        """The type that its function returns, as far as it says and the type is there when it is first asked for."""
        try:
            found: type[object] = get_type_hints(self.function).get("return", object)
        except NameError:
            return object
        return object if found is type(None) or inspect.isawaitable(found) else found

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, without a job."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _argument(name: str, function: Callable[..., object], positional: Sequence[inspect.Parameter]) -> type[object]:
    if not positional or positional[0].annotation is inspect.Parameter.empty:
        return object
    try:
        found: type[object] = get_type_hints(function)[positional[0].name]
    except NameError:
        return object  # A type that only exists for the checker: the data stays as it is.
    except TypeError as error:
        raise ConfigError(f"the annotations of task {name!r} cannot be read: {error}") from error
    try:
        fits = found is object or not isinstance(msgspec.inspect.type_info(found), msgspec.inspect.CustomType)
        msgspec.json.Decoder(found)
    except TypeError as error:
        raise ConfigError(f"task {name!r} takes {found!r}, to which no JSON can be converted: {error}") from error
    if not fits:
        raise ConfigError(f"task {name!r} takes {found!r}, to which no JSON can be converted")
    return found


class Tasks:
    """The tasks of one program: ``tasks = Tasks()``, then ``@tasks.task(retries=3)`` above a function."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., object]] = {}
        self._lifespans: dict[object, Lifespan] = {}

    def task(self, name: str | None = None, **options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]:
        """Return a decorator that makes a function a task. It gets a job's data and, if it wants it, the job.

        Args:
            name: The name; by default the function's.
            options: How its jobs are run; see ``TaskOptions``.

        Raises:
            ConfigError: An option is bad or unknown, or the name is taken.
        """
        if callable(name):
            raise ConfigError(f"write task() above {getattr(name, '__name__', name)!r}, with its parentheses")
        known = TaskOptions.__annotations__
        for option in options:
            if option not in known:
                unknown(option, known, "a task")
        bounds = _bounds(options.get("rate_limit"), options.get("concurrency"))

        def decorate(function: Callable[P, R]) -> Task[P, R]:
            title = name if name is not None else str(getattr(function, "__name__", ""))
            return self.add(Task(title, function, _rules(title, function, bounds, options)))

        return decorate

    def add(self, task: Task[P, R]) -> Task[P, R]:
        """Add a task.

        Raises:
            ConfigError: The name is bad or taken, or its queue has other bounds already.
        """
        _text(task.name, "a task's name")
        _text(task.rules.queue, f"the queue of task {task.name!r}")
        if task.name in self._tasks:
            raise ConfigError(f"there are two tasks named {task.name!r}")
        others = {one.rules.bounds for one in self._tasks.values() if one.rules.queue == task.rules.queue}
        if others and task.rules.bounds not in others:
            raise ConfigError(
                f"queue {task.rules.queue!r} has tasks with other limits than {task.name!r}; "
                "give a task with limits a queue of its own"
            )
        self._tasks[task.name] = cast("Task[..., object]", task)
        return task

    def lifespan(self, function: D) -> D:
        """Have each worker of these tasks open something before its first job, and close it after its last one.

        Written above an async generator function without arguments: what stands before its ``yield`` is the start,
        what follows the end. Several are entered in the order of their declaration, and left in reverse.

        Raises:
            ConfigError: It is no such function.
        """
        self._lifespans.setdefault(function, declared(function))
        return function

    @property
    def lifespans(self) -> tuple[Lifespan, ...]:
        """What each worker enters, in this order."""
        return tuple(self._lifespans.values())

    def include(self, other: Tasks) -> None:
        """Add all tasks of another table, and its lifespans."""
        for task in other:
            self.add(task)
        for span in other.lifespans:
            self.lifespan(span.function)

    def find(self, name: str) -> Task[..., object]:
        """Return a task.

        Raises:
            NotFound: There is none of that name.
        """
        if name in self._tasks:
            return self._tasks[name]
        raise NotFound(f"no task is named {name!r}; known are {', '.join(sorted(self._tasks)) or 'none'}")

    def bounds(self, queue: str) -> Bounds:
        """Return how fast a queue may be worked on."""
        return next((task.rules.bounds for task in self if task.rules.queue == queue), Bounds())

    def queues(self) -> tuple[str, ...]:
        """Return the queues of all tasks."""
        return tuple(dict.fromkeys(task.rules.queue for task in self))

    def codes(self) -> dict[CodeType, str]:
        """Return the tasks' names by the code of their functions."""
        functions = [(task.name, getattr(task.function, "__code__", None)) for task in self]
        return {code: name for name, code in functions if isinstance(code, CodeType)}

    def __iter__(self) -> Iterator[Task[..., object]]:
        return iter(list(self._tasks.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._tasks


def _text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise ConfigError(f"{what} is text, not {type(text).__name__}")
    if not 1 <= len(text) <= 200:
        raise ConfigError(f"{what} has 1 to 200 characters, not {len(text)}")


def _rules(name: str, function: Callable[..., object], bounds: Bounds, options: TaskOptions) -> Rules:
    unique, queue = options.get("unique", False), options.get("queue")
    return Rules(
        queue=queue if queue is not None else (name if bounds != Bounds() else DEFAULT_QUEUE),
        retrying=_retrying(name, options),
        timeout=seconds(options.get("timeout"), "timeout") or 0.0,
        priority=whole(options.get("priority", 0), "priority", 0, 9, error=ConfigError),
        bounds=bounds,
        unique=unique is not False,
        unique_for=0.0 if isinstance(unique, bool) else seconds(unique, "unique") or 0.0,
        execution=_execution(function, options.get("execution")),
        no_retry_on=_hopeless(options.get("no_retry_on", ())),
    )


def _hopeless(errors: object) -> tuple[type[BaseException], ...]:
    if not isinstance(errors, list | tuple | set | frozenset):
        raise ConfigError(f"no_retry_on is a list of exception classes, not {errors!r}")
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, BaseException)):
            raise ConfigError(f"no_retry_on lists exception classes, and {error!r} is none")
    return tuple(errors)


def _bounds(rate_limit: str | None, concurrency: int | None) -> Bounds:
    if concurrency is not None:
        whole(concurrency, "concurrency", 1, 100_000, error=ConfigError)
    if rate_limit is None:
        return Bounds(running=concurrency or 0)
    match = _RATE.fullmatch(rate_limit) if isinstance(rate_limit, str) else None
    if match is None or int(match[1]) == 0 or match[2] == "0":
        raise ConfigError(f"rate_limit must be a number per time, as 4/s, 100/m or 10/30s, not {rate_limit!r}")
    return Bounds(starts=int(match[1]), period=int(match[2] or 1) * _UNITS[match[3]], running=concurrency or 0)


def _retrying(name: str, options: TaskOptions) -> Retrying:
    retries = whole(options.get("retries", 0), f"retries of task {name!r}", 0, 10_000, error=ConfigError)
    base = seconds(options.get("backoff"), "backoff") or 1.0
    longest = seconds(options.get("backoff_cap"), "backoff_cap") or 300.0
    return Retrying(attempts=retries + 1, base=base, cap=max(base, longest))


def _execution(function: Callable[..., object], wanted: str | None) -> Execution:
    is_async = inspect.iscoroutinefunction(function)
    if wanted is None:
        return Execution.ASYNC if is_async else Execution.THREAD
    try:
        execution = Execution(wanted)
    except ValueError as error:
        raise ConfigError(f"execution must be async, thread or process, not {wanted!r}") from error
    if is_async and execution is Execution.THREAD:
        raise ConfigError("an async function runs on the event loop or in a process, not in a thread")
    if not is_async and execution is Execution.ASYNC:
        raise ConfigError("a plain function runs in a thread or in a process, for it would hold the event loop")
    return execution
