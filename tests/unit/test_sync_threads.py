"""The blocking facade misused, interrupted, closed, forked and shared by threads."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from noobly.core.errors import Closed, InvalidArgument, NotFound, Unavailable
from noobly.loop_thread import LoopThread
from noobly.services import SERVICES
from noobly.settings import Instance, Settings
from noobly.sync import SyncNoobly


@pytest.fixture
def noobly():
    with SyncNoobly.open(settings=Settings()) as opened:
        yield opened


@pytest.fixture
def cache(noobly):
    return noobly.caching


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("noobly")]


def interrupt(*_: object) -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


class TestMisuse:
    async def test_inside_a_running_loop_it_is_refused(self):
        with pytest.raises(InvalidArgument, match=r"use the async API, noobly\.Noobly"), SyncNoobly.open():
            pytest.fail("it must not open")

    async def test_each_call_inside_a_running_loop_is_refused(self, noobly_elsewhere):
        with pytest.raises(InvalidArgument, match="block the running event loop"):
            noobly_elsewhere.caching.get("key")

    def test_so_is_a_call_back_on_its_own_loop(self, cache):
        async def factory() -> int:
            return cache.get("key")

        with pytest.raises(InvalidArgument, match="block the running event loop"):
            cache.get_or_compute("key", factory)

    def test_use_after_close(self):
        before = threads()
        with SyncNoobly.open(settings=Settings()) as noobly:
            keys = noobly.caching.keys()
        assert threads() == before
        for use in (
            lambda: noobly.caching.get("key"),
            noobly.health,
            lambda: next(keys),
            lambda: noobly.caching["x"].get,
        ):
            with pytest.raises((Closed, NotFound)):
                use()

    def test_a_call_under_way_when_it_closes(self):
        started, answers = threading.Event(), []

        async def forever() -> None:
            started.set()
            await asyncio.Event().wait()

        def use(noobly: SyncNoobly) -> None:
            try:
                noobly.call(forever)
            except Closed as error:
                answers.append(error.message)

        with SyncNoobly.open(settings=Settings()) as noobly:
            user = threading.Thread(target=use, args=(noobly,))
            user.start()
            started.wait(5)
        user.join(5)
        assert answers == ["SyncNoobly was closed while the call was under way"]

    def test_in_a_forked_process_it_is_refused_instead_of_hanging(self, cache):
        read, write = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of what this test is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                cache.get("key")
            except Closed as error:
                os.write(write, error.message.encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        with os.fdopen(read) as answer:
            assert "before this process was forked" in answer.read()


@pytest.fixture
def noobly_elsewhere():
    """Open a facade in another thread, so that a test with a loop can be handed it."""
    ready, end, found = threading.Event(), threading.Event(), []

    def hold() -> None:
        with SyncNoobly.open(settings=Settings()) as noobly:
            found.append(noobly)
            ready.set()
            end.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(10)
    yield found[0]
    end.set()
    thread.join(10)


class TestInterrupts:
    def test_ctrl_c_cancels_the_call_and_the_facade_lives_on(self, noobly):
        ended = threading.Event()

        async def slow() -> None:
            interrupt()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        with pytest.raises(KeyboardInterrupt):
            noobly.call(slow)
        assert ended.wait(5)
        noobly.caching.put("key", 1)
        assert noobly.caching.get("key") == 1

    def test_ctrl_c_before_the_wait_begins_cancels_the_call_too(self, noobly, monkeypatch):
        started, ended = threading.Event(), threading.Event()
        submit = LoopThread.submit

        async def slow() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        def interrupted(*given) -> None:
            submit(*given)
            assert started.wait(5)
            raise KeyboardInterrupt

        monkeypatch.setattr(LoopThread, "submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            noobly.call(slow)
        assert ended.wait(5)

    def test_ctrl_c_while_it_opens_closes_what_was_open(self, monkeypatch):
        closed = threading.Event()

        async def enter(stack, *_):
            stack.callback(closed.set)
            interrupt()
            await asyncio.Event().wait()

        before = threads()
        monkeypatch.setitem(SERVICES, "caching", replace(SERVICES["caching"], enter=enter))
        with pytest.raises(KeyboardInterrupt), SyncNoobly.open(settings=Settings()):
            pytest.fail("it must not open")
        assert closed.is_set()
        assert threads() == before

    def test_ctrl_c_in_the_body_closes_everything(self):
        before = threads()
        opened: list[SyncNoobly] = []
        with pytest.raises(KeyboardInterrupt), SyncNoobly.open(settings=Settings()) as noobly:
            interrupt(opened.append(noobly))
        assert threads() == before
        with pytest.raises(Closed):
            opened[0].caching.get("key")


class TestThreads:
    def test_many_threads_share_it(self, cache):
        def count(_: int) -> None:
            for _ in range(50):
                cache.increment("counter")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(count, range(8)))
        assert cache.get("counter") == 400

    def test_one_factory_runs_for_all_threads_that_ask(self, cache):
        runs: list[int] = []
        everybody = threading.Barrier(8)

        def factory() -> int:
            runs.append(1)
            time.sleep(0.05)  # long enough for the other threads to ask meanwhile
            return 5

        def ask(_: int) -> int:
            everybody.wait(10)
            return cache.get_or_compute("key", factory)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(8))) == [5] * 8
        assert runs == [1]

    def test_a_program_that_forgets_to_close_still_ends(self, noobly):
        assert noobly._thread._thread.daemon

    def test_a_thread_that_cannot_start_its_loop_says_so(self, monkeypatch):
        def fails(work):
            work.close()
            raise OSError("too many open files")

        monkeypatch.setattr("noobly.loop_thread.asyncio.run", fails)
        with pytest.raises(OSError, match="too many open files"), SyncNoobly.open(settings=Settings()):
            pytest.fail("it must not open")

    def test_a_server_that_is_down_is_unavailable(self):
        settings = Settings(services={"caching": {"default": Instance(url="redis://127.0.0.1:1/0")}})
        with pytest.raises(Unavailable), SyncNoobly.open(settings=settings):
            pytest.fail("it must not open")
