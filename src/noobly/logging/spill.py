"""Where records go that the store does not take: a file as JSON lines, else standard error. Everything here blocks.

Processes may share the file. Who writes to it or takes it away holds a lock on the file itself, and lets go at once;
who brings its lines back into the store holds one on a file beside it for as long as that takes (see ``returning``).
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

_PATIENCE = 0.2
"""Seconds to wait for another process that writes to the file; log calls themselves may be waiting."""
_BLOCK = 64 * 1024


class Spill:
    """Appends lines to a file of bounded size; never raises.

    Args:
        path: The file; None for standard error only. Its folder is made when it is needed.
        most: Its largest size in bytes.
    """

    def __init__(self, path: Path | None, most: int) -> None:
        self._path = path
        self._most = most

    def write(self, lines: Sequence[bytes]) -> str:
        """Keep lines, and return the file they are in; empty for standard error."""
        data = b"".join([line + b"\n" for line in lines])
        if self._path is not None and self._appended(self._path, data):
            return str(self._path)
        to_stderr(data)
        return ""

    def _appended(self, path: Path, data: bytes) -> bool:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with held(path, os.O_RDWR | os.O_CREAT) as file:
                return self._fitted(file, data)
        except OSError:
            return False

    def _fitted(self, file: int, data: bytes) -> bool:
        end = mend(file)
        if end + len(data) > self._most:
            return False
        try:
            written = os.pwrite(file, data, end)
        except OSError:
            written = 0
        if written < len(data):
            os.ftruncate(file, end)
        return written == len(data)


def path_of(option: str, instance: str) -> Path | None:
    """Return an instance's spill file: the one of the options, with the name of a named instance put in."""
    if not option:
        return None
    path = Path(option).absolute()
    return path if instance == "default" else path.with_name(f"{path.stem}.{quote(instance, safe='')}{path.suffix}")


@contextmanager
def held(path: Path, flags: int) -> Iterator[int]:
    """Open the file that has the name, with its lock held.

    Raises:
        OSError: It cannot be opened, or another process did not let go of it.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        file = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if _locked(file, until) and _has_name(path, file):
                yield file
                return
        finally:
            os.close(file)


def _locked(file: int, until: float) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if time.monotonic() > until:
            raise
        time.sleep(0.001)
        return False
    return True


def _has_name(path: Path, file: int) -> bool:
    # Between opening and locking, another process may have taken the file away.
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except FileNotFoundError:
        return False


def mend(file: int) -> int:
    """Take away a line that has no end, for its writer died over it; return where the file ends now."""
    size = end = os.fstat(file).st_size
    while end and os.pread(file, 1, end - 1) != b"\n":
        start = max(end - _BLOCK, 0)
        end = start + os.pread(file, end - start, start).rfind(b"\n") + 1
    if end < size:
        os.ftruncate(file, end)
    return end


def to_stderr(data: bytes) -> None:
    """Write text to standard error, as far as there is one."""
    try:
        sys.stderr.write(data.decode("utf-8", "replace"))
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # Standard error is closed or was taken away: there is nobody left to tell.
