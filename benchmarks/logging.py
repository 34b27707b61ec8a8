"""A JSON line with five fields: what it costs its caller, lines per second end to end, and what a slow store costs."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

import loguru
import orjson
import structlog
from pythonjsonlogger.json import JsonFormatter

from benchmarks._rounds import Faster, Outcome, Session, Variant, Work, run
from noobly.core.scope import Environment, Policy, Scope
from noobly.logging import Logs, LogsOptions, open_logs
from noobly.logging.driver import Line
from noobly.logging.providers.memory import MemoryConfig, MemoryLogs

BURST = 64
"""Lines between two turns of the event loop, as a busy request writes them."""

WAITING = 4096
"""Lines after which a producer waits for the writer."""

WARM = 2000
"""Lines that pino writes before it is measured."""

PINO = """
// Nobody waits for the disk here; of pino's modes only one would.
require('fs').fsync = (file, done) => setImmediate(done)
const pino = require('pino')
const [file, mode] = process.argv.slice(2)
const to = mode === 'sync' ? { dest: file, sync: true } : { dest: file, sync: false, minLength: 4096 }
const log = pino(pino.destination(to))
for (let i = 0; i < WARM; i++) log.info({ user: 'ada' }, 'request finished')
process.stdin.setEncoding('utf8')
process.stdin.on('data', text => {
  const count = Number(text)
  const began = process.hrtime.bigint()
  let done = 0
  const some = () => {
    for (let i = 0; i < 1000 && done < count; i++, done++)
      log.info({ user: 'ada', method: 'GET', path: '/items/42', status: 200, ms: 12.5 }, 'request finished')
    if (done < count) return setImmediate(some)
    log.flush(() => process.stdout.write(String(Number(process.hrtime.bigint() - began) / 1e9) + '\\n'))
  }
  some()
})
""".replace("WARM", str(WARM))


def structlog_line(file: BinaryIO) -> Callable[[], None]:
    log = structlog.wrap_logger(
        structlog.BytesLogger(file),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    ).bind()

    def line() -> None:
        log.info("request finished", user="ada", method="GET", path="/items/42", status=200, ms=12.5)

    return line


def stdlib_line(file: TextIO) -> Callable[[], None]:
    handler = logging.StreamHandler(file)
    handler.setFormatter(JsonFormatter("{asctime}{levelname}{name}{message}", style="{"))
    log = logging.Logger("bench", logging.INFO)
    log.addHandler(handler)

    def line() -> None:
        log.info(
            "request finished",
            extra={"user": "ada", "method": "GET", "path": "/items/42", "status": 200, "ms": 12.5},
        )

    return line


def loguru_line(file: TextIO) -> Callable[[], None]:
    loguru.logger.remove()
    loguru.logger.add(file, serialize=True, level="INFO")
    log = loguru.logger

    def line() -> None:
        log.bind(user="ada", method="GET", path="/items/42", status=200, ms=12.5).info("request finished")

    return line


def noobly_line(logs: Logs) -> Callable[[], None]:
    def line() -> None:
        logs.info("request finished", user="ada", method="GET", path="/items/42", status=200, ms=12.5)

    return line


def bursts(line: Callable[[], None], file: BinaryIO | TextIO | Logs) -> Work:
    """Return work that logs in bursts, with a turn of the loop between them, and waits until the system has all lines.

    So that nothing is dropped, it waits for the writer before the queue might be half full.
    """

    async def work(count: int) -> int:
        for number in range(0, count, BURST):
            for _ in range(BURST):
                line()
            await asyncio.sleep(0)
            if isinstance(file, Logs) and number % WAITING == 0:
                await file.drain()
        if isinstance(file, Logs):
            await file.drain()
        else:
            file.flush()
        return -(-count // BURST) * BURST

    return work


class Tally:
    """Knows how many lines a variant was asked for, so that it can be seen whether its file has them all."""

    def __init__(self, path: Path, written: int = 0) -> None:
        self._path = path
        self._wanted = written

    def of(self, work: Work) -> Work:
        """Return the same work, counted."""

        async def counted(count: int) -> int:
            done = await work(count)
            self._wanted += done
            return done

        return counted

    def row(self, name: str) -> list[str]:
        """Return how many lines there should be, and how many are in the file and what was rotated away from it."""
        found = sum(_lines(path) for path in self._path.parent.glob(f"{self._path.name}*"))
        return [name, f"{self._wanted:,}", f"{found:,}"]


def _lines(path: Path) -> int:
    if path.suffix in (".lock", ".batches"):
        return 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(partial(file.read, 1 << 20), b""))


class Pino:
    """A node process that logs as many lines as it is told to, and says when they are written."""

    def __init__(self, folder: Path, mode: str) -> None:
        script = folder / "pino_lines.cjs"
        script.write_text(PINO)
        self._process = subprocess.Popen(
            ["node", str(script), str(folder / f"pino-{mode}.log"), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    async def work(self, count: int) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        await asyncio.to_thread(self._process.stdout.readline)
        return count

    def cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self._process.communicate("")


async def caller_cost(session: Session, folder: Path) -> None:
    """Time only the log calls themselves; what is left to the writer is done between the bursts."""
    with (
        (folder / "1.log").open("wb") as binary,
        (folder / "2.log").open("w") as stdlib,
        (folder / "3.log").open("w") as other,
    ):
        async with open_logs(f"file://{folder}/0.log") as logs:
            lines = {
                "noobly": noobly_line(logs),
                "structlog + orjson": structlog_line(binary),
                "stdlib + python-json-logger": stdlib_line(stdlib),
                "loguru serialize": loguru_line(other),
            }
            found: dict[str, list[float]] = {name: [] for name in lines}
            for turn in range(session.options.rounds + 1):
                for name, line in lines.items():
                    spent = await _calls(line)
                    await logs.flush()
                    if turn:
                        found[name].append(spent)
    base = found["structlog + orjson"]
    rows = [
        [name, *(f"{number:.2f}" for number in (statistics.median(took), min(took), max(took), _ratio(took, base)))]
        for name, took in found.items()
    ]
    ratio = _ratio(found["noobly"], base)
    goal = Outcome("caller's µs of noobly x structlog + orjson", f"{ratio:.2f}", "at most 0.5", ratio <= 0.5)
    session.add("what a line costs its caller", ["", "µs", "least", "most", "x structlog + orjson"], rows, [goal])


async def _calls(line: Callable[[], None]) -> float:
    """Return the microseconds that a log call takes."""
    spent = 0.0
    for _ in range(150):
        began = time.perf_counter()
        for _ in range(BURST):
            line()
        spent += time.perf_counter() - began
        await asyncio.sleep(0)
    return spent / (150 * BURST) * 1e6


def _ratio(took: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(took, base, strict=True))


class SlowLogs(MemoryLogs):
    """A store that takes 300 ms for a batch."""

    async def append(self, batch: str, lines: Sequence[Line], /) -> None:
        await asyncio.sleep(0.3)
        await super().append(batch, lines)


async def slow_store(session: Session) -> None:
    """Serve 1,000 requests a second, with and without a log line to a store that takes 300 ms, in turns."""
    scope = Scope(
        service="logging",
        instance="bench",
        provider="slow",
        policy=Policy(),
        environment=(environment := Environment()),
    )
    logs = Logs(SlowLogs(MemoryConfig(), environment), scope, LogsOptions())
    p99: dict[str, list[float]] = {"no log line": [], "a line to a slow store": []}
    try:
        for turn in range(session.options.rounds + 1):
            for took, line in zip(p99.values(), (None, noobly_line(logs)), strict=True):
                slowest = await _requests(line)
                if turn:
                    took.append(slowest)
    finally:
        await logs.close()
    none, slow = p99.values()
    added = statistics.median(one - other for one, other in zip(slow, none, strict=True))
    rows = [
        [name, f"{statistics.median(took):.3f}", f"{min(took):.3f}", f"{max(took):.3f}"] for name, took in p99.items()
    ]
    goal = Outcome("ms that it adds to p99, median of rounds", f"{added:.3f}", "less than 1", added < 1.0)
    session.add("1,000 requests a second, store of 300 ms", ["", "p99 ms", "least", "most"], rows, [goal])


async def _requests(line: Callable[[], None] | None, count: int = 1500, rate: float = 1000.0) -> float:
    """Return the 99th percentile of the milliseconds from when a request was due to its end."""
    took: list[float] = []

    async def request(due: float) -> None:
        await asyncio.sleep(0)
        if line is not None:
            line()
        sum(range(2000))
        took.append(time.perf_counter() - due)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(request(due))
    return sorted(took)[int(count * 0.99)] * 1000


async def end_to_end(session: Session, folder: Path) -> None:
    """Write to files until the system has all lines, and count what is in the files at the end."""
    tallies: dict[str, Tally] = {}

    def counted(name: str, path: str, work: Work, written: int = 0) -> Work:
        tallies[name] = Tally(folder / path, written)
        return tallies[name].of(work)

    with ExitStack() as stack:
        binary = stack.enter_context((folder / "structlog.log").open("wb"))
        stdlib = stack.enter_context((folder / "stdlib.log").open("w"))
        other = stack.enter_context((folder / "loguru.log").open("w"))
        pinos = {mode: stack.enter_context(closing(Pino(folder, mode))) for mode in ("sync", "async")}
        async with open_logs(f"file://{folder}/noobly.log") as logs:
            ours = counted("noobly", "noobly.log", bursts(noobly_line(logs), logs))
            structured = counted("structlog + orjson", "structlog.log", bursts(structlog_line(binary), binary))
            theirs = counted("stdlib + python-json-logger", "stdlib.log", bursts(stdlib_line(stdlib), stdlib))
            last = counted("loguru serialize", "loguru.log", bursts(loguru_line(other), other))
            node = {mode: counted(f"pino {mode}", f"pino-{mode}.log", pino.work, WARM) for mode, pino in pinos.items()}
            await session.compare(
                "end to end, to a file",
                [
                    Variant("noobly", ours),
                    Variant("structlog + orjson", structured),
                    Variant("stdlib + python-json-logger", theirs),
                    Variant("loguru serialize", last),
                    *(Variant(f"pino {mode}", node[mode], pino.cpu) for mode, pino in pinos.items()),
                ],
                base="pino async",
                goals=[Faster("noobly", "pino async", 1.0), Faster("noobly", "pino sync", 1.0)],
                note="Until the system has all lines, not the disk. Noobly also redacts, rotates and compresses.",
            )
    rows = [tally.row(name) for name, tally in tallies.items()]
    whole = all(logged == found for _, logged, found in rows)
    goal = Outcome("every line is in its file", "yes" if whole else "no", "yes", whole)
    session.add("lines of the comparison", ["", "logged", "in the file"], rows, [goal])


async def benchmark(session: Session) -> None:
    """Compare on a file in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        modules = os.environ.get("BENCH_NODE_MODULES")
        if modules:
            (folder / "node_modules").symlink_to(modules)
        else:
            await asyncio.to_thread(
                subprocess.run, ["npm", "install", "--silent", "--prefix", name, "pino"], check=True
            )
        await caller_cost(session, folder)
        await end_to_end(session, folder)
        await slow_store(session)


if __name__ == "__main__":
    run(benchmark, packages=("structlog", "orjson", "python-json-logger", "loguru", "msgspec"), rounds=7, seconds=0.4)
