"""The application: what it opens, in which order, what it closes, and how it says that something is wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager

import pytest
from msgspec.structs import replace

from noobly.app import Noobly
from noobly.caching import Cache
from noobly.caching.opening import enter_cache, open_cache
from noobly.core.errors import Closed, ConfigError, Internal, NotFound, RateLimited, Unavailable
from noobly.core.scope import Environment
from noobly.layers.breaker import Breaker, Circuit
from noobly.layers.health import Health, Live, State, health
from noobly.services import SERVICES
from noobly.settings import Instance, Settings
from noobly.testing import FakeClock, eventually, free_port, private_or_skip

NAMED = Settings(services={"caching": {"sessions": Instance(url="memory://"), "pages": Instance(url="memory://")}})


@pytest.fixture
def journal(monkeypatch):
    """Record when instances are opened and closed; one named ``broken`` does not open."""
    entries: list[str] = []

    async def enter(stack, request, environment):
        if request.instance == "broken":
            raise Unavailable("it does not answer")
        entries.append(f"open {request.instance}")
        stack.callback(entries.append, f"close {request.instance}")
        return await enter_cache(stack, request, environment)

    service = replace(SERVICES["caching"], enter=enter)
    monkeypatch.setitem(SERVICES, "caching", service)
    return entries


class TestOpening:
    async def test_without_configuration_everything_is_embedded(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        async with Noobly.open() as noobly:
            await noobly.caching.put("key", {"name": "Ada"}, ttl=60)
            assert await noobly.caching.get("key") == {"name": "Ada"}
            assert noobly.caching.scope.provider == "memory"
            assert isinstance(noobly.caching, Cache)
            assert list(noobly.services) == list(SERVICES)
            assert {service.scope.provider for service in noobly.services.values()} == {"memory"}
            assert noobly.services["caching"] is noobly.caching

    async def test_a_file_is_read(self, tmp_path):
        path = tmp_path / "other.toml"
        path.write_text("[caching]\nttl = 60\n[caching.instances.sessions]\nurl = 'memory://'")
        async with Noobly.open(path) as noobly:
            assert noobly.caching.options.ttl == 60
            assert noobly.caching["sessions"].options.ttl is None

    async def test_a_file_and_settings_at_once_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="not both"):
            async with Noobly.open(tmp_path / "noobly.toml", settings=Settings()):
                pass

    async def test_named_instances_are_siblings_and_apart(self):
        async with Noobly.open(settings=NAMED) as noobly:
            sessions = noobly.caching["sessions"]
            await sessions.put("key", 1)
            assert await noobly.caching.get("key") is None
            assert noobly.caching["default"] is noobly.caching
            assert sessions["pages"]["sessions"] is sessions
            assert list(noobly.caching.siblings) == ["default", "sessions", "pages"]
            with pytest.raises(NotFound, match="configured are default, pages, sessions"):
                noobly.caching["carts"]

    async def test_all_instances_share_the_environment(self):
        environment = Environment(clock=FakeClock())
        async with Noobly.open(settings=NAMED, environment=environment) as noobly:
            assert noobly.environment is environment
            assert {live.portable.scope.environment for live in noobly.instances} == {environment}
            assert noobly.settings is NAMED

    async def test_two_applications_share_nothing(self):
        async with Noobly.open(settings=Settings()) as one, Noobly.open(settings=Settings()) as other:
            await one.caching.put("key", 1)
            assert await other.caching.get("key") is None
            assert one.environment is not other.environment


class TestClosing:
    async def test_order_and_reverse_order(self, journal):
        async with Noobly.open(settings=NAMED):
            assert journal == ["open default", "open sessions", "open pages"]
        assert journal[3:] == ["close pages", "close sessions", "close default"]

    async def test_one_that_fails_closes_those_that_were_open(self, journal):
        services = {"caching": {"sessions": Instance(url="memory://"), "broken": Instance(url="memory://")}}
        with pytest.raises(Unavailable) as caught:
            async with Noobly.open(settings=Settings(services=services)):
                pytest.fail("it must not open")
        assert journal == ["open default", "open sessions", "close sessions", "close default"]
        assert caught.value.service == "caching"
        assert caught.value.__notes__ == ["in the settings of [caching.instances.broken]"]

    async def test_an_error_in_the_body_closes_everything_and_gets_out(self, journal):
        with pytest.raises(ZeroDivisionError):
            async with Noobly.open(settings=NAMED):
                raise ZeroDivisionError
        assert len(journal) == 6

    async def test_being_cancelled_closes_everything(self, journal):
        opened = asyncio.Event()

        async def use():
            async with Noobly.open(settings=NAMED):
                opened.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(use())
        await opened.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert journal[3:] == ["close pages", "close sessions", "close default"]

    async def test_use_after_close_is_refused(self):
        async with Noobly.open(settings=NAMED) as noobly:
            pass
        with pytest.raises(Closed, match="'sessions' is closed"):
            await noobly.caching["sessions"].put("key", 1)
        assert {report.state for report in await noobly.health()} == {State.DOWN}

    async def test_a_server_that_does_not_answer_fails_the_start(self):
        settings = Settings(services={"caching": {"default": Instance(url=f"redis://127.0.0.1:{free_port()}/0")}})
        with pytest.raises(Unavailable):
            async with Noobly.open(settings=settings):
                pytest.fail("it must not open")


class TestServer:
    async def test_asgi_builds_the_server_with_its_options(self, monkeypatch):
        async with Noobly.open(settings=Settings()) as noobly:
            monkeypatch.setattr("noobly.server.app.build", lambda given, **options: (given, options))
            assert noobly.asgi(guard="everybody") == (noobly, {"guard": "everybody"})


@asynccontextmanager
async def checked(check, *, circuit=None):
    """Open a cache whose check is replaced."""
    async with open_cache() as cache:
        yield Live(portable=cache, check=check, circuit=circuit)


async def fine() -> None:
    """Answer a check."""


def failing(error):
    async def check():
        raise error

    return check


class TestHealth:
    async def test_ok(self):
        async with Noobly.open(settings=NAMED) as noobly:
            reports = await noobly.health()
        assert [report.service for report in reports if report.instance == "default"] == list(SERVICES)
        caches = [report.instance for report in reports if report.service == "caching"]
        assert caches == ["default", "sessions", "pages"]
        assert {(report.provider, report.circuit, report.error) for report in reports} == {("memory", "closed", None)}
        assert all(report.state is State.OK and 0 <= report.seconds < 1 for report in reports)

    @pytest.mark.parametrize(
        ("error", "state"),
        [(Unavailable("gone"), State.DOWN), (Internal("gone"), State.DOWN), (RateLimited("gone"), State.DEGRADED)],
    )
    async def test_what_a_failed_check_means(self, error, state):
        async with checked(failing(error)) as live:
            report = await health(live, within=1)
        assert (report.state, report.error, report.circuit) == (state, f"{error.code}: gone", None)

    async def test_an_answer_that_does_not_come_is_down(self):
        async with checked(asyncio.Event().wait) as live:
            report = await health(live, within=0.01)
        assert (report.state, report.error) == (State.DOWN, "deadline_exceeded: no answer within 0.01 s")

    async def test_one_that_fails_does_not_hide_the_others(self):
        async with Noobly.open(settings=NAMED) as noobly:
            first, *others = noobly.instances
            noobly.instances = (replace(first, check=asyncio.Event().wait), *others)
            reports = await noobly.health(within=0.05)
        assert [report.state for report in reports] == [State.DOWN] + [State.OK] * len(others)

    @pytest.mark.parametrize("failures", [1, 5])
    async def test_an_answer_after_failures_is_degraded_first(self, failures):
        async with open_cache() as cache:
            circuit = Breaker(cache.scope)
            for _ in range(failures):
                circuit.failed()
            report = await health(Live(portable=cache, check=fine, circuit=circuit), within=1)
        assert report.state is State.DEGRADED
        assert report.circuit == (Circuit.OPEN if failures == 5 else Circuit.CLOSED).value

    @pytest.mark.servers
    async def test_a_real_server_goes_down_and_comes_back(self):
        with private_or_skip("redis") as server:
            url = f"{server.url}?timeout=0.2&attempts=1&breaker_failures=1&breaker_pause=0.01"
            settings = Settings(services={"caching": {"default": Instance(url=url)}})
            async with Noobly.open(settings=settings) as noobly:

                async def state() -> State:
                    return (await _caching(noobly)).state

                assert await state() is State.OK
                server.pause()
                assert await state() is State.DOWN
                assert (await _caching(noobly)).circuit == "open"
                server.resume()
                await eventually(lambda: _is(state, State.DEGRADED))
                assert await state() is State.OK

    async def test_another_noobly_server_comes_and_goes(self, tmp_path):
        port = free_port()
        url = f"http://127.0.0.1:{port}?attempts=1&breaker_failures=1000"
        settings = Settings(services={"caching": {"default": Instance(url=url)}})
        async with Noobly.open(settings=settings) as noobly:

            async def state() -> State:
                return (await _caching(noobly)).state

            assert await state() is State.DOWN
            with serving(port, tmp_path) as server:
                await eventually(lambda: _is(state, State.OK), 20)
                await noobly.caching.put("key", 1)
                assert await noobly.caching.get("key") == 1
            assert server.returncode == 0
            assert await state() is State.DOWN


@contextmanager
def serving(port, folder):
    """Run ``noobly serve`` in a process of its own, and tell it to end by SIGTERM."""
    command = [sys.executable, "-m", "noobly", "serve", "--dev", "--port", str(port), "--data-dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder) as server:
        try:
            yield server
        finally:
            server.terminate()


async def _caching(noobly) -> Health:
    (report,) = [report for report in await noobly.health() if report.service == "caching"]
    return report


async def _is(state, wanted) -> bool:
    return await state() is wanted
