"""The decorator: async and plain functions, templates that fit, and keys that do not collide."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noobly.caching import Cache, open_cache
from noobly.caching.cached import decorate
from noobly.core.errors import InvalidArgument


@pytest.fixture
async def cache() -> AsyncIterator[Cache]:
    async with open_cache() as cache:
        yield cache


def keys_of(template: str) -> tuple[Callable[[Callable[..., object]], Callable[..., Awaitable[object]]], list[str]]:
    """Return the decorator of a template and the keys it asks for."""
    asked: list[str] = []

    async def compute(key: str, factory: Callable[[], Awaitable[object]], returns: type[object]) -> object:
        asked.append(key)
        return None

    return decorate(template, compute), asked


async def test_an_async_function_runs_once_per_key(cache: Cache) -> None:
    runs: list[tuple[int, str]] = []

    @cache.cached("user:{id}:{part}", ttl=60)
    async def load(id: int, part: str = "all") -> str:
        """Load a part of a user."""
        runs.append((id, part))
        return f"{id} {part}"

    assert [await load(1), await load(id=1), await load(1, part="all"), await load(1, "x")] == [
        "1 all",
        "1 all",
        "1 all",
        "1 x",
    ]
    assert runs == [(1, "all"), (1, "x")]
    assert await cache.get("user:1:all") == "1 all"
    assert inspect.iscoroutinefunction(load)
    assert load.__name__ == "load"
    assert load.__doc__ == "Load a part of a user."


async def test_a_plain_function_becomes_async_and_leaves_the_loop(cache: Cache) -> None:
    threads: list[int] = []

    @cache.cached("double:{number}")
    def double(number: int) -> int:
        threads.append(threading.get_ident())
        return 2 * number

    assert [await double(4), await double(4)] == [8, 8]
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_a_failure_is_raised_and_not_kept(cache: Cache) -> None:
    runs: list[int] = []

    @cache.cached("fails")
    async def fails() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise LookupError("on purpose")
        return 5

    with pytest.raises(LookupError):
        await fails()
    assert await fails() == 5


async def test_wrong_arguments_are_a_type_error_as_without_it(cache: Cache) -> None:
    @cache.cached("one:{number}")
    async def one(number: int) -> int:
        return number

    with pytest.raises(TypeError):
        await one()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        await one(1, 2)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "template",
    [
        "x:{other}",
        "x:{}",
        "x:{0}",
        "x:{a.b}",
        "x:{a[0]}",
        "x:{a!r}",
        "x:{a:>5}",
        "{a}{b}",
        "{a}-{b}",
        "{a}x_{b}",
        "{a}%{b}",
    ],
)
async def test_a_template_that_does_not_fit_is_refused_on_decorating(cache: Cache, template: str) -> None:
    with pytest.raises(InvalidArgument, match="template"):

        @cache.cached(template)
        async def function(a: int, b: int) -> int:
            return a + b


async def test_braces_may_be_written_twice(cache: Cache) -> None:
    decorator, asked = keys_of("{{x}}:{a}:{a}")

    @decorator
    async def function(a: int) -> int:
        return a

    await function(1)
    assert asked == ["{x}:1:1"]


@pytest.mark.parametrize("template", ["{a}:{b}", "x:{a}/{b}", "{a} and {b}", "é{a}é{b}"])
@given(
    one=st.tuples(st.text(max_size=8), st.text(max_size=8)),
    other=st.tuples(st.text(max_size=8), st.text(max_size=8)),
    looks=st.tuples(st.text(alphabet=":/ %2Fandé-_.", max_size=6), st.text(alphabet=":/ %2Fandé-_.", max_size=6)),
)
async def test_different_arguments_give_different_keys(
    template: str, one: tuple[str, str], other: tuple[str, str], looks: tuple[str, str]
) -> None:
    decorator, asked = keys_of(template)

    @decorator
    async def function(a: str, b: str) -> None:
        return None

    for given_ in (one, other, looks):
        await function(*given_)
    assert len(set(asked)) == len({one, other, looks})


async def test_odd_arguments_make_good_keys(cache: Cache) -> None:
    @cache.cached("f:{a}")
    async def function(a: object) -> str:
        return repr(a)

    for odd in ("", " ", "a:b", "{b}", "a/b", "%", "é\n", None, 1.5, (1, 2), True):
        assert await function(odd) == repr(odd)
        assert await function(odd) == repr(odd)
    assert await cache.get("f:a%3Ab") == "'a:b'"


async def test_functions_of_one_argument_keep_to_its_text(cache: Cache) -> None:
    decorator, asked = keys_of("user:{id}")

    @decorator
    async def function(id: object) -> None:
        return None

    await function(1)
    await function("1")
    assert asked == ["user:1", "user:1"]


async def test_methods_name_what_tells_them_apart(cache: Cache) -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name
            self.runs = 0

        async def price(self, item: str) -> str:
            @cache.cached("shop:{shop}:{item}")
            async def price(shop: str, item: str) -> str:
                self.runs += 1
                return f"{shop} {item}"

            return await price(self.name, item)

    one, other = Shop("one"), Shop("other")
    assert [await one.price("tea"), await other.price("tea"), await one.price("tea")] == [
        "one tea",
        "other tea",
        "one tea",
    ]
    assert (one.runs, other.runs) == (1, 1)
