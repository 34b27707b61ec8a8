"""The blocking facade: same API without await, from any thread, and safe to interrupt, close and misuse."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from noobly.caching import Cache
from noobly.core.errors import Closed, ConfigError, Conflict, InvalidArgument, NotFound
from noobly.core.events import OperationFinished
from noobly.core.scope import Environment
from noobly.layers.health import State
from noobly.services import SERVICES
from noobly.settings import Instance, Settings
from noobly.sync import SyncNoobly
from noobly.testing import FakeClock

NAMED = Settings(services={"caching": {"sessions": Instance(url="memory://")}})
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


@pytest.fixture
def noobly():
    with SyncNoobly.open(settings=NAMED) as opened:
        yield opened


@pytest.fixture
def cache(noobly):
    return noobly.caching


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("noobly")]


class TestSameApi:
    def test_values_come_and_go(self, cache):
        cache.put("key", {"name": "Ada"}, ttl=60)
        assert cache.get("key") == {"name": "Ada"}
        assert cache.get("other", "default") == "default"
        assert cache.get("key", type=dict[str, str]) == {"name": "Ada"}
        assert cache.increment("counter", 5) == 5
        assert cache.delete("key") is True
        assert cache.stats().total.hits == 2

    def test_every_public_method_is_there_with_its_doc_and_signature(self, cache):
        names = [name for name, _ in inspect.getmembers(Cache, inspect.isfunction) if not name.startswith("_")]
        assert len(names) > 20
        for name in names:
            method, original = getattr(type(cache), name), getattr(Cache, name)
            assert not inspect.iscoroutinefunction(method)
            assert method.__doc__ == original.__doc__
            assert inspect.signature(method) == inspect.signature(original)

    def test_nothing_else_is_there(self, cache, noobly):
        assert not hasattr(cache, "_driver")
        assert not hasattr(cache, "nothing")
        with pytest.raises(AttributeError, match="no service or attribute 'cooking'"):
            _ = noobly.cooking
        assert repr(cache) == "<SyncCache 'default'>"

    def test_siblings(self, cache):
        cache["sessions"].put("key", 1)
        assert cache.get("key") is None
        assert cache["sessions"]["default"].get("key") is None
        assert list(cache.siblings) == ["default", "sessions"]
        assert cache.siblings["sessions"].get("key") == 1
        with pytest.raises(NotFound, match="configured are default, sessions"):
            cache["carts"]

    def test_the_application(self, noobly):
        assert noobly.settings is NAMED
        assert noobly.environment is noobly.aio.environment
        assert list(noobly.services) == list(SERVICES)
        reports = noobly.health()
        assert [report.instance for report in reports if report.service == "caching"] == ["default", "sessions"]
        assert {report.state for report in reports} == {State.OK}

    def test_an_environment_and_a_file_are_handed_on(self, tmp_path):
        clock, path = FakeClock(), tmp_path / "x.toml"
        path.write_text("[caching]\nttl = 5")
        with SyncNoobly.open(path, environment=Environment(clock=clock)) as noobly:
            noobly.caching.put("key", 1)
            clock.advance(6)
            assert noobly.caching.get("key") is None

    def test_errors_are_the_same(self, cache):
        cache.put("key", "text")
        with pytest.raises(Conflict, match="'key'"):
            cache.increment("key")
        with pytest.raises(InvalidArgument):
            cache.put("", 1)

    def test_wrong_settings_fail_the_opening(self):
        before = threads()
        settings = Settings(services={"caching": {"default": Instance(url="memory://?x=1")}})
        with pytest.raises(ConfigError, match="no setting 'x'"), SyncNoobly.open(settings=settings):
            pytest.fail("it must not open")
        assert threads() == before

    def test_call_runs_an_async_function(self, noobly):
        noobly.call(noobly.aio.caching.put, "key", 1, ttl=60)
        assert noobly.call(noobly.aio.caching.get, "key") == 1


class TestIterators:
    def test_an_async_iterator_becomes_an_iterator(self, cache):
        cache.put_many({f"user:{number}": number for number in range(2500)})
        cache.put("other", 1)
        assert sorted(cache.keys("user")) == sorted(f"user:{number}" for number in range(2500))

    def test_it_may_be_given_up(self, cache):
        cache.put_many({"a": 1, "b": 2})
        given_up = cache.keys()
        assert next(given_up) in ("a", "b")
        del given_up
        keys = cache.keys()
        assert next(keys)
        assert next(keys)
        with pytest.raises(StopIteration):
            next(keys)


class TestLocks:
    def test_a_lock_is_held_for_the_block(self, cache):
        with cache.lock("import") as token:
            assert isinstance(token, str)
            with pytest.raises(Conflict), cache.lock("import", wait=0.01):
                pytest.fail("somebody else holds it")
        assert cache.acquire("import") is not None

    @pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
    def test_it_is_released_whatever_ends_the_block(self, cache, error):
        with pytest.raises((error, RuntimeError)), cache.lock("import"):
            raise error
        assert cache.acquire("import") is not None
        assert cache.get("still", "works") == "works"

    def test_an_interrupted_wait_leaves_no_lock_behind(self, cache, noobly):
        token = cache.acquire("import", lease=3600)
        end = noobly.environment.bus.subscribe(OperationFinished, interrupt)
        with pytest.raises(KeyboardInterrupt), cache.lock("import"):
            pytest.fail("somebody else holds it")
        end()
        assert cache.release("import", token)
        with cache.lock("import", wait=1):
            pass

    def test_closing_inside_the_block(self):
        with ExitStack() as stack:
            noobly = stack.enter_context(SyncNoobly.open(settings=Settings()))
            lock = noobly.caching.lock("import")
            lock.__enter__()
            stack.close()
            with pytest.raises(Closed):
                lock.__exit__(None, None, None)

    def test_any_async_context_manager_may_swallow_or_replace_the_error(self, noobly):
        class Swallows:
            async def __aenter__(self):
                return self

            async def __aexit__(self, kind, error, traceback):
                if isinstance(error, ValueError):
                    raise TypeError from error
                return isinstance(error, ZeroDivisionError)

        thread = noobly._thread
        with thread.hold(Swallows()):
            raise ZeroDivisionError
        with pytest.raises(TypeError), thread.hold(Swallows()):
            raise ValueError


def interrupt(*_: object) -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


class TestFactories:
    def test_a_plain_one_runs_outside_the_loop_and_may_use_the_cache(self, cache):
        cache.put("one", 1)
        ran: list[str] = []

        def factory() -> int:
            ran.append(threading.current_thread().name)
            return cache.get("one") + cache.get_or_compute("two", lambda: 2)

        assert cache.get_or_compute("sum", factory) == 3
        assert cache.get_or_compute("sum", factory) == 3
        assert len(ran) == 1
        assert ran[0].startswith("noobly-worker")
        assert cache.get("two") == 2

    def test_an_async_one_runs_on_the_loop(self, cache):
        async def factory() -> str:
            await asyncio.sleep(0)
            return threading.current_thread().name

        assert cache.get_or_compute("key", factory) == "noobly"
        assert cache.get_or_compute("other", lambda: factory()) == "noobly"

    def test_it_may_be_given_by_name(self, cache):
        assert cache.get_or_compute(key="key", factory=lambda: 5, ttl=60) == 5

    def test_it_sees_the_callers_context(self, cache):
        request_id.set("abc")
        assert cache.get_or_compute("key", request_id.get) == "abc"

    @pytest.mark.parametrize("error", [ZeroDivisionError, StopIteration, SystemExit, KeyboardInterrupt])
    def test_what_it_raises_reaches_the_caller_and_the_loop_lives_on(self, cache, error):
        def factory() -> int:
            raise error("no")

        with pytest.raises(error):
            cache.get_or_compute("key", factory)
        assert cache.get_or_compute("key", lambda: 1) == 1

    def test_many_that_wait_for_each_other_do_not_block_the_workers(self, cache):
        everybody = threading.Barrier(40)

        def nested(number: int) -> int:
            everybody.wait(10)
            return cache.get_or_compute(f"inner:{number}", lambda: number)

        with ThreadPoolExecutor(40) as pool:
            calls = [pool.submit(cache.get_or_compute, f"outer:{n}", lambda n=n: nested(n)) for n in range(40)]
            assert [call.result(20) for call in calls] == list(range(40))

    def test_something_else_is_refused_by_the_async_api(self, cache):
        with pytest.raises(TypeError):
            cache.get_or_compute("key", 5)

    def test_warming_takes_plain_loaders_and_tells_progress(self, cache):
        seen: list[int] = []
        done = cache.warm(str.upper, ["a", "b"], on_progress=lambda progress: seen.append(progress.done))
        assert (done.done, done.failed) == (2, 0)
        assert seen == [1, 2]
        assert cache.get_many(["a", "b"]) == {"a": "A", "b": "B"}


class TestCached:
    def test_a_plain_function_stays_one(self, cache):
        calls: list[int] = []

        @cache.cached("user:{id}", ttl=60)
        def load(id: int, *, lang: str = "en") -> str:
            """Load a user."""
            calls.append(id)
            return f"user {id}"

        assert not inspect.iscoroutinefunction(load)
        assert [load(1), load(id=1), load(2)] == ["user 1", "user 1", "user 2"]
        assert calls == [1, 2]
        assert (load.__name__, load.__doc__) == ("load", "Load a user.")
        assert cache.get("user:1") == "user 1"

    def test_an_async_function_becomes_blocking(self, cache):
        @cache.cached("name:{name}")
        async def load(name: str) -> str:
            return name.upper()

        assert load("ada") == "ADA"

    def test_a_wrong_template_is_refused(self, cache):
        with pytest.raises(InvalidArgument, match="names 'nobody'"):

            @cache.cached("user:{nobody}")
            def load(id: int) -> int:
                return id

    @pytest.mark.parametrize("error", [ValueError, StopIteration, SystemExit])
    def test_what_the_function_raises_gets_out(self, cache, error):
        @cache.cached("x")
        def load() -> int:
            raise error

        with pytest.raises(error):
            load()
        assert cache.get("still", "works") == "works"
