"""``noobly serve`` as an operator runs it: a process, its first words, its signals."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2

from noobly.caching import open_cache
from noobly.testing import free_port

from ..serving import half_a_request, refused

KEY = "a-key-of-the-serve-tests"


class Process:
    def __init__(self, process: asyncio.subprocess.Process, port: int, words: str) -> None:
        self.process = process
        self.base = f"http://127.0.0.1:{port}"
        self.port = port
        self.words = words

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            return await self.process.wait()


def inherited() -> dict[str, str]:
    """Return what says where the code is that is to be tested."""
    return {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}


@asynccontextmanager
async def serve(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
    port = free_port()
    given = arguments if "--port" in arguments else ("--port", str(port), *arguments)
    command = [sys.executable, "-m", "noobly", "serve", "--data-dir", str(folder), *given]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **inherited(), **(environ or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            words = (await process.stdout.readline()).decode()
            if "no API keys" in words:
                words += (await process.stdout.readline()).decode()
            if "Noobly serves" in words and "--port" not in arguments:
                await listening(port)
        yield Process(process, port, words)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        await writer.wait_closed()
        return


async def test_the_first_five_minutes(tmp_path: Path) -> None:
    async with serve(tmp_path, "--dev") as server, httpx2.AsyncClient(base_url=server.base, trust_env=False) as client:
        assert f"{server.base}/" in server.words
        assert (await client.put("/v1/caching/default/entry?key=user:1", json={"name": "Ada"})).status_code == 204
        assert (await client.get("/v1/caching/default/entry?key=user:1")).json() == {"name": "Ada"}
        async with open_cache(server.base) as cache:
            assert await cache.get("user:1") == {"name": "Ada"}
        assert "noobly_cache_reads_total" in (await client.get("/metrics")).text
        assert (await client.get("/openapi.json")).json()["openapi"].startswith("3.1")
        assert "<html" in (await client.get("/")).text
        assert await server.stop() == 0


async def test_sigterm_finishes_the_requests_under_way(tmp_path: Path) -> None:
    async with serve(tmp_path, "--dev") as server:
        reader, writer = await half_a_request(server.port, "k")
        stopping = asyncio.create_task(server.stop())
        await refused(server.port)
        writer.write(b"34")
        await writer.drain()
        assert b"204 No Content" in await reader.readline()
        writer.close()
        await writer.wait_closed()
        assert await stopping == 0


async def test_requests_that_take_too_long_are_cut_off(tmp_path: Path) -> None:
    async with serve(tmp_path, "--dev", environ={"NOOBLY_SERVER__SHUTDOWN_GRACE": "0.2"}) as server:
        reader, writer = await half_a_request(server.port, "k")
        began = asyncio.get_running_loop().time()
        await server.stop()
        assert asyncio.get_running_loop().time() - began < 15  # far from the 30 seconds that are the default
        assert b" 503 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
        assert server.process.stdout is not None
        printed = (await server.process.stdout.read()).decode()
        assert "requests were cut off" in printed
        assert "Traceback" not in printed


async def test_a_request_whose_head_never_ends_holds_nothing_up(tmp_path: Path) -> None:
    async with serve(tmp_path, "--dev", environ={"NOOBLY_SERVER__SHUTDOWN_GRACE": "0.2"}) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health/live HTTP/1.1\r\nhost: loc")
        await writer.drain()
        assert await server.stop() == 0
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        assert server.process.stdout is not None
        assert b"Traceback" not in await server.process.stdout.read()


@asynccontextmanager
async def connected(port: int, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open connections and say nothing on them."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


async def test_idle_connections_take_no_place_from_others(tmp_path: Path) -> None:
    async with (
        serve(tmp_path, "--dev") as server,
        connected(server.port, 200),
        httpx2.AsyncClient(base_url=server.base, trust_env=False, timeout=10) as client,
    ):
        assert (await client.get("/health/live")).status_code == 200


async def test_connections_and_idle_timeout_act(tmp_path: Path) -> None:
    environ = {"NOOBLY_SERVER__CONNECTIONS": "10", "NOOBLY_SERVER__IDLE_TIMEOUT": "1.5"}
    async with serve(tmp_path, "--dev", environ=environ) as server, connected(server.port, 10) as idle:
        began = asyncio.get_running_loop().time()
        async with httpx2.AsyncClient(base_url=server.base, trust_env=False, timeout=20) as client:
            assert (await client.get("/health/live")).status_code == 200
        # There was no place until the idle ones were closed.
        assert asyncio.get_running_loop().time() - began > 0.5
        assert [await reader.read() for reader in idle] == [b""] * 10


async def test_without_keys_a_link_lets_one_browser_in(tmp_path: Path) -> None:
    async with serve(tmp_path) as server, httpx2.AsyncClient(trust_env=False) as browser:
        link = re.search(r"http://\S+ticket=\S+", server.words)
        assert link is not None
        assert (await browser.get(f"{server.base}/v1/caching/default/stats")).status_code == 401
        assert (await browser.get(link[0])).status_code == 303
        assert (await browser.get(f"{server.base}/v1/caching/default/stats")).status_code == 200
        assert (await browser.get(link[0])).status_code == 401


async def test_keys_from_the_environment(tmp_path: Path) -> None:
    async with serve(tmp_path, environ={"NOOBLY_API_KEYS": f"other-key-of-the-tests,{KEY}"}) as server:
        assert KEY not in server.words
        async with httpx2.AsyncClient(base_url=server.base, trust_env=False) as client:
            url = "/v1/caching/default/stats"
            assert (await client.get(url)).status_code == 401
            assert (await client.get(url, headers={"x-api-key": KEY})).status_code == 200


async def test_keys_made_while_it_runs(tmp_path: Path) -> None:
    async with serve(tmp_path, environ={"NOOBLY_API_KEYS": KEY}) as server:
        command = [sys.executable, "-m", "noobly", "keys", "create", "--name", "reader", "--scope", "caching:read"]
        made = await asyncio.create_subprocess_exec(
            *command, "--data-dir", str(tmp_path), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await made.communicate()
        key = re.search(rb"noobly_\w+_\w+", printed)
        assert key is not None
        async with httpx2.AsyncClient(base_url=server.base, trust_env=False) as client:
            headers = {"authorization": f"Bearer {key[0].decode()}"}
            assert (await client.get("/v1/caching/default/stats", headers=headers)).status_code == 200
            assert (await client.put("/v1/caching/default/entry?key=k", json=1, headers=headers)).status_code == 403


async def test_port_0_is_any_free_one(tmp_path: Path) -> None:
    async with serve(tmp_path, "--dev", "--port", "0") as server, httpx2.AsyncClient(trust_env=False) as client:
        address = re.search(r"http://127\.0\.0\.1:(\d+)/", server.words)
        assert address is not None
        assert int(address[1]) > 0
        await listening(int(address[1]))
        assert (await client.get(f"{address[0]}health/live")).status_code == 200


async def test_it_refuses_to_be_open_to_others(tmp_path: Path) -> None:
    for arguments, words in ((["--host", "0.0.0.0"], "no API key"), (["--host", "0.0.0.0", "--dev"], "only loopback")):
        async with serve(tmp_path, *arguments) as server:
            assert words in server.words
            assert await server.process.wait() == 2
