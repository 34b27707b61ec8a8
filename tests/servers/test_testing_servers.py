"""The launcher of real servers: what it finds, starts, disturbs and cleans up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

from noobly.core.errors import InvalidArgument
from noobly.testing import (
    SERVERS,
    OwnedServer,
    Reply,
    RunningServer,
    ServerFailed,
    ServerMissing,
    ServerSpec,
    eventually,
    free_port,
    obtain,
    private,
    private_or_skip,
    required,
    server_or_skip,
)
from noobly.testing._process import Process, born

pytestmark = pytest.mark.servers

ABSENT = msgspec.structs.replace(SERVERS["redis"], program="no-such-server", default_port=1)


@pytest.fixture(params=sorted(SERVERS))
def server(request: pytest.FixtureRequest) -> Iterator[OwnedServer]:
    with private_or_skip(request.param) as started:
        yield started


@pytest.fixture
def redis() -> Iterator[OwnedServer]:
    with private_or_skip("redis") as started:
        yield started


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noobly.testing.servers.SERVERS", {"redis": ABSENT})
    monkeypatch.delenv("NOOBLY_TEST_REDIS_URL", raising=False)
    monkeypatch.delenv("NOOBLY_REQUIRE_SERVERS", raising=False)


def probe(server: RunningServer) -> Reply:
    return server.spec.probe(server.host, server.port)


def ask(server: RunningServer, *lines: str) -> list[str]:
    with (
        socket.create_connection((server.host, server.port), timeout=5) as link,
        link.makefile("rb") as answers,
    ):
        link.sendall("".join(f"{line}\r\n" for line in lines).encode())
        return [answers.readline().decode().strip() for _ in lines]


def folder_of(server: OwnedServer) -> Path:
    return Path(f"/proc/{server.pid}/cwd").readlink()


def test_a_private_server_answers_and_leaves_nothing_behind(server: OwnedServer) -> None:
    assert server.owned
    assert server.url == f"{server.spec.scheme}://127.0.0.1:{server.port}"
    assert server.port != server.spec.default_port
    assert probe(server) is Reply.READY
    pid, folder = server.pid, folder_of(server)
    assert pid is not None
    server.close()
    assert probe(server) is Reply.SILENT
    assert born(pid) == ""
    assert not folder.exists()
    server.close()


def test_redis_keeps_nothing_and_refuses_to_evict(redis: OwnedServer) -> None:
    assert ask(redis, "CONFIG GET save")[0] == "*2"
    with socket.create_connection((redis.host, redis.port), timeout=5) as link:
        link.sendall(b"CONFIG GET maxmemory-policy\r\n")
        assert b"noeviction" in link.recv(200)


def test_arguments_override_the_launchers_own() -> None:
    with private_or_skip("redis", "--maxmemory-policy", "allkeys-lru", "--requirepass", "hunter2") as locked:
        assert probe(locked) is Reply.LOCKED
        with socket.create_connection((locked.host, locked.port), timeout=5) as link:
            link.sendall(b"AUTH hunter2\r\nCONFIG GET maxmemory-policy\r\n")
            answers = link.makefile("rb")
            assert b"allkeys-lru" in b"".join(answers.readline() for _ in range(6))
            answers.close()


def test_restart_keeps_the_port_and_loses_what_was_in_memory(redis: OwnedServer) -> None:
    assert ask(redis, "SET a 1", "DBSIZE") == ["+OK", ":1"]
    port, pid = redis.port, redis.pid
    redis.restart()
    assert (redis.port, redis.pid != pid) == (port, True)
    assert ask(redis, "DBSIZE") == [":0"]


@pytest.mark.parametrize("server", sorted(SERVERS.keys() - {"rabbitmq"}), indirect=True)  # too slow to start twice
def test_a_killed_server_refuses_connections_until_it_is_started(server: OwnedServer) -> None:
    server.kill()
    assert server.pid is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port))
    with pytest.raises(ServerFailed, match="is stopped"):
        server.pause()
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    assert probe(server) is Reply.READY


def test_a_server_killed_from_outside_can_be_restarted(redis: OwnedServer) -> None:
    assert redis.pid is not None
    os.kill(redis.pid, signal.SIGKILL)
    redis.restart()
    assert probe(redis) is Reply.READY


def test_data_on_disk_outlives_a_kill() -> None:
    with private_or_skip("redis", "--appendonly", "yes", "--appendfsync", "always") as durable:
        assert ask(durable, "SET a 1") == ["+OK"]
        durable.kill()
        durable.start()
        assert ask(durable, "DBSIZE") == [":1"]


def test_a_paused_server_is_silent_but_connected(redis: OwnedServer) -> None:
    with socket.create_connection((redis.host, redis.port)) as link:
        redis.pause()
        link.settimeout(0.1)
        link.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            link.recv(10)
        redis.resume()
        link.settimeout(5)
        assert link.recv(10) == b"+PONG\r\n"


def test_a_paused_server_is_closed_without_waiting(redis: OwnedServer) -> None:
    redis.pause()
    redis.stop()
    assert redis.pid is None


async def test_it_is_an_async_context_too() -> None:
    with private_or_skip("memcached") as skipped_if_missing:
        async with private("memcached") as server:
            assert server.port != skipped_if_missing.port
            assert probe(server) is Reply.READY
        assert probe(server) is Reply.SILENT


def test_obtain_prefers_the_environment_and_never_shows_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOOBLY_TEST_REDIS_URL", "redis://:hunter2@example.invalid/0")
    with obtain("redis") as named:
        assert (named.owned, named.host, named.port) == (False, "example.invalid", 6379)
        assert named.url == "redis://:hunter2@example.invalid/0"
        assert "hunter2" not in repr(named)


def test_obtain_reuses_a_server_on_the_standard_port_and_leaves_it_running(
    redis: OwnedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = msgspec.structs.replace(redis.spec, default_port=redis.port)
    monkeypatch.setattr("noobly.testing.servers.SERVERS", {"redis": here})
    monkeypatch.delenv("NOOBLY_TEST_REDIS_URL", raising=False)
    with obtain("redis") as found:
        assert (found.owned, found.url) == (False, redis.url)
    assert probe(redis) is Reply.READY


def test_obtain_does_not_reuse_a_server_that_wants_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with private_or_skip("redis", "--requirepass", "hunter2") as locked:
        here = msgspec.structs.replace(locked.spec, default_port=locked.port)
        monkeypatch.setattr("noobly.testing.servers.SERVERS", {"redis": here})
        monkeypatch.delenv("NOOBLY_TEST_REDIS_URL", raising=False)
        with obtain("redis") as own:
            assert own.owned
            assert own.port != locked.port


def test_obtain_without_any_server_says_what_to_install(absent: None) -> None:
    with pytest.raises(ServerMissing, match=r"no-such-server is not installed.*apt-get install redis-server"):
        obtain("redis")


def test_an_unknown_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InvalidArgument, match="'redsi'; there are: memcached, ministack, moto, prometheus, rabbitmq, redis"
    ):
        private("redsi")
    monkeypatch.setenv("NOOBLY_REQUIRE_SERVERS", "redis,redsi")
    with pytest.raises(InvalidArgument, match="redsi"):
        required()


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("", set()),
        ("all", {*SERVERS, "node"}),
        ("node,redis", {"node", "redis"}),
        ("redis", {"redis"}),
        (" redis , memcached,", {"redis", "memcached"}),
    ],
)
def test_required_reads_the_environment(setting: str, names: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOOBLY_REQUIRE_SERVERS", setting)
    assert required() == names


@pytest.mark.parametrize("fixture", [server_or_skip, private_or_skip])
def test_a_missing_server_skips_here_and_fails_where_it_is_required(
    fixture: Callable[[str], AbstractContextManager[object]], absent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(pytest.skip.Exception, match="no-such-server"), fixture("redis"):
        pass
    monkeypatch.setenv("NOOBLY_REQUIRE_SERVERS", "all")
    with pytest.raises(pytest.fail.Exception, match="no-such-server"), fixture("redis"):
        pass


def test_server_or_skip_gives_a_url() -> None:
    with server_or_skip("memcached") as url:
        assert url.startswith("memcached://")


def test_a_server_that_exits_shows_its_last_words() -> None:
    with (
        private_or_skip("redis"),
        pytest.raises(ServerFailed, match=r"exited with code 1; (.|\n)*no-such-option"),
    ):
        private("redis", "--no-such-option", "1")


def shell(script: str, **changes: object) -> ServerSpec:
    spec = msgspec.structs.replace(SERVERS["redis"], program="sh", arguments=lambda port, folder: ["-c", script])
    return msgspec.structs.replace(spec, **changes)


def test_a_server_that_never_answers_is_given_up_and_ended() -> None:
    with pytest.raises(ServerFailed, match=r"did not answer within 0.1 s; (.|\n)*thinking"):
        OwnedServer(shell("echo thinking; exec sleep 60", patience=0.1))


def test_a_port_that_was_taken_meanwhile_is_refused(redis: OwnedServer) -> None:
    redis.stop()
    squatter = subprocess.Popen(["redis-server", "--port", str(redis.port), "--save", ""], stdout=subprocess.DEVNULL)
    try:
        while probe(redis) is Reply.SILENT:
            assert squatter.poll() is None
        with pytest.raises(ServerFailed, match="was taken"):
            redis.start()
    finally:
        squatter.kill()
        squatter.wait()


def test_a_process_deaf_to_sigterm_is_killed(tmp_path: Path) -> None:
    deaf = Process(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 60; done"], tmp_path)
    while not deaf.output():
        assert deaf.running
    deaf.end(patience=0.05)
    assert deaf.exit_code == -signal.SIGKILL


def test_a_signal_never_reaches_a_process_that_took_over_the_id(tmp_path: Path) -> None:
    process = Process(["sleep", "60"], tmp_path)
    true_birth = process._born
    process._born = "0"
    process.send(signal.SIGKILL)
    assert process.running
    process._born = true_birth
    process.end()
    assert process.exit_code == -signal.SIGTERM


def test_a_server_does_not_outlive_a_killed_test_run(tmp_path: Path) -> None:
    script = "from noobly.testing import private; s = private('redis'); print(s.pid, flush=True); input()"
    with private_or_skip("redis"):
        launcher = subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    with launcher:
        assert launcher.stdout
        pid = int(launcher.stdout.readline())
        assert born(pid)
        launcher.kill()
    asyncio.run(eventually(lambda: not born(pid)))


def test_free_ports_are_outside_the_range_of_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port() < min(lowest, 32_768) for _ in range(20))
