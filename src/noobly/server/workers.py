"""``noobly serve --workers N``: one supervisor, and processes that each serve the whole API on the same port.

The kernel hands connections to the workers (SO_REUSEPORT). A worker that ends is replaced. SIGTERM to the supervisor
drains all of them; should the supervisor itself be killed, the workers notice and drain too. What the workers count is
shown as one total by whichever is asked (``noobly.measuring.totals``).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import cast

import msgspec

from noobly.core.errors import ConfigError, Unavailable
from noobly.core.journal import Journal
from noobly.core.meter import Gauges, Meter, Tallies
from noobly.core.scope import Environment
from noobly.measuring.exposition import Exposition
from noobly.measuring.totals import ENDS, WORKERS, Totals, fold, prepare
from noobly.server import serve as alone
from noobly.server.process import dedicate
from noobly.services import SERVICES
from noobly.settings import Settings, title

PUBLISHED_SECONDS = 1.0
"""How often a worker publishes what it has counted: what a killed one loses at most."""

_LOG = Journal("noobly.server")
_SHORT = 5.0
_MOST_SHORT = 5
_MARGIN = 5.0
_SIZE = 8


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told.

    Args:
        settings: What to serve and where.
        dev: No authentication, on loopback only.
        folder: The folder that workers share.
        name: The worker's name in it.
    """

    settings: Settings
    dev: bool
    folder: str
    name: str


def run(settings: Settings, *, dev: bool) -> None:
    """Serve until SIGTERM or SIGINT, with as many worker processes as the settings say.

    Args:
        settings: What to serve and where.
        dev: No authentication, on loopback only.

    Raises:
        ConfigError: The server would be open to others without a key, or workers would differ in what they keep.
        Unavailable: The address cannot be listened on, or workers end as soon as they begin.
    """
    if settings.server.workers == 1:
        alone.run(settings, dev=dev)
        return
    _check_shared(settings)
    held, settings = alone.claim(settings)
    with held:
        entrance = alone.door(settings, dev=dev)
        if entrance.extra:
            raise ConfigError(
                "several workers need an API key, for the printed link lets a browser into only one of them; "
                "create one with `noobly keys create`, set NOOBLY_API_KEYS, or use --dev"
            )
        folder = (Path(settings.server.data_dir) / "run" / str(settings.server.port)).absolute()
        with _only_here(folder):
            sys.stdout.write(entrance.words)
            sys.stdout.flush()
            asyncio.run(Supervisor(settings, folder, dev=dev).run())


def _check_shared(settings: Settings) -> None:
    accepted = {name.strip() for name in settings.server.per_worker.split(",") if name.strip()}
    found = {
        title(service, name): instance for service in SERVICES for name, instance in settings.instances(service).items()
    }
    if unknown := accepted - found.keys():
        known = ", ".join(found)
        raise ConfigError(f"[server] per_worker names {', '.join(sorted(unknown))}; the instances are {known}")
    private = [name for name, one in found.items() if one.url.partition(":")[0] == "memory" and name not in accepted]
    if private:
        raise ConfigError(
            f"{settings.server.workers} workers would each keep {', '.join(private)} in a memory of their own, and "
            "answers would depend on which one is asked; set a url that processes share, such as redis or sqlite, or "
            "name the instance in [server] per_worker if that is what you want"
        )


