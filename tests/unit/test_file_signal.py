"""Signals by way of a file: heard by all who watch it, with the system's help or without."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from noobly.clients import file_signal
from noobly.clients.file_signal import FileSignal
from noobly.testing import eventually


@pytest.fixture(params=["reported", "looked at"])
def path(request, tmp_path, monkeypatch) -> Path:
    if request.param == "looked at":
        monkeypatch.setattr(file_signal, "_inotify", lambda path: None)
    path = tmp_path / "naïve 鍵.db"
    path.write_text("content")
    return path


async def test_everybody_hears_it(path):
    heard = []
    async with AsyncExitStack() as stack:
        signals = [FileSignal(path, lambda who=who: heard.append(who)) for who in ("giver", "other", "third")]
        for signal in signals:
            await signal.start(stack)
        for times in (1, 2):
            signals[0].give()
            await eventually(lambda: {heard.count(who) for who in ("giver", "other", "third")} == {times})  # noqa: B023
    assert path.read_text() == "content"


async def test_several_of_one_turn_are_one(path, monkeypatch):
    touched = []
    async with AsyncExitStack() as stack:
        signal = FileSignal(path, lambda: None)
        await signal.start(stack)
        monkeypatch.setattr(file_signal.os, "utime", lambda path, ns: touched.append(path))
        for _ in range(100):
            signal.give()
        await asyncio.sleep(0)
        assert touched == [str(path)]


async def test_quiet_after_its_end(path):
    heard = []
    async with AsyncExitStack() as stack:
        signal = FileSignal(path, lambda: heard.append(1))
        await signal.start(stack)
    async with AsyncExitStack() as stack:
        other = FileSignal(path, lambda: heard.append(2))
        await other.start(stack)
        other.give()
        await eventually(lambda: heard)
    assert heard == [2]


async def test_a_file_that_is_gone_does_no_harm(path):
    heard = []
    async with AsyncExitStack() as stack:
        signal = FileSignal(path, lambda: heard.append(1))
        await signal.start(stack)
        path.unlink()
        await eventually(lambda: heard)
        heard.clear()
        signal.give()
        await asyncio.sleep(0)
    assert not path.exists()


def test_where_there_is_nothing_to_watch(tmp_path, monkeypatch):
    assert file_signal._inotify(str(tmp_path / "missing")) is None
    monkeypatch.setattr(file_signal.sys, "platform", "darwin")
    assert file_signal._inotify(str(tmp_path)) is None
