"""The jobs of one queue in memory: who is next, who is held, and what has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count, islice

from noobly.core.clock import fresh_id
from noobly.working.driver import (
    FINAL,
    Added,
    Beat,
    Bounds,
    Claim,
    Claimed,
    Hold,
    JobRecord,
    NewJob,
    Outcome,
    Retention,
    State,
    Verdict,
)
from noobly.working.providers._outcomes import ASKED, error_after, state_after
from noobly.working.providers._stored import Stored

_LINES = 1000


class Table:
    """The jobs of one queue. Times are seconds of one clock that the caller reads."""

    def __init__(self) -> None:
        self.paused = False
        self.jobs: dict[str, Stored] = {}
        self._ready: list[tuple[tuple[int, int], str, int]] = []
        self._due: list[tuple[float, str, int]] = []
        self._keys: dict[str, tuple[str, float]] = {}
        self._ended: dict[str, None] = {}
        self._running: set[str] = set()
        self._sequence = count(1)
        self._free_at = 0.0

    def known(self, new: NewJob, now: float) -> Added | None:
        """Return what a new job duplicates; None for nothing."""
        if new.id in self.jobs:
            return Added(new.id, duplicate=True)
        holder = self._holder(new.unique, now)
        return Added(holder, duplicate=True) if holder is not None else None

    def _holder(self, key: str | None, now: float) -> str | None:
        """Return the job that has a key."""
        id, ends = self._keys.get(key, ("", 0.0)) if key is not None else ("", 0.0)
        return id if ends > now or (not ends and id in self.jobs) else None

    def add(self, new: NewJob, now: float) -> Stored:
        """Store a job."""
        waits = new.delay > 0 or new.pending > 0
        record = JobRecord(
            id=new.id,
            queue=new.queue,
            task=new.task,
            data=new.data,
            state=State.DELAYED if waits else State.QUEUED,
            priority=new.priority,
            retrying=new.retrying,
            timeout=new.timeout,
            created_at=now,
            run_at=now + new.delay,
            expires_at=now + new.delay + new.expires if new.expires else 0.0,
            parent=new.parent,
            parent_queue=new.parent_queue,
            pending=new.pending,
        )
        order = (-new.priority, next(self._sequence))
        stored = Stored(record=record, order=order, lenient=new.lenient, key=new.unique)
        self.jobs[new.id] = stored
        if new.unique is not None:
            self._keys[new.unique] = (new.id, now + new.unique_for if new.unique_for else 0.0)
        if not new.pending:
            self._line_up(stored, now)
        return stored

    def _line_up(self, stored: Stored, now: float) -> None:
        stored.changed = next(self._sequence)
        if stored.record.run_at > now:
            heappush(self._due, (stored.record.run_at, stored.record.id, stored.changed))
        else:
            heappush(self._ready, (stored.order, stored.record.id, stored.changed))

    def child_ended(self, id: str, now: float) -> None:
        """Count one job less that a job waits for; with the last one it is lined up."""
        stored = self.jobs.get(id)
        if stored is None or stored.record.state in FINAL or stored.record.pending <= 0:
            return
        stored.set(pending=stored.record.pending - 1)
        if stored.record.pending <= 0:
            if stored.record.run_at <= now:
                stored.set(state=State.QUEUED)
            self._line_up(stored, now)

    def wait_again(self, id: str) -> None:
        """Count one job more that a job waits for, where it waits at all."""
        stored = self.jobs.get(id)
        if stored is not None and stored.record.state not in FINAL and stored.record.pending > 0:
            stored.set(pending=stored.record.pending + 1)

    def claim(self, claim: Claim, now: float) -> Iterator[Claimed]:
        """Hand out jobs, within the bounds."""
        self.wake(now)
        room = min(claim.most, claim.bounds.running - len(self._running) if claim.bounds.running else claim.most)
        while room > 0 and not self.paused and self._next() is not None and self._may_start(claim.bounds, now):
            stored = self.jobs[heappop(self._ready)[1]]
            room -= 1
            yield self._hold(stored, claim, now)

    def _next(self) -> Stored | None:
        """Return the next job, passing over entries that are out of date."""
        while self._ready:
            _, id, changed = self._ready[0]
            stored = self.jobs.get(id)
            if stored is not None and stored.changed == changed:
                return stored
            heappop(self._ready)
        return None

    def _may_start(self, bounds: Bounds, now: float) -> bool:
        """Take one start from the queue's rate, where there is one left.

        A token bucket as a single time, the generic cell rate algorithm of ITU-T I.371: ``_free_at`` is when the bucket
        is full again, and one start costs ``period / starts``.
        """
        if not bounds.starts:
            return True
        cost = bounds.period / bounds.starts
        full = max(self._free_at, now) + cost
        if full - now > bounds.period + 1e-9:
            return False
        self._free_at = full
        return True

    def _hold(self, stored: Stored, claim: Claim, now: float) -> Claimed:
        stored.fence += 1
        stored.token, stored.until = fresh_id(), now + claim.lease
        attempts = stored.record.attempts + 1
        stored.set(state=State.RUNNING, attempts=attempts, started_at=now, worker=claim.worker)
        stored.changed = next(self._sequence)
        self._running.add(stored.record.id)
        heappush(self._due, (stored.until, stored.record.id, stored.changed))
        return Claimed(stored.record, stored.token, stored.fence)

    def wake(self, now: float) -> None:
        """Line up what has come due: delayed jobs, and those whose worker has vanished."""
        while self._due and self._due[0][0] <= now:
            _, id, changed = heappop(self._due)
            stored = self.jobs.get(id)
            if stored is None or stored.changed != changed:
                continue
            if stored.record.state is State.RUNNING:
                if stored.until > now:
                    heappush(self._due, (stored.until, id, changed))
                    continue
                self._running.discard(id)
                stored.set(stalls=stored.record.stalls + 1, attempts=stored.record.attempts - 1)
            stored.set(state=State.QUEUED, run_at=min(stored.record.run_at, now))
            self._line_up(stored, now)

    def next_due(self, bounds: Bounds, now: float) -> float | None:
        """Return when it is worth looking again; None where only a new job can change anything."""
        times = [self._due[0][0]] if self._due else []
        if bounds.starts and self._next() is not None:
            times.append(self._free_at + bounds.period / bounds.starts - bounds.period)
        return min(times, default=None)

    def held(self, hold: Hold, now: float) -> Stored | None:
        """Return the job of a claim that stands."""
        stored = self.jobs.get(hold.id)
        good = stored is not None and stored.record.state is State.RUNNING and stored.token == hold.token
        return stored if good and stored is not None and stored.until > now else None

    def beat(self, hold: Hold, lease: float, now: float) -> Beat:
        """Keep a claim."""
        stored = self.held(hold, now)
        if stored is None:
            return Beat.LOST
        until = now + lease
        if until < stored.until:
            heappush(self._due, (until, stored.record.id, stored.changed))
        stored.until = until
        return Beat.CANCELLED if stored.record.cancelling else Beat.KEPT

    def settle(self, outcome: Outcome, now: float) -> Stored | None:
        """End a claim; return the job, None where the claim does not stand."""
        stored = self.held(outcome.hold, now)
        if stored is None:
            return None
        state = state_after(outcome, stored.record.cancelling)
        if state.final:
            self.end(stored, state, now, result=outcome.result, error=error_after(outcome, state))
            return stored
        self._let_go(stored)
        counted = stored.record.attempts - (outcome.verdict is Verdict.RELEASE)
        error = outcome.error or stored.record.error
        stored.set(state=state, attempts=counted, run_at=now + outcome.delay, error=error)
        self._line_up(stored, now)
        return stored

    def _let_go(self, stored: Stored) -> None:
        self._running.discard(stored.record.id)
        stored.token = ""

    def end(self, stored: Stored, state: State, now: float, *, result: bytes = b"", error: str = "") -> None:
        """Bring a job to its last state."""
        self._let_go(stored)
        stored.changed = next(self._sequence)
        stored.set(state=state, finished_at=now, result=result, error=error, cancelling=False)
        self._ended[stored.record.id] = None
        if stored.key is not None and self._keys.get(stored.key) == (stored.record.id, 0.0):
            del self._keys[stored.key]

    def cancel(self, id: str, now: float) -> Stored | None:
        """Cancel a job, or ask for its end; return it where this ended it."""
        stored = self.jobs.get(id)
        if stored is None or stored.record.state in FINAL:
            return None
        if stored.record.state is State.RUNNING:
            stored.set(cancelling=True)
            return None
        self.end(stored, State.CANCELLED, now, error=ASKED)
        return stored

    def rerun(self, id: str, now: float) -> bool:
        """Queue a job at once."""
        stored = self.jobs.get(id)
        if stored is None or stored.record.state in (State.RUNNING, State.QUEUED, State.SUCCEEDED):
            return False
        if stored.record.state in FINAL:
            if not self._take_key(stored, now):
                return False
            self._ended.pop(id, None)
            stored.set(attempts=0, stalls=0, finished_at=0.0, cancelling=False, expires_at=0.0, pending=0)
        elif stored.record.pending > 0:
            return False
        stored.set(state=State.QUEUED, run_at=now)
        self._line_up(stored, now)
        return True

    def _take_key(self, stored: Stored, now: float) -> bool:
        """Let a job that runs again have its key again; false where another one has it."""
        holder = self._holder(stored.key, now)
        if holder is None and stored.key is not None:
            self._keys[stored.key] = (stored.record.id, 0.0)
        return holder in (None, stored.record.id)

    def remove(self, id: str) -> bool:
        """Forget a job that is not running."""
        stored = self.jobs.get(id)
        if stored is None or stored.record.state is State.RUNNING:
            return False
        self._forget(stored)
        return True

    def _forget(self, stored: Stored) -> None:
        del self.jobs[stored.record.id]
        self._ended.pop(stored.record.id, None)
        if stored.key is not None and self._keys.get(stored.key, ("", 0.0))[0] == stored.record.id:
            del self._keys[stored.key]

    def page(self, states: Sequence[State], skip: int, most: int) -> list[JobRecord]:
        """Return jobs in some states, the one that changed last first."""
        wanted = frozenset(states) or frozenset(State)
        found = [stored for stored in self.jobs.values() if stored.record.state in wanted]
        found.sort(key=lambda stored: stored.changed, reverse=True)
        return [stored.record for stored in islice(found, skip, skip + most)]

    def report(self, id: str, progress: bytes, lines: Sequence[str]) -> bool:
        """Store progress and log lines."""
        stored = self.jobs.get(id)
        if stored is None:
            return False
        if progress:
            stored.set(progress=progress)
        stored.lines = [*stored.lines, *lines][-_LINES:]
        return True

    def sweep(self, retention: Retention, now: float, wanted: Callable[[JobRecord], bool]) -> int:
        """Forget ended jobs past their retention, and of those that are too many the succeeded ones first.

        Args:
            retention: How long they are kept.
            now: The time.
            wanted: Says of a job that it must stay all the same.
        """
        free = [stored for id in self._ended if not wanted((stored := self.jobs[id]).record)]
        old = [stored for stored in free if stored.record.finished_at + stored.kept(retention) <= now]
        for stored in old:
            self._forget(stored)
        over = max(0, len(self._ended) - retention.most)
        young = (stored for stored in free if stored.record.id in self._ended)
        surplus = sorted(young, key=lambda stored: stored.record.state is not State.SUCCEEDED)[:over]
        for stored in surplus:
            self._forget(stored)
        return len(old) + len(surplus)
