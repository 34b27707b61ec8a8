"""The file provider: what it keeps where, and what it does with damaged files and links."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from noobly.caching import Can, open_cache
from noobly.caching.providers.file import FileCache
from noobly.core.errors import ConfigError, PermissionDenied, Unavailable
from noobly.testing import FakeClock

from .file_cache import entries, found, listed, opened


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[FileCache]:
    async with opened(tmp_path / "cache") as found:
        yield found


async def test_urls_and_options_name_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, options in ((f"file://{tmp_path}/a%20b", {}), ("file:relative/c", {}), ("file:", {"path": "d"})):
        async with open_cache(url, require=[Can.LIST], **options) as cache:
            await cache.put("user:1", {"name": "Ada"}, ttl=60, tags=["users"])
            assert await cache.get("user:1") == {"name": "Ada"}
            await cache.invalidate(["users"])
            assert await cache.get("user:1") is None
            assert await cache.increment("visits", 2) == 2
            assert (await cache.list_keys()).keys == ["visits"]
    assert all(len(entries(tmp_path / name)) >= 1 for name in ("a b", "relative/c", "d"))
    with pytest.raises(ConfigError, match="path"):
        async with open_cache("file:"):
            pass
    with pytest.raises(ConfigError, match="no host"):
        async with open_cache("file://folder/below"):
            pass


async def test_namespaces_share_a_folder_without_meeting(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    async with open_cache(url, namespace="../one") as one, open_cache(url, instance="two") as two:
        await one.put("key", 1)
        await two.put("key", 2)
        await two.clear()
        assert (await one.get("key"), await two.get("key")) == (1, None)
    assert list(tmp_path.parent.glob("one*")) == []


async def test_entries_and_their_ends_survive_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as cache:
        await cache.put("short", b"1", 0.25)
        await cache.put("long", b"2", 100)
        await cache.put("endless", b"3", None)
    clock.advance(1)
    async with opened(tmp_path, clock) as cache:
        assert await cache.get_many(["short", "long", "endless"]) == [None, b"2", b"3"]
        assert len(entries(tmp_path)) == 2, "reading an ended entry deletes it"
        clock.advance(100)
        assert await cache.get("long") is None
        assert await listed(cache) == ["endless"]


async def test_only_the_owner_can_read_and_no_name_holds_a_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path / "cache") as cache:
            await cache.put("secret/../key:of user", b"data", None)
    finally:
        os.umask(before)
    found = [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]
    assert len(found) == 5
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        assert "secret" not in str(path.relative_to(tmp_path))
        assert "user" not in str(path.relative_to(tmp_path))


def truncated(size: int) -> Callable[[Path], None]:
    return lambda file: os.truncate(file, size)


def flipped(position: int) -> Callable[[Path], None]:
    def flip(file: Path) -> None:
        blob = bytearray(file.read_bytes())
        blob[position] ^= 1
        file.write_bytes(blob)

    return flip


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(file: Path) -> None:
        file.unlink()
        make(file)

    return replace


@pytest.mark.parametrize(
    "damage",
    [
        *(truncated(size) for size in (0, 3, 25, 26, 30, 1000)),
        *(flipped(position) for position in (0, 3, 10, 14, 22, 27, 40, 500, -1)),
        lambda file: file.write_bytes(b"x" * 2000),
        lambda file: file.write_bytes(file.read_bytes() + b"x"),
        lambda file: shutil.copy(next(other for other in entries(file.parents[1]) if other != file), file),
        replaced_by(os.mkfifo),
        replaced_by(lambda file: file.symlink_to(next(iter(entries(file.parents[1]))))),
    ],
)
async def test_a_torn_or_foreign_file_is_a_miss_and_can_be_replaced(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    async with opened(tmp_path) as cache:
        await cache.put("key", b"v" * 1000, None)
        (file,) = entries(tmp_path)
        await cache.put("other", b"w" * 1000, None)
        damage(file)
        assert await cache.get("key") is None
        assert await cache.swap("key", b"v" * 1000, b"new", None) is False
        assert await cache.touch("key", 5) is False
        assert await cache.delete_many(["key"]) == [False]
        assert await cache.add("key", b"fresh", None) is True
        assert await cache.get_many(["key", "other"]) == [b"fresh", b"w" * 1000]
        assert not file.is_symlink()


async def test_links_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    async with opened(tmp_path / "cache") as cache:
        await cache.put("a:1", b"data", None)
        folder = entries(tmp_path / "cache")[0].parent
        kept = outside / entries(tmp_path / "cache")[0].name
        shutil.move(entries(folder)[0], kept)
        folder.rmdir()
        folder.symlink_to(outside)
        assert await cache.get("a:1") is None
        assert await listed(cache) == []
        with pytest.raises(NotADirectoryError, match="in the way"):
            await cache.put("a:1", b"new", None)
        await cache.clear("a")
        await cache.clear("")
    assert [file.name for file in outside.iterdir()] == [kept.name]


async def test_an_unsafe_folder_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as cache:
        await cache.put("key", b"1", None)
        (folder,) = found(tmp_path, "?" * 32)
        folder.chmod(0o770)
        with pytest.raises(PermissionError, match="only this account"):
            await cache.health()
    with pytest.raises(PermissionDenied, match="only this account"):
        async with open_cache("file:", path=str(tmp_path)):
            pass
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionDenied):
        async with open_cache("file:", path=str(tmp_path)):
            pass
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable):
        async with open_cache("file:", path=str(tmp_path / "file")):
            pass


async def test_a_folder_that_was_removed_comes_back(cache: FileCache, tmp_path: Path) -> None:
    await cache.put("key", b"1", None)
    shutil.rmtree(tmp_path / "cache")
    assert await cache.get("key") is None
    assert await listed(cache) == []
    await cache.clear("")
    shutil.rmtree(tmp_path / "cache")
    await cache.put("key", b"2", None)
    assert await cache.get("key") == b"2"
    await cache.health()


async def test_pages_hold_every_live_key_once(tmp_path: Path) -> None:
    clock = FakeClock()
    keys = [f"{top}:{n}" for top in ("a", "a:b", "ab", "é :/") for n in range(60)] + ["a", "a:", ":x", "plain/ ü"]
    async with opened(tmp_path, clock) as cache:
        await cache.put_many([(key, b"1") for key in keys], None)
        await cache.put_many([(f"a:old:{n}", b"1") for n in range(1200)], 5)
        clock.advance(6)
        for limit in (1, 7, 10_000):
            assert sorted(await listed(cache, limit=limit)) == sorted(keys)
        for namespace in ("a", "a:b", "ab", "é ", "b", "a:b:c"):
            expected = [key for key in keys if key.startswith(f"{namespace}:")]
            assert sorted(await listed(cache, namespace, 9)) == sorted(expected)


async def test_clear_deletes_a_namespace_and_nothing_else(tmp_path: Path) -> None:
    keys = ["a", "a:", "a:1", "a:b", "a:b:1", "a:b:c:1", "a:bc:1", "ab:1", ":x", "::x", "b:a:b:1"]
    async with opened(tmp_path) as cache:
        for namespace in ("a:b", "a", "a:", "a:b:c", ":", "none", "b:a"):
            await cache.put_many([(key, b"1") for key in keys], None)
            await cache.clear(namespace)
            assert sorted(await listed(cache)) == sorted(k for k in keys if not k.startswith(f"{namespace}:"))
        await cache.clear("")
        assert await listed(cache) == []
        assert not [path for path in found(tmp_path, "*/*") if path.is_dir()], "empty folders go too"


async def test_a_counter_keeps_its_end(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as cache:
        assert await cache.increment("n", -5, 10) == -5
        clock.advance(9)
        assert await cache.increment("n", 7, 10) == 2
        clock.advance(2)
        assert await cache.increment("n", 1, None) == 1
        assert await cache.touch("n", 10) is True
        clock.advance(11)
        assert await cache.get("n") is None
