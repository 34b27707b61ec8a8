"""``noobly logs`` against a running server, and against the file that the settings name."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from noobly.app import Noobly
from noobly.server.app import Application
from noobly.server.auth import KeyGuard, Sessions
from noobly.server.keys import Keyring, StaticKeys
from noobly.settings import Instance, Settings
from noobly.testing import eventually

from ..serving import serving

KEY = "a-key-of-the-logs-tests"


class Shell:
    def __init__(self, noobly: Noobly, base: str, folder: Path) -> None:
        self.noobly = noobly
        self.base = base
        self.folder = folder

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("env", "--default-signal=INT"),  # Tests that run in the background ignore it, and so would this.
            *(sys.executable, "-m", "noobly", "logs", *arguments, "--url", self.base, "--key", "env:LOGS_KEY"),
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "LOGS_KEY": KEY},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str) -> tuple[int | None, str, str]:
        process = await self.start(*arguments)
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    stored = Instance(url="memory://", options={"capture": False})
    async with Noobly.open(settings=Settings(services={"logging": {"default": stored}})) as noobly:
        application = Application(noobly, KeyGuard(Keyring([StaticKeys(KEY)]), Sessions()))
        async with serving(application) as base:
            yield Shell(noobly, base, tmp_path)
            application.drain()


async def test_searching(shell: Shell) -> None:
    for number in range(5):
        shell.noobly.logging.info(f"number {number}", order=number)
    shell.noobly.logging.warn("number nine")
    code, out, err = await shell.run("search", "NUMBER", "--limit", "2")
    assert (code, err) == (0, "")
    assert [text.partition("number ")[2][:4].strip() for text in out.splitlines()] == ["nine", "4 or"]
    code, out, _ = await shell.run("search", "--where", "order=3", "--json")
    assert [json.loads(text)["message"] for text in out.splitlines()] == ["number 3"]
    code, out, _ = await shell.run("search", "--level", "warn", "--since", "2026-01-01T00:00:00", "--json")
    assert [json.loads(text)["level"] for text in out.splitlines()] == ["warn"]
    code, _, err = await shell.run("search", "--level", "loud")
    assert code == 2
    assert "there is no level 'loud'" in err


@pytest.fixture
def levels() -> Iterator[None]:
    """Give the loggers of this process back the levels that they had, for other tests look at what is logged."""
    before = {log: log.level for log in (logging.getLogger(), logging.getLogger("shop"))}
    yield
    for log, level in before.items():
        log.setLevel(level)


@pytest.mark.usefixtures("levels")
async def test_the_level(shell: Shell) -> None:
    assert await shell.run("level") == (0, "info\n", "")
    assert await shell.run("level", "debug", "--json") == (0, '{"logger":"","level":"debug"}\n', "")
    assert await shell.noobly.logging.level() == "debug"
    assert await shell.run("level", "error", "--logger", "shop") == (0, "error\n", "")
    assert await shell.noobly.logging.level("shop.basket") == "error"
    assert (await shell.run("level", "loud"))[0] != 0


async def test_following(shell: Shell) -> None:
    process = await shell.start("tail", "paid", "--level", "warn", "--json")
    assert process.stdout is not None
    await eventually(lambda: shell.noobly.logging._tails.readers == 1, 60)
    shell.noobly.logging.info("paid")
    shell.noobly.logging.warn("paid late")
    async with asyncio.timeout(60):
        assert json.loads(await process.stdout.readline())["message"] == "paid late"
        process.send_signal(signal.SIGINT)
        assert (await process.communicate(), process.returncode) == ((b"", b""), 0)
    await eventually(lambda: shell.noobly.logging._tails.readers == 0, 60)


async def test_the_file_of_the_settings_needs_no_server(tmp_path: Path) -> None:
    (tmp_path / "noobly.toml").write_text('[logging]\nurl = "file:app.log"\n')
    record = '{"timestamp":"2026-01-02T03:04:05.000006Z","level":"warn","severity_number":13,"message":"kept"}\n'
    (tmp_path / "app.log").write_text(record)
    argv = [sys.executable, "-m", "noobly", "logs", "search", "--json"]
    process = await asyncio.create_subprocess_exec(*argv, cwd=tmp_path, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (process.returncode, out.decode()) == (0, record)


async def test_no_server(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "noobly", "logs", "level", "--url", "http://127.0.0.1:9"]
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert b"cannot be reached" in err
