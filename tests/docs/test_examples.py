"""Every program in docs/examples runs, and prints what its docstring says."""

from __future__ import annotations

import ast
import runpy
import textwrap
from pathlib import Path

import pytest

from .blocks import DEV_SERVER, ROOT

EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
REDIS = 'environ.get("REDIS_URL"'
SERVER = 'environ.get("NOOBLY_URL"'


@pytest.mark.parametrize("example", [pytest.param(path, id=path.name) for path in EXAMPLES])
def test_example(
    example: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    source = example.read_text(encoding="utf-8")
    if REDIS in source:
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))
    if SERVER in source:
        monkeypatch.setenv("NOOBLY_URL", request.getfixturevalue("server_url"))
    monkeypatch.setenv("NOOBLY_API_KEYS", "")  # so that what an example sets is gone after it
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out == _promised(source)


def _promised(source: str) -> str:
    """Return what the docstring says is printed: the indented text after ``Prints:``."""
    doc = ast.get_docstring(ast.parse(source)) or ""
    return textwrap.dedent(doc.partition("Prints:\n\n")[2]) + "\n"


def test_examples_use_the_printed_addresses() -> None:
    named = {path.name for path in EXAMPLES if DEV_SERVER in path.read_text(encoding="utf-8")}
    assert named == {"remote_client.py"}
