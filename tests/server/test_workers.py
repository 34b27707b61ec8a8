"""``noobly serve --workers``: several processes on one port, one total, nothing lost that was published."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from noobly.core.errors import ConfigError, Unavailable
from noobly.server.serve import claim
from noobly.server.workers import run
from noobly.services import SERVICES
from noobly.settings import Instance, Server, Settings
from noobly.testing import eventually, free_port

from ..serving import half_a_request, refused

PUT = "/v1/caching/default/entry?key=user:{}"
COUNT = 'noobly_operation_duration_seconds_count{instance="http",operation="caching.put",outcome="204"'


def private_services() -> str:
    """Return the services that are in memory by default, save caching."""
    return ",".join(name for name, one in SERVICES.items() if one.default == "memory://" and name != "caching")


class Workers:
    def __init__(self, process: asyncio.subprocess.Process, port: int, folder: Path) -> None:
        self.process = process
        self.port = port
        self.base = f"http://127.0.0.1:{port}"
        self.run = folder / "run" / str(port)

    def pids(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(pid) for pid in children}

    async def ask(self, method: str, path: str) -> httpx2.Response:
        # A connection of its own each time, so that the kernel chooses a worker each time.
        async with httpx2.AsyncClient(base_url=self.base, trust_env=False) as client:
            return await client.request(method, path, json=1 if method == "PUT" else None)

    async def put(self, times: int) -> None:
        for number in range(times):
            assert (await self.ask("PUT", PUT.format(number))).status_code == 204

    async def sample(self, start: str) -> float:
        text = (await self.ask("GET", "/metrics")).text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(start))

    async def until(self, true: Callable[[], bool]) -> None:
        await eventually(true, 20)

    async def shows(self, start: str, wanted: float) -> None:
        found = -1.0
        for _ in range(400):
            found = await self.sample(start)
            if found == wanted:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{start} is {found}, not {wanted}")


@asynccontextmanager
async def serving(folder: Path, workers: int, **more: str) -> AsyncIterator[Workers]:
    port = free_port()
    command = [sys.executable, "-m", "noobly", "serve", "--dev", "--port", str(port), "--workers", str(workers)]
    environ = {
        "PATH": "/usr/bin:/bin",
        "NOOBLY_CACHING__URL": f"file://{folder}/cache",
        "NOOBLY_SERVER__PER_WORKER": private_services(),
        **more,
    }
    with (folder / "stderr.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, "--data-dir", str(folder), cwd=folder, env=environ, stdout=asyncio.subprocess.PIPE, stderr=log
        )
    found = Workers(process, port, folder)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert b"Noobly serves" in await process.stdout.readline()
        await found.until(lambda: len(list(found.run.glob("worker-*.metrics"))) >= workers)
        await ready(found)
        yield found
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def ready(workers: Workers) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await workers.ask("GET", "/health/live")
            except httpx2.TransportError:
                await asyncio.sleep(0.05)
                continue
            return


async def test_one_total_whoever_answers_and_whoever_dies(tmp_path: Path) -> None:
    async with serving(tmp_path, 2) as workers:
        assert len(workers.pids()) == 2
        await workers.put(40)
        await workers.shows(COUNT, 40)
        shown = 0.0
        for _ in range(20):
            await workers.put(1)
            now = await workers.sample(COUNT)
            assert now >= shown
            shown = now
        await workers.shows(COUNT, 60)
        assert {await workers.sample(COUNT) for _ in range(8)} == {60}
        assert await workers.sample("noobly_workers ") == 2
        await killed_and_replaced(workers)
        await workers.shows(COUNT, 60)
        assert await workers.sample('noobly_worker_ends_total{code="-9"}') == 3
        files = {path.name.partition(".")[0] for path in workers.run.glob("*.metrics")}
        assert {"dead", "supervisor"} < files
        assert len(files) == 4
        workers.process.terminate()
        assert await workers.process.wait() == 0
        assert not workers.run.exists()
    assert "panicked" not in (tmp_path / "stderr.log").read_text()


async def killed_and_replaced(workers: Workers) -> None:
    """Kill a worker three times, and wait each time until another is there."""
    for number in range(3):
        before = workers.pids()
        os.kill(min(before), signal.SIGKILL)
        await workers.until(lambda before=before: len(workers.pids() - before) == 1)  # type: ignore[misc]
        await workers.shows('noobly_worker_ends_total{code="-9"}', number + 1)
        await workers.shows("noobly_workers ", 2)
        await workers.until(lambda: len(list(workers.run.glob("worker-*.metrics"))) == 2)
        await ready(workers)


async def test_sigterm_drains_all_of_them(tmp_path: Path) -> None:
    async with serving(tmp_path, 2) as workers:
        links = [await half_a_request(workers.port, "user:1") for _ in range(6)]
        workers.process.terminate()
        await refused(workers.port)
        for reader, writer in links:
            writer.write(b"34")
            await writer.drain()
            assert b"204 No Content" in await reader.readline()
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(20):
            assert await workers.process.wait() == 0


async def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    async with serving(tmp_path, 2) as workers:
        pids = workers.pids()
        workers.process.kill()
        await workers.process.wait()
        await workers.until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids))


async def test_a_worker_that_is_told_to_end_is_replaced_and_its_counts_stay(tmp_path: Path) -> None:
    async with serving(tmp_path, 2) as workers:
        await workers.put(10)
        before = workers.pids()
        os.kill(min(before), signal.SIGTERM)
        await workers.until(lambda: len(workers.pids() - before) == 1)
        await ready(workers)
        await workers.shows(COUNT, 10)
        await workers.shows('noobly_worker_ends_total{code="0"}', 1)


async def test_a_tail_shows_the_records_of_all_workers(tmp_path: Path) -> None:
    async with serving(tmp_path, 2, NOOBLY_LOGGING__URL=f"file://{tmp_path}/app.log") as workers:
        heard: list[str] = []

        async def follow(client: httpx2.AsyncClient) -> None:
            async with client.stream("GET", "/v1/logging/default/tail?text=marked") as answer:
                begun.set()
                async for text in answer.aiter_lines():
                    heard.extend(re.findall(r'"message":"(marked \d+)"', text))

        begun = asyncio.Event()
        async with httpx2.AsyncClient(base_url=workers.base, trust_env=False, timeout=60) as client:
            following = asyncio.create_task(follow(client))
            async with asyncio.timeout(20):
                await begun.wait()
            while not heard:  # The answer begins before the reader does.
                await written(workers, "marked 0")
                await asyncio.sleep(0.05)
            for number in range(1, 20):  # Each on a connection of its own, so that both workers get some.
                await written(workers, f"marked {number}")
            await workers.until(lambda: "marked 19" in heard)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        assert [text for text in heard if text != "marked 0"] == [f"marked {number}" for number in range(1, 20)]


async def written(workers: Workers, message: str) -> None:
    async with httpx2.AsyncClient(base_url=workers.base, trust_env=False) as client:
        sent = await client.post("/v1/logging/default/records", json={"records": [{"message": message}]})
        assert sent.status_code == 200, sent.text


FILE = {"caching": {"default": Instance(url="file:///nowhere")}}


class TestRefusals:
    def test_what_lives_in_one_process(self, tmp_path: Path) -> None:
        server = Server(workers=2, data_dir=str(tmp_path), per_worker=private_services())
        carts = {"caching": {**FILE["caching"], "carts": Instance(url="memory://")}}
        with pytest.raises(ConfigError, match=r"2 workers would each keep caching\.instances\.carts"):
            run(Settings(server=server, services=carts), dev=True)

    def test_by_default_caching_does(self, tmp_path: Path) -> None:
        server = Server(workers=3, data_dir=str(tmp_path))
        with pytest.raises(ConfigError, match=r"3 workers would each keep .*caching.* per_worker if that"):
            run(Settings(server=server), dev=True)

    def test_an_unknown_instance_in_per_worker(self, tmp_path: Path) -> None:
        server = Server(workers=2, data_dir=str(tmp_path), per_worker="cachin")
        with pytest.raises(ConfigError, match=r"per_worker names cachin; the instances are .*caching"):
            run(Settings(server=server), dev=True)

    def test_the_printed_link(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NOOBLY_API_KEYS", raising=False)
        server = Server(workers=2, port=free_port(), data_dir=str(tmp_path), per_worker=private_services())
        with pytest.raises(ConfigError, match="several workers need an API key"):
            run(Settings(server=server, services=FILE), dev=False)


class TestClaim:
    def test_a_port_is_for_one_server(self) -> None:
        held, settings = claim(Settings(server=Server(port=0)))
        with held:
            assert settings.server.port > 0
            assert held.getsockname() == ("127.0.0.1", settings.server.port)

    async def test_one_that_is_in_use(self) -> None:
        listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, reuse_port=True)
        port = listening.sockets[0].getsockname()[1]
        async with listening:
            with pytest.raises(Unavailable, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
                claim(Settings(server=Server(port=port)))

    def test_an_address_of_another_machine(self) -> None:
        with pytest.raises(Unavailable, match=r"192\.0\.2\.1"):
            claim(Settings(server=Server(host="192.0.2.1", port=0)))


async def test_workers_that_cannot_begin_are_given_up(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "noobly", "serve", "--dev", "--port", str(port), "--workers", "2"]
    environ = {
        "PATH": "/usr/bin:/bin",
        "NOOBLY_CACHING__URL": "redis://127.0.0.1:1/0?timeout=0.2",
        "NOOBLY_SERVER__PER_WORKER": private_services(),
    }
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    assert process.returncode == 1
    assert re.search(rb"a worker ended with code \d+ 5 times in a row as soon as it began", said)
