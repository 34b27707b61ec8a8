"""Write the Grafana dashboard and the alert rules beside this file, or with --check fail where they are out of date."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from noobly import Noobly
from noobly.core.lines import Head
from noobly.measuring.rules import alerts, dashboard
from noobly.settings import Settings

HERE = Path(__file__).parent


async def declared() -> list[Head]:
    """Return what all metrics say of themselves, with every service opened as it is by default."""
    async with Noobly.open(settings=Settings()) as noobly:
        return noobly.environment.meter.heads


def main(arguments: Sequence[str]) -> int:
    """Write both files, or compare them; return the exit code."""
    heads = asyncio.run(declared())
    wanted = {HERE / "noobly.json": dashboard(heads), HERE / "alerts.yml": alerts(heads)}
    if "--check" not in arguments:
        for path, content in wanted.items():
            path.write_text(content, encoding="utf-8")
        return 0
    stale = [path.name for path, content in wanted.items() if not path.exists() or path.read_text("utf-8") != content]
    for name in stale:
        print(f"docs/grafana/{name} is out of date: run scripts/docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
