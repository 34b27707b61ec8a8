"""The conformance suite of cache drivers: what ``caching/driver.py`` promises, on the bare provider.

    class TestMine(CacheDriverSuite):
        @pytest.fixture
        def harness(self) -> DriverHarness:
            return EmbeddedHarness("mine://", capabilities=frozenset({Can.LIST}))

Run it first while writing a provider; ``noobly.testing.caching`` then says whether a cache works on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest

from noobly.caching import Can
from noobly.caching.driver import CacheDriver
from noobly.core.capability import Capability
from noobly.core.errors import Conflict, Unsupported

MOST = 2**63 - 1
KEYS = (
    "plain",
    "user:1",
    "with space",
    "a/b",
    "..",
    ".",
    "trail/",
    "two\nlines\n",
    "\r\nset x 0 0 1\r\n",
    "\x00",
    "".join(map(chr, range(32))),
    "percent%2F",
    "?a=1#b",
    "naïve 鍵 🦊",
    "e\u0301",
    "\u00e9",
    "user:\x1fc",
    "\x1ft",
    "*",
    "[a-z]?",
    "\\",
    ":",
    "x:",
    ":x",
    "K",
    "k",
    "k" * 250,
    "k" * 251,
    "k" * 2047 + "a",
    "k" * 2047 + "b",
    "鍵" * 2048,
)
DATA = (b"", b"\x00", b"data", b"5", b"\r\nEND\r\n", bytes(range(256)) * 4, b"VALUE x 0 1\r\n")


class DriverHarness(Protocol):
    """What the driver suite needs of a harness; see ``noobly.testing.harness.Harness`` for each member."""

    capabilities: frozenset[Capability]
    shared: bool
    tick: float
    value_bytes: int

    def open_bare(self, **options: object) -> AbstractAsyncContextManager[CacheDriver]:
        """Open the provider without layers, except for the one that maps its client's exceptions."""
        ...

    async def advance(self, seconds: float) -> None:
        """Let time pass for the provider and its store."""
        ...


