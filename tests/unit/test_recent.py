"""Values that are copied instead of decoded: what a caller gets is the entry's value, and nobody else's object."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from noobly.caching import Cache, open_cache
from noobly.caching.events import Hit
from noobly.caching.recent import LONGEST, Recent
from noobly.core.scope import Environment

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
flat = st.dictionaries(
    st.text(), leaves | st.lists(leaves, max_size=3) | st.dictionaries(st.text(), leaves, max_size=3)
)


@pytest_asyncio.fixture
async def cache() -> AsyncIterator[Cache]:
    async with open_cache() as opened:
        yield opened


def containers(value: object) -> dict[int, object]:
    """Return every list and dictionary of a value by its identity."""
    if not isinstance(value, dict | list):
        return {}
    found: dict[int, object] = {id(value): value}
    for part in value.values() if isinstance(value, dict) else value:
        found |= containers(part)
    return found


@given(values | flat)
def test_every_container_of_a_value_that_is_kept_is_known(value: Json) -> None:
    data, recent = msgspec.json.encode(value), Recent()
    recent.hits = 2
    assert recent.wants(data) == (len(data) <= LONGEST)
    recent.keep(data, msgspec.json.decode(data))
    if recent.data != data:
        return
    assert (recent.value if recent.whole is None else recent.whole) == value
    parts = [one for one in (recent.whole, *(part for _, part in recent.parts)) if one is not None]
    assert containers(recent.whole).keys() == {id(part) for part in parts}


def test_what_has_containers_in_its_containers_is_not_kept() -> None:
    recent = Recent()
    for value in ({"a": {"b": {}}}, [[[1]]], [[]] * 9):
        recent.keep(b"entry", value)
        assert recent.data != b"entry"


VALUES: dict[str, Json] = {
    "flat": {"a": 1, "b": "two"},
    "lists": {"roles": ["admin"], "sizes": [1, 2]},
    "list": [{"a": 1}, ["b"]],
    "deep": {"a": {"b": {"c": [1]}}},
    "long": {"text": "x" * 2000},
    "text": "text",
    "none": None,
    "number": 5,
    "fraction": 0.5,
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_callers_cannot_reach_each_other(cache: Cache, value: Json) -> None:
    await cache.put("k", value)
    before = msgspec.json.encode(value)
    for _ in range(30):
        found = await cache.get("k", "missed")
        assert msgspec.json.encode(found) == before
        for part in containers(found).values():
            part.clear()  # type: ignore[attr-defined]  # every container has it
    assert (await cache.stats()).total.hits == 30


async def test_every_read_sees_the_last_value(cache: Cache) -> None:
    for round_ in range(40):
        await cache.put("k", {"round": [round_]})
        for _ in range(1 + round_ % 4):
            assert await cache.get("k") == {"round": [round_]}
    await cache.delete("k")
    assert await cache.get("k") is None


async def test_types_are_still_checked_and_bytes_come_back(cache: Cache) -> None:
    class User(msgspec.Struct):
        name: str

    await cache.put("user", {"name": "Ada"})
    await cache.put("raw", b"\0\1")
    for _ in range(5):
        assert await cache.get("user") == {"name": "Ada"}
        assert await cache.get("user", type=User) == User("Ada")
        assert await cache.get("raw") == b"\0\1"


async def test_who_subscribes_later_hears_of_every_hit() -> None:
    environment = Environment()
    async with open_cache(environment=environment) as cache:
        await cache.put("k", {"a": []})
        for _ in range(5):
            await cache.get("k")
        heard: list[str] = []
        end = environment.bus.subscribe(Hit, lambda hit: heard.append(hit.key))
        await cache.get("k")
        await cache.lookup("k")
        end()
        await cache.get("k")
        assert heard == ["k", "k"]
        assert (await cache.stats()).total.hits == 8


async def test_a_key_is_checked_although_its_text_was_hit(cache: Cache) -> None:
    class Text(str):
        """Equal to the key, and no plain text."""

        __slots__ = ()

    await cache.put("k", 1)
    for _ in range(3):
        assert await cache.get("k") == 1
        assert await cache.get(Text("k")) == 1
