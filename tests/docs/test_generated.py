"""What is generated in docs/ is up to date, and the index leads to everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .blocks import ROOT

DOCS = ROOT / "docs"


def _check(docs: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(docs / "generate.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_generated_parts_are_up_to_date() -> None:
    done = _check(DOCS)
    assert done.returncode == 0, done.stderr


def test_the_index_lists_every_page_program_and_decision() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    wanted = [*DOCS.glob("*.md"), *DOCS.glob("examples/*.py"), *DOCS.glob("decisions/*.md")]
    names = [str(path.relative_to(DOCS)) for path in wanted if path.name != "index.md"]
    assert [name for name in names if f"]({name})" not in index] == []


def test_a_stale_page_is_found(tmp_path: Path) -> None:
    for name in ("generate.py", "providers.md", "caching.md"):
        (tmp_path / name).write_bytes((DOCS / name).read_bytes())
    with (tmp_path / "caching.md").open("a") as page:
        page.write("\n<!-- generated: errors -->\nby hand\n<!-- end -->\n")
    done = _check(tmp_path)
    assert done.returncode == 1
    assert "-by hand" in done.stderr
    assert "caching.md is out of date: run scripts/docs" in done.stderr