class CacheDriverSuite:
    """Every promise of the driver protocol; a subclass overrides the ``harness`` fixture."""

    @pytest.fixture
    def harness(self) -> DriverHarness:
        """Return a harness that no other test uses."""
        raise NotImplementedError("override the harness fixture: it says how to open the provider under test")

    @pytest.fixture
    async def driver(self, harness: DriverHarness) -> AsyncIterator[CacheDriver]:
        """Open the bare provider."""
        async with harness.open_bare() as driver:
            yield driver

    async def test_what_it_claims_is_what_it_has(self, driver: CacheDriver, harness: DriverHarness) -> None:
        if Can.LIST in harness.capabilities:
            assert (await driver.keys("", None, 10)).keys == []
        else:
            with pytest.raises(Unsupported, match="keys"):
                await driver.keys("", None, 10)
        assert driver.limits.value_bytes > 0
        assert driver.scheme

    async def test_health_is_quiet_on_a_good_store(self, driver: CacheDriver) -> None:
        await driver.health()

    async def test_absent_is_none_everywhere(self, driver: CacheDriver) -> None:
        assert await driver.get("absent") is None
        assert await driver.get_many(["absent", "absent"]) == [None, None]
        assert await driver.delete_many(["absent"]) == [False]
        assert not await driver.touch("absent", 5)
        assert not await driver.swap("absent", b"", b"new", None)
        assert not await driver.swap("absent", b"", None, None)
        assert await driver.get("absent") is None
        await driver.clear("absent")

    async def test_no_keys_at_all(self, driver: CacheDriver) -> None:
        assert await driver.get_many([]) == []
        assert await driver.delete_many([]) == []
        await driver.put_many([], None)

    @pytest.mark.parametrize("key", KEYS, ids=lambda key: ascii(key)[:20])
    async def test_every_operation_takes_every_key(self, driver: CacheDriver, key: str) -> None:
        await driver.put(key, b"data", 60)
        assert await driver.get(key) == b"data"
        assert await driver.touch(key, None)
        assert not await driver.add(key, b"other", None)
        assert await driver.swap(key, b"data", b"1", 60)
        assert await driver.increment(key, 1, None) == 2
        assert await driver.get_many([key, key]) == [b"2", b"2"]
        assert await driver.delete_many([key]) == [True]
        assert await driver.add(key, b"added", 60)
        await driver.clear("")
        assert await driver.get(key) is None

    async def test_no_two_keys_are_the_same(self, driver: CacheDriver) -> None:
        await driver.put_many([(key, b"%d" % number) for number, key in enumerate(KEYS)], None)
        assert await driver.get_many(KEYS) == [b"%d" % number for number in range(len(KEYS))]
        assert await driver.delete_many(KEYS[::2]) == [True] * len(KEYS[::2])
        left = [None if number % 2 == 0 else b"%d" % number for number in range(len(KEYS))]
        assert await driver.get_many(KEYS) == left

    @pytest.mark.parametrize("data", DATA, ids=lambda data: repr(data)[:20])
    async def test_bytes_come_back_as_they_are(self, driver: CacheDriver, data: bytes) -> None:
        await driver.put("key", data, None)
        got = await driver.get("key")
        assert got == data
        assert type(got) is bytes
        assert await driver.get_many(["key"]) == [data]
        assert await driver.swap("key", data, data + b"!", None)
        assert await driver.swap("key", data + b"!", None, None)
        assert await driver.add("key", data, None)
        assert await driver.get("key") == data

    async def test_the_longest_values(self, driver: CacheDriver, harness: DriverHarness) -> None:
        data = b"\x00\xff" * (min(driver.limits.value_bytes, harness.value_bytes) // 2)
        await driver.put("key", data, None)
        assert await driver.get("key") == data
        assert await driver.swap("key", data, data[:-1], None)
        assert await driver.get("key") == data[:-1]

    async def test_many_answers_stand_where_their_keys_do(self, driver: CacheDriver) -> None:
        await driver.put_many([("a", b"1"), ("b", b"2"), ("a", b"3")], None)
        assert await driver.get_many(["b", "none", "a", "b"]) == [b"2", None, b"3", b"2"]
        assert await driver.delete_many(["none", "a", "a", "b"]) == [False, True, False, True]
        assert await driver.get_many(["a", "b"]) == [None, None]

    async def test_ten_thousand_at_once(self, driver: CacheDriver) -> None:
        keys = [f"many:{number}" for number in range(10_000)]
        await driver.put_many([(key, key.encode()) for key in keys], 600)
        assert await driver.get_many(keys) == [key.encode() for key in keys]
        assert await driver.delete_many(keys) == [True] * len(keys)

    async def test_swap_wants_exactly_what_is_there(self, driver: CacheDriver) -> None:
        await driver.put("key", b"old", None)
        for wrong in (b"", b"ol", b"old ", b"OLD"):
            assert not await driver.swap("key", wrong, b"new", None)
            assert not await driver.swap("key", wrong, None, None)
        assert await driver.get("key") == b"old"
        assert await driver.swap("key", b"old", b"new", None)
        assert not await driver.swap("key", b"old", b"newer", None)
        assert await driver.get("key") == b"new"
        assert await driver.swap("key", b"new", None, None)
        assert await driver.get("key") is None
        assert await driver.add("key", b"again", None)

    async def test_counters(self, driver: CacheDriver) -> None:
        assert await driver.increment("n", 5, None) == 5
        assert await driver.increment("n", -7, None) == -2
        assert await driver.get("n") == b"-2"
        assert await driver.swap("n", b"-2", b"40", None)
        assert await driver.increment("n", 2, None) == 42
        assert await driver.increment("zero", 0, None) == 0
        assert await driver.get("zero") == b"0"
        assert await driver.increment("most", MOST, None) == MOST
        assert await driver.increment("least", -MOST - 1, None) == -MOST - 1
        for key, amount in (("most", 1), ("least", -1), ("most", MOST)):
            with pytest.raises(Conflict):
                await driver.increment(key, amount, None)
        assert await driver.get_many(["most", "least"]) == [b"%d" % MOST, b"%d" % (-MOST - 1)]
        assert await driver.increment("most", -MOST - 1, None) == -1

    @pytest.mark.parametrize("data", [b"", b"x", b"1.5", b"\x01\x00\x31", b"9" * 30, b"0x10"], ids=repr)
    async def test_what_is_no_number_is_not_counted(self, driver: CacheDriver, data: bytes) -> None:
        await driver.put("n", data, None)
        with pytest.raises(Conflict):
            await driver.increment("n", 1, None)
        assert await driver.get("n") == data

    async def test_clear_takes_what_begins_with_the_namespace(self, driver: CacheDriver) -> None:
        gone = ["a:1", "a:", "a:b:c", "a:\x1fc", "a:*"]
        kept = ["a", "ab:1", "ba:1", "A:1", "b:a:1", "aa:1", "a*:1", "a\x1fc"]
        await driver.put_many([(key, b"x") for key in gone + kept], None)
        await driver.clear("a")
        assert await driver.get_many(gone) == [None] * len(gone)
        assert await driver.get_many(kept) == [b"x"] * len(kept)
        await driver.clear("a*")
        assert await driver.get_many(kept) == [None if key == "a*:1" else b"x" for key in kept]
        await driver.clear("")
        assert await driver.get_many(kept) == [None] * len(kept)

    async def test_deeper_namespaces_are_cleared_alone(self, driver: CacheDriver) -> None:
        keys = ["a:b:c:1", "a:b:1", "a:1", "a:b", "a:bb:1"]
        await driver.put_many([(key, b"x") for key in keys], None)
        await driver.clear("a:b")
        assert await driver.get_many(keys) == [None, None, b"x", b"x", b"x"]

    async def test_what_is_put_after_clearing_stays(self, driver: CacheDriver) -> None:
        await driver.put("a:1", b"old", 60)
        await driver.clear("a")
        assert await driver.add("a:1", b"new", 60)
        assert await driver.touch("a:1", 60)
        assert await driver.get("a:1") == b"new"
        await driver.clear("")
        assert await driver.increment("a:1", 1, None) == 1

    async def test_an_entry_past_its_ttl_does_not_exist(self, driver: CacheDriver, harness: DriverHarness) -> None:
        tick = harness.tick
        names = ["get", "many", "add", "swap", "drop", "touch", "delete"]
        await driver.put_many([(name, b"x") for name in names], 4 * tick)
        await driver.put("counter", b"5", 4 * tick)
        await driver.put("long", b"x", 600)
        await harness.advance(2 * tick)
        assert await driver.get_many([*names, "long"]) == [b"x"] * 8
        await harness.advance(3.5 * tick)
        assert await driver.get("get") is None
        assert await driver.get_many(["many", "long"]) == [None, b"x"]
        assert await driver.add("add", b"new", None)
        assert not await driver.swap("swap", b"x", b"new", None)
        assert not await driver.swap("drop", b"x", None, None)
        assert not await driver.touch("touch", 60)
        assert await driver.delete_many(["delete"]) == [False]
        assert await driver.increment("counter", 1, None) == 1

    async def test_every_way_of_writing_sets_the_ttl(self, driver: CacheDriver, harness: DriverHarness) -> None:
        tick = harness.tick
        short, long = 3 * tick, 600.0
        ways: dict[str, Callable[[str, float | None], Awaitable[object]]] = {
            "put": lambda key, ttl: driver.put(key, b"1", ttl),
            "put_many": lambda key, ttl: driver.put_many([(key, b"1")], ttl),
            "swap": lambda key, ttl: driver.swap(key, b"0", b"1", ttl),
            "touch": driver.touch,
        }
        ends: dict[str, tuple[float | None, float | None]] = {
            "shorter": (long, short),
            "longer": (short, long),
            "endless": (short, None),
            "ending": (None, short),
        }
        for way, write in ways.items():
            for name, (before, after) in ends.items():
                await driver.put(f"{way} {name}", b"0", before)
                await write(f"{way} {name}", after)
        await driver.add("add", b"1", short)
        await harness.advance(4.5 * tick)
        for way in ways:
            for name, (_, after) in ends.items():
                there = await driver.get(f"{way} {name}") is not None
                assert there is (after != short), (way, name)
        assert await driver.get("add") is None

    async def test_counting_leaves_the_ttl_of_an_old_counter(self, driver: CacheDriver, harness: DriverHarness) -> None:
        tick = harness.tick
        await driver.increment("new", 1, 3 * tick)
        await driver.increment("endless", 1, None)
        await driver.put("put", b"1", 3 * tick)
        for key in ("new", "put"):
            await driver.increment(key, 1, 600)
        await driver.increment("endless", 1, tick)
        assert await driver.get_many(["new", "endless", "put"]) == [b"2"] * 3
        await harness.advance(4.5 * tick)
        assert await driver.get_many(["new", "endless", "put"]) == [None, b"2", None]

    @pytest.mark.parametrize("ttl", [0.001, 0.5, 30 * 86400.0, 31 * 86400.0, 400 * 86400.0, 9.9e9])
    async def test_very_short_and_very_long_ttls(self, driver: CacheDriver, ttl: float) -> None:
        await driver.put("key", b"x", ttl)
        await driver.touch("key", ttl)
        await driver.add("other", b"x", ttl)
        await driver.increment("counter", 1, ttl)
        if ttl > 60:
            assert await driver.get_many(["key", "other", "counter"]) == [b"x", b"x", b"1"]

    async def test_of_many_adds_and_swaps_at_once_one_succeeds(self, driver: CacheDriver) -> None:
        added = await asyncio.gather(*(driver.add("key", b"%d" % n, None) for n in range(50)))
        assert sum(added) == 1
        assert await driver.get("key") == b"%d" % added.index(True)
        expected = b"%d" % added.index(True)
        swapped = await asyncio.gather(*(driver.swap("key", expected, b"new %d" % n, None) for n in range(50)))
        assert sum(swapped) == 1
        assert await driver.get("key") == b"new %d" % swapped.index(True)
        dropped = await asyncio.gather(*(driver.delete_many(["key"]) for _ in range(20)))
        assert sum(done for (done,) in dropped) == 1

    async def test_no_count_is_lost_at_once(self, driver: CacheDriver) -> None:
        numbers = await asyncio.gather(*(driver.increment("n", 1, None) for _ in range(100)))
        assert sorted(numbers) == list(range(1, 101))

    async def test_two_openings_exclude_each_other(self, harness: DriverHarness) -> None:
        if not harness.shared:
            pytest.skip("two openings of this provider share nothing")
        async with harness.open_bare() as one, harness.open_bare() as other:
            both = (one, other)
            added = await asyncio.gather(*(both[n % 2].add("key", b"%d" % n, None) for n in range(40)))
            assert sum(added) == 1
            numbers = await asyncio.gather(*(both[n % 2].increment("n", 1, None) for n in range(60)))
            assert sorted(numbers) == list(range(1, 61))
            await one.clear("")
            assert await other.get_many(["key", "n"]) == [None, None]

    async def test_pages(self, driver: CacheDriver, harness: DriverHarness) -> None:
        if Can.LIST not in harness.capabilities:
            pytest.skip("the provider does not list keys")
        await driver.put_many([(key, b"x") for key in KEYS], None)
        await driver.put_many([(f"page:{number}", b"x") for number in range(50)], None)
        await driver.put("ended", b"x", harness.tick)
        await harness.advance(2 * harness.tick)
        for limit in (1, 7, 10_000):
            assert sorted(await _listed(driver, "", limit)) == sorted([*KEYS, *(f"page:{n}" for n in range(50))])
        assert sorted(await _listed(driver, "page", 9)) == sorted(f"page:{n}" for n in range(50))
        assert sorted(await _listed(driver, "user", 9)) == ["user:\x1fc", "user:1"]
        assert await _listed(driver, "*", 9) == []


async def _listed(driver: CacheDriver, namespace: str, limit: int) -> list[str]:
    found: list[str] = []
    after: str | None = None
    for _ in range(100_000):  # A page of a shared server may hold nothing of ours.
        page = await driver.keys(namespace, after, limit)
        found += page.keys
        after = page.after
        if after is None:
            return found
    raise AssertionError("listing does not end")