@contextmanager
def _only_here(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "supervisor.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Unavailable(f"another server runs with {folder}; give this one a data_dir of its own") from error
        prepare(folder)
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Supervisor:
    """Starts workers, replaces those that end, and ends all of them.

    Args:
        settings: What to serve and where.
        folder: The folder that workers share.
        dev: No authentication, on loopback only.
    """

    def __init__(self, settings: Settings, folder: Path, *, dev: bool) -> None:
        self._settings = settings
        self._folder = folder
        self._dev = dev
        self._stopping = asyncio.Event()
        self._running: set[asyncio.subprocess.Process] = set()
        self._meter = Meter()
        self._ends: dict[tuple[str, ...], float] = {}
        self._totals = Totals(folder, "supervisor")
        self._count = self._meter.declare(Gauges(WORKERS, 1)).labels()
        self._meter.declare(Tallies(ENDS, self._meter.cap)).readers.append(lambda: tuple(self._ends.items()))

    async def run(self) -> None:
        """Keep all workers until a signal, then drain them.

        Raises:
            Unavailable: Workers end as soon as they begin.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        slots = [asyncio.create_task(self._keep(slot)) for slot in range(self._settings.server.workers)]
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([*slots, stop], return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        await self._drain(slots)
        await stop
        for slot in slots:
            slot.result()

    async def _drain(self, slots: list[asyncio.Task[None]]) -> None:
        self._signal(signal.SIGTERM)
        _, late = await asyncio.wait(slots, timeout=self._settings.server.shutdown_grace + _MARGIN)
        if late:
            _LOG.warning("workers did not end and are killed", workers=len(late))
            self._signal(signal.SIGKILL)
            await asyncio.wait(late)

    def _signal(self, number: signal.Signals) -> None:
        for process in tuple(self._running):
            with suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, slot: int) -> None:
        short = 0
        generation = 0
        while not self._stopping.is_set():
            began = monotonic()
            generation += 1
            code = await self._once(f"worker-{slot}-{generation}")
            if self._stopping.is_set():
                return
            short = short + 1 if monotonic() - began < _SHORT else 0
            _LOG.warning("a worker ended and is replaced", slot=slot, code=code)
            if short >= _MOST_SHORT:
                raise Unavailable(f"a worker ended with code {code} {short} times in a row as soon as it began")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 0.1 * 2**short - 0.1)

    async def _once(self, name: str) -> int:
        """Run one worker to its end, and fold what it counted; return its exit code."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "noobly.server.workers", stdin=asyncio.subprocess.PIPE
        )
        self._running.add(process)
        try:
            await self._tell(process, name)
            await self._publish()
            code = await process.wait()
        finally:
            self._running.discard(process)
        if not self._stopping.is_set():
            self._ends[(str(code),)] = self._ends.get((str(code),), 0.0) + 1
        await asyncio.to_thread(fold, self._folder, name)
        await self._publish()
        return code

    async def _tell(self, process: asyncio.subprocess.Process, name: str) -> None:
        plan = Plan(settings=self._settings, dev=self._dev, folder=str(self._folder), name=name)
        content = msgspec.msgpack.encode(plan)
        told = cast(asyncio.StreamWriter, process.stdin)
        told.write(len(content).to_bytes(_SIZE) + content)
        with suppress(ConnectionError):  # It has ended already; its exit code will tell.
            await told.drain()
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)

    async def _publish(self) -> None:
        self._count.set(len(self._running))
        blocks = await Exposition(self._meter, others=None).own()
        await asyncio.to_thread(self._totals.publish, blocks, monotonic_ns())


def main() -> None:
    """Be a worker: read the plan from standard input, and serve until a signal or until the supervisor is gone."""
    size = int.from_bytes(sys.stdin.buffer.read(_SIZE))
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(size), type=Plan)
    dedicate()
    with asyncio.Runner(loop_factory=alone.loop_factory()) as runner:
        runner.run(_work(plan))


async def _work(plan: Plan) -> None:
    totals = Totals(Path(plan.folder), plan.name)
    environment = Environment(meter=Meter(peers=totals))
    stopping = asyncio.Event()
    entrance = alone.door(plan.settings, dev=plan.dev)._replace(words="")
    with _orphaned(stopping):
        async with _publishing(environment.meter, totals):
            await alone.serve(plan.settings, entrance, environment=environment, stopping=stopping)


@contextmanager
def _orphaned(stopping: asyncio.Event) -> Iterator[None]:
    """Set the event when standard input ends, which is when the supervisor does."""
    loop, source = asyncio.get_running_loop(), sys.stdin.fileno()

    def readable() -> None:
        if not os.read(source, 1):
            loop.remove_reader(source)
            stopping.set()

    loop.add_reader(source, readable)
    try:
        yield
    finally:
        loop.remove_reader(source)


@asynccontextmanager
async def _publishing(meter: Meter, totals: Totals) -> AsyncIterator[None]:
    """Publish what is counted, every second and once more at the end."""
    exposition = Exposition(meter)

    async def publish() -> None:
        taken = monotonic_ns()
        await asyncio.to_thread(totals.publish, await exposition.own(), taken)

    async def forever() -> None:
        while True:
            await publish()
            await asyncio.sleep(PUBLISHED_SECONDS)

    task = asyncio.create_task(forever(), name="publish metrics")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await publish()


if __name__ == "__main__":
    main()
