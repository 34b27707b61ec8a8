"""Values: everything JSON carries, bytes, structs and dataclasses, each caller with a copy of its own."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import msgspec
import pytest

from noobly.caching import Cache
from noobly.core.errors import InvalidArgument
from noobly.testing.caching.theme import Theme
from noobly.testing.harness import Harness

VALUES: tuple[object, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    0.0,
    0.1,
    -1.5,
    1e300,
    5e-324,
    2.0,
    "",
    "text",
    "5",
    "null",
    "naïve 鍵 🦊 \x00 \n",
    [],
    {},
    [None],
    [[[]]],
    {"": None},
    {"a": {"b": [1, 2.5, "c", None, True, {"d": []}]}},
    ["x"] * 1000,
)
BYTES = (b"", b"\x00", b"5", b"null", b"\x01\x00{}", bytes(range(256)), b"\xff\xfe\r\n")
TWO_MIB = 2 * 1024 * 1024


class Person(msgspec.Struct):
    """A struct to be stored."""

    name: str
    tags: list[str]


@dataclass
class Point:
    """A dataclass to be stored."""

    x: int
    y: float


class ValuesTheme(Theme):
    """A value comes back as it was put."""

    @pytest.mark.parametrize("value", [*VALUES, *BYTES], ids=lambda value: repr(value)[:24])
    async def test_a_round_trip_keeps_value_and_type(self, cache: Cache, value: object) -> None:
        await cache.put("key", value)
        got = await cache.get("key", "missing")
        assert got == value
        assert type(got) is type(value)
        assert await cache.get_many(["key"]) == {"key": value}
        entry = await cache.lookup("key")
        assert entry is not None
        assert entry.value == value

    @pytest.mark.parametrize("value", [*VALUES, *BYTES, math.inf], ids=lambda value: repr(value)[:24])
    async def test_so_does_msgpack(self, harness: Harness, value: object) -> None:
        async with harness.open(codec="msgpack") as cache:
            await cache.put("key", value, grace=60)
            got = await cache.get("key", "missing")
            assert got == value
            assert type(got) is type(value)

    async def test_whole_numbers_past_64_bits(self, cache: Cache) -> None:
        for value in (2**64, -(2**63) - 1, 10**30):
            await cache.put("key", value)
            assert await cache.get("key") == value

    async def test_none_is_a_value(self, cache: Cache) -> None:
        await cache.put("key", None)
        assert await cache.get("key", "default") is None
        assert await cache.get_many(["key", "missing"]) == {"key": None}
        assert await cache.exists("key")
        assert not await cache.add("key", 1)

    async def test_structs_and_dataclasses_come_back_by_type(self, cache: Cache) -> None:
        await cache.put("person", Person("Ada", ["a"]))
        await cache.put("point", Point(1, 2.5), tags=["t"])
        assert await cache.get("person", type=Person) == Person("Ada", ["a"])
        assert await cache.get("point", type=Point) == Point(1, 2.5)
        assert await cache.get("person") == {"name": "Ada", "tags": ["a"]}
        assert await cache.get("missing", type=Person) is None

    async def test_a_value_of_another_type_is_refused(self, cache: Cache) -> None:
        await cache.put("key", "text")
        with pytest.raises(InvalidArgument):
            await cache.get("key", type=Person)
        with pytest.raises(InvalidArgument):
            await cache.get("key", type=int)
        assert await cache.get("key", type=str) == "text"

    async def test_bytes_are_stored_as_they_are(self, cache: Cache) -> None:
        for given in (bytearray(b"\x00\xff"), memoryview(b"\x00\xff")):
            await cache.put("key", given)
            assert await cache.get("key") == b"\x00\xff"
        assert await cache.get("key", type=bytes) == b"\x00\xff"

    async def test_big_values(self, cache: Cache, harness: Harness) -> None:
        size = min(TWO_MIB, harness.value_bytes)
        data = random.Random(5).randbytes(size)
        await cache.put("bytes", data)
        assert await cache.get("bytes") == data
        text = "é" * (size // 2 - 10)
        await cache.put("text", text)
        assert await cache.get("text") == text

    async def test_callers_do_not_share_objects(self, cache: Cache) -> None:
        mine = {"list": [1]}
        await cache.put("key", mine)
        mine["list"].append(2)
        first = await cache.get("key")
        assert first is not None
        first["list"].append(3)
        assert await cache.get("key") == {"list": [1]}
        assert (await cache.get_many(["key"]))["key"] == {"list": [1]}
        data = bytearray(b"abc")
        await cache.put("bytes", data)
        data[0] = 0
        assert await cache.get("bytes") == b"abc"
