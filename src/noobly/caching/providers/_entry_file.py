"""One cache entry in one file: where it stands and what is in it.

A file is a header, the key and the data. Anything else under an entry's name, such as a torn or foreign file, is no
entry. Names are hashes, so that no text of a user ever becomes part of a path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from noobly.core.clock import fresh_id

SHARDS = "0123456789abcdef"
TEMPORARY = "tmp-"

_BLOCK = 4096
_LONGEST = 4 * 2048
"""Bytes of the longest key, 2,048 characters, in UTF-8."""
_TOUCH = 60.0
"""Seconds within which reading an entry again does not change its time of last use."""

_FIELDS = struct.Struct(">4sdHQ")
"""Magic and version, wall-clock time of the end (infinity for none), bytes of the key, bytes of the data."""
_SUM = struct.Struct(">I")
_HEAD = _FIELDS.size + _SUM.size
_MAGIC = b"NBC\x01"

_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW
_NO_ENTRY = frozenset({errno.ENOENT, errno.ELOOP, errno.ENOTDIR})


class Place(NamedTuple):
    """Where a key's entry stands: the name of its folder and of its file."""

    folder: str
    name: str

    @property
    def shard(self) -> str:
        """The part of the folder that its lock is named for."""
        return self.name[0]


class Entry(NamedTuple):
    """What a file holds; ``end`` is a wall-clock time, infinity for none."""

    key: str
    data: bytes
    end: float


def place(key: str) -> Place:
    """Return where the entry of a key stands."""
    name = hashlib.sha256(key.encode()).hexdigest()
    top, colon, _ = key.partition(":")
    return Place(f"{_group(top) if colon else 'none'}-{name[0]}", name)


def folders(namespace: str) -> list[str]:
    """Return the folders of all keys that begin with ``namespace:``; others may have keys there too."""
    group = _group(namespace.partition(":")[0])
    return [f"{group}-{shard}" for shard in SHARDS]


def is_entry(name: str) -> bool:
    """Return whether a name is one that ``place`` gives to files."""
    return len(name) == 64


def is_folder(name: str) -> bool:
    """Return whether a name is one that ``place`` gives to folders."""
    group, _, shard = name.rpartition("-")
    return (group == "none" or len(group) == 32) and len(shard) == 1 and shard in SHARDS


def _group(top: str) -> str:
    return hashlib.sha256(top.encode()).hexdigest()[:32]


def cost(size: int) -> int:
    """Return the bytes of disk a file of some size takes, in whole blocks of 4 KiB."""
    return -(-size // _BLOCK) * _BLOCK


def read(folder: int, key: str, name: str, now: Callable[[], float]) -> Entry | None:
    """Return the entry of a key, ended or not, and note that it was used; None if the file holds no such entry.

    Args:
        folder: The folder's descriptor.
        key: The key.
        name: The file's name.
        now: Where the wall-clock time is read.
    """
    found = _open(folder, name)
    if found is None:
        return None
    with os.fdopen(found, "rb") as file:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            return None
        entry = _unpack(file.read())
        if entry is None or entry.key != key:
            return None
        if now() - status.st_mtime >= _TOUCH:
            _use(found, now())
        return entry


def read_head(folder: int, name: str) -> Entry | None:
    """Return an entry without its data, for listings; None if the file holds no entry of full length."""
    found = _open(folder, name)
    if found is None:
        return None
    try:
        status = os.fstat(found)
        head = os.read(found, _HEAD + _LONGEST) if stat.S_ISREG(status.st_mode) else b""
    finally:
        os.close(found)
    key, end = _split(head, status.st_size)
    if key is None or hashlib.sha256(key).hexdigest() != name:
        return None
    return Entry(key.decode(), b"", end)


def write(folder: int, name: str, entry: Entry, now: float) -> int:
    """Put a file in place in one step and return its size.

    It is not flushed to the disk: after a power failure a file may be torn, which its checksum tells, and a cache may
    lose entries.
    """
    key, temporary = entry.key.encode(), f"{TEMPORARY}{fresh_id()}"
    fields = _FIELDS.pack(_MAGIC, entry.end, len(key), len(entry.data))
    head = fields + _SUM.pack(_checksum(fields, key, entry.data)) + key
    made = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=folder)
    try:
        with os.fdopen(made, "wb") as file:
            file.write(head)
            file.write(entry.data)
            file.flush()
            _use(made, now)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise
    return len(head) + len(entry.data)


def size_of(folder: int, name: str) -> int | None:
    """Return the size of a file, or None if there is none."""
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    return None


def open_folder(path: str) -> int | None:
    """Return the descriptor of a folder, or None if there is none; a symbolic link is none."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
    except OSError as error:
        if error.errno in _NO_ENTRY:
            return None
        raise


def _open(folder: int, name: str) -> int | None:
    try:
        # Without O_NONBLOCK a foreign pipe of that name would hold the thread for ever.
        return os.open(name, os.O_RDONLY | os.O_NONBLOCK | _OPEN, dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_ENTRY:
            return None
        raise


def _use(file: int, now: float) -> None:
    # Another account's file, or a read-only disk: the entry is then only evicted earlier.
    with suppress(PermissionError):
        os.utime(file, (now, now))


def _checksum(fields: bytes, key: bytes, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(key, zlib.crc32(fields)))


def _split(head: bytes, size: int) -> tuple[bytes | None, float]:
    """Return the bytes of the key and the end from the beginning of a file of some size."""
    if len(head) < _HEAD:
        return None, 0.0
    magic, end, key_size, data_size = _FIELDS.unpack_from(head)
    if magic != _MAGIC or size != _HEAD + key_size + data_size:
        return None, 0.0
    return head[_HEAD : _HEAD + key_size], end


def _unpack(blob: bytes) -> Entry | None:
    key, end = _split(blob, len(blob))
    if key is None:
        return None
    data = blob[_HEAD + len(key) :]
    if _SUM.unpack_from(blob, _FIELDS.size)[0] != _checksum(blob[: _FIELDS.size], key, data):
        return None
    return Entry(key.decode(), data, end)
