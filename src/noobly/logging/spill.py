"""Where records go that the store does not take: a file as JSON lines, else standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path


class Spill:
    """Appends lines to a file of bounded size; never raises.

    Args:
        path: The file; empty for standard error only. Its folder is made when it is needed.
        most: Its largest size in bytes.
    """

    def __init__(self, path: str, most: int) -> None:
        self._path = Path(path) if path else None
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
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            return os.fstat(file).st_size + len(data) <= self._most and os.write(file, data) == len(data)
        except OSError:
            return False
        finally:
            os.close(file)


def to_stderr(data: bytes) -> None:
    """Write text to standard error, as far as there is one."""
    try:
        sys.stderr.write(data.decode("utf-8", "replace"))
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # Standard error is closed or was taken away: there is nobody left to tell.
