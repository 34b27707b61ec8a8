"""RabbitMQ, the AWS emulators and Node.js as the launcher starts, recognises and finds them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from noobly.testing import (
    SERVERS,
    OwnedServer,
    Reply,
    RunningServer,
    ServerMissing,
    eventually,
    node,
    node_or_skip,
    private,
    private_or_skip,
)

pytestmark = pytest.mark.servers


def probe(server: RunningServer) -> Reply:
    return server.spec.probe(server.host, server.port)


def answers(port: int) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


def port_mapper_of(server: OwnedServer) -> int:
    environment = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
    return next(int(entry.partition(b"=")[2]) for entry in environment if entry.startswith(b"ERL_EPMD_PORT="))


def call_sqs(server: RunningServer, action: str, arguments: dict[str, str]) -> dict[str, object]:
    scope = "Credential=test/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0"
    headers = {"X-Amz-Target": f"AmazonSQS.{action}", "Authorization": f"AWS4-HMAC-SHA256 {scope}"}
    headers |= {"Content-Type": "application/x-amz-json-1.0"}
    request = urllib.request.Request(server.url, json.dumps(arguments).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, object] = json.load(answer)
        return found


@contextmanager
def speaking(behave: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """Listen, and treat the first connection in a thread."""

    def accept() -> None:
        link, _ = listener.accept()
        with link:
            behave(link)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()
        thread.join()


def refuse_the_guest(link: socket.socket) -> None:
    link.recv(8)
    link.sendall(b"\x01\0\0\0\0\0\x04\0\x0a\0\x0a\xce")
    link.recv(200)


def answer_in_a_foreign_tongue(link: socket.socket) -> None:
    link.recv(200)
    link.sendall(b"220 mail.example ESMTP\r\n")


def test_rabbitmq_is_paused_killed_and_restarted_with_its_port_mapper() -> None:
    with private_or_skip("rabbitmq") as rabbitmq:
        rabbitmq.pause()
        assert probe(rabbitmq) is Reply.SILENT
        rabbitmq.resume()
        asyncio.run(eventually(lambda: probe(rabbitmq) is Reply.READY))
        mapper = port_mapper_of(rabbitmq)
        assert answers(mapper)
        assert rabbitmq.pid is not None
        os.kill(rabbitmq.pid, signal.SIGKILL)
        asyncio.run(eventually(lambda: not answers(mapper)))
        rabbitmq.restart()
        assert answers(mapper)
        rabbitmq.stop()
        asyncio.run(eventually(lambda: not answers(mapper)))


def test_a_rabbitmq_that_refuses_guests_is_locked() -> None:
    with speaking(refuse_the_guest) as address:
        assert SERVERS["rabbitmq"].probe(*address) is Reply.LOCKED


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_something_else_on_the_port_is_no_server(name: str) -> None:
    with speaking(answer_in_a_foreign_tongue) as address:
        assert SERVERS[name].probe(*address) is Reply.SILENT


@pytest.mark.parametrize("name", ["ministack", "moto"])
def test_the_aws_emulators_have_queues_at_their_own_address_and_forget_them(name: str) -> None:
    with private_or_skip(name) as server:
        created = call_sqs(server, "CreateQueue", {"QueueName": "launched"})["QueueUrl"]
        assert isinstance(created, str)
        assert (created.startswith(f"{server.url}/"), created.endswith("/launched")) == (True, True)
        assert call_sqs(server, "ListQueues", {}) == {"QueueUrls": [created]}
        server.restart()
        assert not call_sqs(server, "ListQueues", {}).get("QueueUrls")


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path


def test_programs_are_found_in_the_nearest_servers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOOBLY_SERVERS", raising=False)
    deep = tmp_path / "tests" / "unit"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    own = program(tmp_path / ".servers" / "venv" / "bin" / "moto_server")
    assert SERVERS["moto"].installed == str(own)
    named = program(tmp_path / "elsewhere" / "venv" / "bin" / "moto_server")
    monkeypatch.setenv("NOOBLY_SERVERS", "../../elsewhere")
    assert Path(SERVERS["moto"].installed or "").resolve() == named


def test_a_missing_program_of_pip_names_its_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOOBLY_SERVERS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerMissing, match=r"moto_server is not installed.*or pip install moto==5.2.5 flask"):
        private("moto")


def test_node_finds_the_packages_and_runs_them() -> None:
    found = node_or_skip()
    command = [found.program, "-e", "require('ioredis'); process.stdout.write(typeof require('bullmq').Queue)"]
    ran = subprocess.run(command, env={**os.environ, **found.environment}, capture_output=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == (b"function", b"")


def test_missing_packages_of_node_skip_here_and_fail_where_they_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOOBLY_SERVERS", str(tmp_path))
    monkeypatch.delenv("NOOBLY_REQUIRE_SERVERS", raising=False)
    program(tmp_path / "bin" / "node")
    with pytest.raises(ServerMissing, match=r"bullmq@6.7.0, ioredis@6.0.0 is not installed: run scripts/servers"):
        node()
    with pytest.raises(pytest.skip.Exception, match="bullmq"):
        node_or_skip()
    monkeypatch.setenv("NOOBLY_REQUIRE_SERVERS", "node")
    with pytest.raises(pytest.fail.Exception, match="bullmq"):
        node_or_skip()
