"""Every code block of the README and of docs/ does what it says."""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from pathlib import Path

import httpx2
import pytest

from noobly.settings import Settings, check

from .blocks import ROOT, Block, blocks, pages, run_python, run_shell

PLUGIN = (ROOT / "tests/plugin/src/noobly_example_sqlite/__init__.py").read_text(encoding="utf-8")
ALL = [block for page in pages() for block in blocks(page)]
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")


def _named(*languages: str) -> list[pytest.ParameterSet]:
    return [pytest.param(block, id=block.name) for block in ALL if block.language in languages]


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and an environment without settings."""
    for name in ("NOOBLY_CONFIG", "NOOBLY_API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _text(block: Block, request: pytest.FixtureRequest) -> str:
    servers: dict[str, str] = {name: request.getfixturevalue(f"{name}_url") for name in block.needs}
    if "server" in servers:  # one server for all blocks, empty for each
        httpx2.post(f"{servers['server']}/v1/caching/default/clear", json={}).raise_for_status()
    return block.at(servers)


@pytest.mark.parametrize("block", _named("python"))
def test_python(block: Block, where: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    if "plugin" in block.tags:
        assert any(textwrap.indent(block.text, indent) in PLUGIN for indent in ("", "    "))
        return
    if "no-run" in block.tags:
        compile(block.text, block.name, "exec")
        return
    run_python(_text(block, request), block.name, lambda: capsys.readouterr().out)


@pytest.mark.parametrize("block", [one for one in _named("sh") if one.values[0].tags])
def test_shell(block: Block, where: Path, request: pytest.FixtureRequest) -> None:
    run_shell(_text(block, request), where, errors="errors" in block.tags)


@pytest.mark.parametrize("block", _named("toml", "json"))
def test_data_can_be_read(block: Block) -> None:
    assert tomllib.loads(block.text) if block.language == "toml" else json.loads(block.text)


@pytest.mark.parametrize("block", [one for one in _named("toml") if "settings" in one.values[0].tags])
def test_settings_are_good(block: Block, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"env:(\w+)", block.text):
        monkeypatch.setenv(name, "secret")
    (where / "noobly.toml").write_text(block.text)
    assert check(Settings.read()) == []


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()])
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor[1:] in _anchors(linked), f"{page.name} links to {target}{anchor}"


def _anchors(page: Path) -> set[str]:
    """Return a page's anchors, made from its headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_blocks() -> None:
    assert len(_named("python")) > 20
    assert {block.page.name for block in ALL} >= {"README.md", "caching.md", "write-a-provider.md"}
