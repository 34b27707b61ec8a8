"""``noobly bench``: the speed of providers, side by side on this machine."""

from __future__ import annotations

import asyncio
from typing import Annotated

from cyclopts import App, Parameter

from noobly.cli_reach import Json
from noobly.cli_show import bar, show, write

bench_app = App(name="bench", help="Measure providers, side by side on this machine.")


@bench_app.command
def queueing(
    *urls: Annotated[str, Parameter(help="What to measure, such as redis://localhost memory://.")],
    messages: Annotated[int, Parameter(help="Messages in each round.")] = 2000,
    rounds: Annotated[int, Parameter(help="Rounds; the middle one counts.")] = 3,
    concurrency: Annotated[int, Parameter(help="Tasks that send and receive at once.")] = 50,
    json: Json = False,
) -> None:
    """Measure queues: messages per second, and the time from sending to an idle receiver."""
    from noobly.queueing.bench import STEPS, measure

    chosen = urls or ("memory://",)
    with bar("measuring", len(chosen) * rounds * STEPS) as advance:
        figures = asyncio.run(
            measure(chosen, messages=messages, rounds=rounds, concurrency=concurrency, advance=advance)
        )
    show(figures, json=json)
    if not json:
        write(
            "Messages per second: sent, and received and acknowledged, one at a time by "
            f"{concurrency} tasks, and 100 at a time by one.\n"
            f"Milliseconds from sending to a receiver that waits. Medians of {rounds} rounds of {messages} messages."
        )
