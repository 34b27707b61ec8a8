"""Background jobs: Noobly against bullmq, arq, SAQ, taskiq and Celery in Python, and BullMQ in Node.js.

Jobs do nothing. In each of five rounds each variant adds 10,000 of them by 50 tasks at once; then one process works on
them, 50 at a time. All of it shares one core, with the Redis server; ``--cores all`` shows what a second one gives to
those who can use it. Python processes run on the same event loop (``--loop``); ``--rounds 1`` is a short run.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import redis.asyncio

from benchmarks._peers import Peer, Run, in_turn, install, spaced
from benchmarks._rounds import Outcome, Session, digits, run, spread
from noobly.testing import private
from noobly.testing._installed import NODE_PACKAGES

JOBS = 10_000
SPACED = 200
SPACING = 0.02
VERSIONS = {
    "arq": ("arq==0.28.0", "uvloop==0.23.0"),
    "saq": ("saq[redis]==0.26.4", "typing-extensions==4.16.0", "uvloop==0.23.0"),
    "taskiq": ("taskiq==0.13.0", "taskiq-redis==1.2.4", "uvloop==0.23.0"),
    "celery": ("celery[redis]==5.7.0", "uvloop==0.23.0"),
}
OTHERS = "; ".join([*(" ".join(one[:-1]) for one in VERSIONS.values()), "in Node.js " + NODE_PACKAGES[0]])
BARE, ARQ, NODE = "bullmq in Python", "arq", "BullMQ in Node.js"
MEMORY, SQLITE, BULL = "noobly memory", "noobly sqlite", "noobly bullmq"
GOALS = (
    ("added", BULL, BARE, 0.9),
    ("worked", BULL, BARE, 0.9),
    ("worked", SQLITE, ARQ, 10.0),
    ("worked", SQLITE, NODE, 3.0),
    ("worked", MEMORY, SQLITE, 1.0),
)


def peers(address: str, folder: Path) -> list[Peer]:
    """Return all that is compared; each has a database of its own on the server."""

    def other(name: str, venv: str, place: int, **environ: str) -> Peer:
        return Peer(
            name=name,
            program=f"on_{venv}.py",
            url=f"{address}/{place}",
            venv=venv,
            requirements=VERSIONS[venv],
            environ=environ,
        )

    bull = address.replace("redis", "bullmq", 1)
    return [
        Peer(name=MEMORY, program="on_noobly.py", url="memory://", together=True),
        Peer(name=SQLITE, program="on_noobly.py", url=f"sqlite://{folder}/jobs.db"),
        Peer(name=BULL, program="on_noobly.py", url=f"{bull}/0"),
        Peer(name=BARE, program="on_bullmq.py", url=f"{address}/1"),
        Peer(name=NODE, program="on_node.cjs", url=f"{address}/2"),
        other("taskiq", "taskiq", 3),
        other("SAQ", "saq", 4),
        other("Celery, threads", "celery", 5),
        other(ARQ, "arq", 6),
        other("arq that looks each 10 ms", "arq", 7, ARQ_POLL="0.01"),
    ]


class Found:
    """What was found of all peers, round by round."""

    def __init__(self, present: Sequence[Peer]) -> None:
        self.runs: dict[str, list[Run]] = {peer.name: [] for peer in present}

    def seconds(self, which: str, name: str) -> list[float]:
        return [getattr(one, which).seconds for one in self.runs.get(name, [])]

    def ratios(self, which: str, name: str, base: str) -> list[float]:
        pairs = zip(self.seconds(which, base), self.seconds(which, name), strict=True)
        return [theirs / ours for theirs, ours in pairs]

    def table(self, session: Session, which: str, title: str, note: str) -> None:
        """Add the table of adding, or of working."""
        rows = []
        for name, runs in self.runs.items():
            took = statistics.median(self.seconds(which, name))
            cpu = statistics.median(getattr(one, which).cpu for one in runs)
            ratios = spread(self.ratios(which, name, BARE)) if self.runs.get(BARE) else ("", "")
            rows.append([name, *ratios, digits(JOBS / took), digits(took / JOBS * 1e6), digits(cpu / JOBS * 1e6)])
        head = ["", f"x {BARE}", "spread", "per second", "µs", "CPU µs"]
        session.add(title, head, rows, self.goals(which) if session.options.cores == "one" else (), note)

    def goals(self, which: str) -> list[Outcome]:
        found = []
        for one, subject, base, least in GOALS:
            if one == which and self.runs.get(subject) and self.runs.get(base):
                ratios = self.ratios(which, subject, base)
                met = statistics.median(ratios) >= least
                what = f"{subject} per second x {base}"
                found.append(Outcome(what, " ".join(spread(ratios)), f"at least {least:g}", met))
        return found


async def cleared(address: str, folder: Path) -> None:
    """Empty the server, which is our own, and remove the file."""
    async with redis.asyncio.Redis.from_url(address) as client:
        await client.flushall()
    for file in await asyncio.to_thread(lambda: list(folder.iterdir())):
        file.unlink()


async def throughput(session: Session, present: Sequence[Peer], address: str, folder: Path) -> None:
    place = "" if session.options.cores == "one" else ", on all cores"
    titles = {"added": f"add, 50 tasks{place}", "worked": f"work, no-op jobs, concurrency 50{place}"}
    if not any(session.options.only in title for title in titles.values()):
        return
    found = Found(present)
    for _ in range(session.options.rounds):
        for peer in present:
            await cleared(address, folder)
            found.runs[peer.name].append(await in_turn(peer, JOBS, session.options.loop))
    note = (
        f"{JOBS:,} jobs in each turn; the CPU is that of the process that adds, or works, without the server's. "
        f"Peers keep their defaults beside the concurrency, so arq looks at its queue each 0.5 s. {OTHERS}."
    )
    for which, title in titles.items():
        found.table(session, which, title, note)


async def promptness(session: Session, present: Sequence[Peer], address: str, folder: Path) -> None:
    """Show how late jobs begin on an idle worker."""
    title = f"from adding to the start on an idle worker, {SPACED} jobs"
    if session.options.only not in title:
        return
    rows, goals = [], []
    for peer in present:
        await cleared(address, folder)
        late = [1e3 * one for one in (await spaced(peer, SPACED, SPACING, session.options.loop)).worked.late]
        cuts = statistics.quantiles(late, n=100)
        rows.append([peer.name, *(digits(one) for one in (cuts[49], cuts[98], max(late)))])
        if peer.name.startswith("noobly"):
            goals.append(Outcome(f"{peer.name}: p99 ms", digits(cuts[98]), "under 10", cuts[98] < 10))
    note = f"Jobs are added one by one, {1e3 * SPACING:g} ms apart, by another process; on memory, by the same one."
    session.add(title, ["", "p50 ms", "p99 ms", "most ms"], rows, goals, note)


async def working(session: Session) -> None:
    """Background jobs, one worker process, against peers in Python and Node.js."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with private("redis") as server:
            present = []
            for peer in peers(server.url, folder):
                if missing := install(peer):
                    print(f"without {peer.name}: {missing}", flush=True)
                else:
                    present.append(peer)
            await throughput(session, present, server.url, folder)
            await promptness(session, present, server.url, folder)


if __name__ == "__main__":
    run(working, packages=("bullmq", "redis", "hiredis", "msgspec", "uvloop"), rounds=5)
