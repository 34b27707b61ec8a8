"""One true total of several processes: each publishes its metrics to a file, and whichever is asked adds all up.

A process writes its file before it answers, so that what it once showed is in there, and a counter never goes back
whichever process answers next. What a dead process counted is folded into one file, under a lock that readers share.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import msgspec

from noobly.core.errors import Internal
from noobly.core.lines import Block, Extra, Head, Line, Merge
from noobly.measuring.exposition import name_of

WORKERS = Head(name="noobly_workers", type="gauge", text="Worker processes that run.")
ENDS = Head(name="noobly_worker_ends", type="counter", text="Workers that ended and were replaced.", labels=("code",))

_ENDING = ".metrics"
_DEAD = "dead"
_LOCK = "fold.lock"
_COUNTED = frozenset({"counter", "histogram", "summary"})

_decoder = msgspec.msgpack.Decoder(list[Block])


class Totals:
    """The metrics of one process among those of its siblings.

    Args:
        folder: The folder that they share; only theirs.
        name: The process's own name in it, never used again by another one.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._path = folder / f"{name}{_ENDING}"
        self._latest = 0
        self._writing = Lock()

    def share(self, blocks: Sequence[Block], taken: int) -> list[Block]:
        """Publish this process's metrics and return those of all processes together; called in a thread.

        Args:
            blocks: The metrics.
            taken: When they were taken, in any steady unit.
        """
        self.publish(blocks, taken)
        with _locked(self._folder, fcntl.LOCK_SH):
            others = [_read(path) for path in sorted(self._folder.glob(f"*{_ENDING}")) if path != self._path]
        return merged([blocks, *others])

    def publish(self, blocks: Sequence[Block], taken: int) -> None:
        """Publish this process's metrics, unless later ones were published meanwhile; called in a thread."""
        with self._writing:
            if taken > self._latest:
                self._latest = taken
                _write(self._path, blocks)


def prepare(folder: Path) -> None:
    """Make the folder, without what an earlier run left in it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in [*folder.glob(f"*{_ENDING}"), *folder.glob(f"*{_ENDING}.new")]:
        path.unlink()


def fold(folder: Path, name: str) -> None:
    """Add what a process that has ended counted to the one file of the dead, and remove its own; called in a thread.

    Gauges end with their process, save those of which the latest value of any process counts.
    """
    path, dead = folder / f"{name}{_ENDING}", folder / f"{_DEAD}{_ENDING}"
    with _locked(folder, fcntl.LOCK_EX):
        (folder / f"{name}{_ENDING}.new").unlink(missing_ok=True)
        if path.exists():
            lasting = [block for block in _read(path) if _lasts(block.head)]
            _write(dead, merged([_read(dead), lasting]) if dead.exists() else merged([lasting]))
            path.unlink()


def merged(pages: Iterable[Sequence[Block]]) -> list[Block]:
    """Return families of several processes as one: gauges as each declares, all else summed.

    Quantiles of summaries are left out, for they cannot be added up, and so are times of creation.
    """
    sums: dict[str, _Sum] = {}
    for page in pages:
        for block in page:
            known = sums.setdefault(block.head.name, _Sum(block.head, foreign=block.foreign))
            if known.head.type == block.head.type:
                known.add(block)
    return [known.block() for known in sums.values()]


class _Sum:
    def __init__(self, head: Head, *, foreign: bool) -> None:
        self.head = head
        self._foreign = foreign
        self._values: dict[str, float] = {}
        self._extras: dict[str, Extra] = {}

    def add(self, block: Block) -> None:
        values, lines = self._values, _summable(block)
        if self.head.type in _COUNTED or self.head.merge is Merge.SUM:
            for start, value in lines:
                values[start] = values.get(start, 0.0) + value
        elif self.head.merge is Merge.MOSTRECENT:
            self._replace(lines, block)
        else:
            choose: Callable[[float, float], float] = max if self.head.merge is Merge.MAX else min
            for start, value in lines:
                values[start] = choose(values.get(start, value), value)
        self._extras |= block.extras

    def _replace(self, lines: Sequence[Line], block: Block) -> None:
        nothing = Extra()
        for start, value in lines:
            known = self._extras.get(start, nothing).at
            if start in self._values and block.extras.get(start, nothing).at < known:
                block.extras.pop(start, None)
            else:
                self._values[start] = value

    def block(self) -> Block:
        return Block(head=self.head, lines=[*self._values.items()], extras=self._extras, foreign=self._foreign)


def _summable(block: Block) -> Sequence[Line]:
    name = block.head.name
    if block.head.type == "summary":
        return [line for line in block.lines if name_of(line[0]) in (f"{name}_count", f"{name}_sum")]
    if block.foreign:
        return [line for line in block.lines if name_of(line[0]) != f"{name}_created"]
    return block.lines


def _lasts(head: Head) -> bool:
    return head.type in _COUNTED or head.merge is Merge.MOSTRECENT


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    with (folder / _LOCK).open("ab") as lock:
        fcntl.flock(lock, how)
        yield


def _read(path: Path) -> list[Block]:
    try:
        return _decoder.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise Internal(f"the metrics of another process in {path.name} are damaged: {error}") from error


def _write(path: Path, blocks: Sequence[Block]) -> None:
    # The folder is of one running server; after a power cut it is made anew, so nothing needs to be synced.
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(msgspec.msgpack.encode(blocks))
    fresh.replace(path)
