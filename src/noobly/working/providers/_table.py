"""The jobs of one queue in memory: who is next, who is held, and what has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush, merge
from itertools import count, islice

from msgspec.structs import replace

from noobly.core.clock import fresh_id
from noobly.core.tally import Tally
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
from noobly.working.providers._keys import Keys
from noobly.working.providers._outcomes import error_after, state_after
from noobly.working.providers._stored import Stored, fresh
from noobly.working.states import ASKED, LATE

_LINES = 1000


class Table:
    """The jobs of one queue.

    Times that callers give are seconds of one clock that never goes back; those that jobs bear are of the wall clock.

    Args:
        wall: Returns seconds since the epoch.
        tally: Counts the jobs, with those of other queues.
    """

    def __init__(self, wall: Callable[[], float], tally: Tally | None = None) -> None:
        self.paused = False
        self.jobs: dict[str, Stored] = {}
        self.states: dict[State, dict[str, Stored]] = {state: {} for state in State}
        """The jobs in each state, the one that changed last at the end."""
        self._wall = wall
        self._tally = tally or Tally()
        self._ready: list[tuple[tuple[int, int], str, int]] = []
        self._due: list[tuple[float, str, int]] = []
        self._expiring: list[tuple[float, str]] = []
        self._keys = Keys(self.jobs)
        self._sequence = count(1)
        self._free_at = 0.0

    def known(self, new: NewJob, now: float) -> Added | None:
        """Return what a new job duplicates; None for nothing."""
        if new.id in self.jobs:
            return Added(new.id, duplicate=True)
        holder = self._keys.holder(new.unique, now)
        return Added(holder, duplicate=True) if holder is not None else None

    def add(self, new: NewJob, now: float) -> Stored:
        """Store a job."""
        added = fresh(new, next(self._sequence), now, self._wall())
        self.jobs[new.id] = self.states[added.record.state][new.id] = added
        added.size = added.weight()
        self._tally.add(added.size)
        self._keys.give(new.unique, new.id, now + new.unique_for if new.unique_for else 0.0)
        if new.pending:
            self._watch(added)
        else:
            self._line_up(added, now)
        return added

    def _move(self, stored: Stored, state: State, **changes: object) -> None:
        """Bring a job to a state; it is the one that changed last."""
        record = stored.record
        del self.states[record.state][record.id]
        stored.record = replace(record, state=state, **changes)
        stored.changed = next(self._sequence)
        self.states[state][record.id] = stored

    def _line_up(self, stored: Stored, now: float) -> None:
        self._watch(stored)
        if stored.due > now:
            heappush(self._due, (stored.due, stored.record.id, stored.changed))
        else:
            heappush(self._ready, (stored.order, stored.record.id, stored.changed))

    def _watch(self, stored: Stored) -> None:
        if stored.expires and not stored.fence:
            heappush(self._expiring, (stored.expires, stored.record.id))

    def child_ended(self, id: str, now: float) -> None:
        """Count one job less that a job waits for; with the last one it is lined up."""
        stored = self.jobs.get(id)
        if stored is None or stored.record.state in FINAL or stored.record.pending <= 0:
            return
        stored.set(pending=stored.record.pending - 1)
        if stored.record.pending <= 0:
            self._move(stored, State.QUEUED if stored.due <= now else State.DELAYED)
            self._line_up(stored, now)

    def wait_again(self, id: str) -> None:
        """Count one job more that a job waits for, where it waits at all."""
        stored = self.jobs.get(id)
        if stored is not None and stored.record.state not in FINAL and stored.record.pending > 0:
            stored.set(pending=stored.record.pending + 1)

    def claim(self, claim: Claim, now: float) -> Iterator[Claimed]:
        """Hand out jobs, within the bounds."""
        self.wake(now)
        room = min(
            claim.most, claim.bounds.running - len(self.states[State.RUNNING]) if claim.bounds.running else claim.most
        )
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
        full = max(self._free_at, now) + bounds.cost
        if full - now > bounds.period + 1e-9:
            return False
        self._free_at = full
        return True

    def _hold(self, stored: Stored, claim: Claim, now: float) -> Claimed:
        stored.fence += 1
        stored.token, stored.until = fresh_id(), now + claim.lease
        attempts = stored.record.attempts + 1
        self._move(stored, State.RUNNING, attempts=attempts, started_at=self._wall(), worker=claim.worker)
        heappush(self._due, (stored.until, stored.record.id, stored.changed))
        return Claimed(stored.record, stored.token, stored.fence)

    def wake(self, now: float) -> None:
        """Line up what has come due: delayed jobs, and those whose worker has vanished."""
        while self._due and self._due[0][0] <= now:
            _, id, changed = heappop(self._due)
            stored = self.jobs.get(id)
            if stored is None or stored.changed != changed:
                continue
            vanished = stored.record.state is State.RUNNING
            if vanished and stored.until > now:
                heappush(self._due, (stored.until, id, changed))
                continue
            stalls, attempts = stored.record.stalls + vanished, stored.record.attempts - vanished
            self._move(stored, State.QUEUED, stalls=stalls, attempts=attempts)
            self._line_up(stored, now)

    def expire(self, now: float) -> list[Stored]:
        """End the jobs that nobody has begun in their time, and return them."""
        ended: list[Stored] = []
        while self._expiring and self._expiring[0][0] <= now:
            stored = self.jobs.get(heappop(self._expiring)[1])
            if stored is not None and stored.late(now):
                self.end(stored, State.EXPIRED, now, error=LATE)
                ended.append(stored)
        return ended

    def next_due(self, bounds: Bounds, now: float) -> float | None:
        """Return when it is worth looking again; None where only a new job can change anything."""
        times = [self._due[0][0]] if self._due else []
        if bounds.starts and self._next() is not None:
            times.append(self._free_at + bounds.cost - bounds.period)
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
        if state in FINAL:
            self.end(stored, state, now, result=outcome.result, error=error_after(outcome, state))
            return stored
        stored.token, stored.due = "", now + outcome.delay
        attempts = stored.record.attempts - (outcome.verdict is Verdict.RELEASE)
        error = outcome.error or stored.record.error
        self._move(stored, state, attempts=attempts, run_at=self._wall() + outcome.delay, error=error)
        self._line_up(stored, now)
        return stored

    def end(self, stored: Stored, state: State, now: float, *, result: bytes = b"", error: str = "") -> None:
        """Bring a job to its last state."""
        stored.token, stored.ended = "", now
        self._move(stored, state, finished_at=self._wall(), result=result, error=error, cancelling=False)
        self._weigh(stored)
        self._keys.end(stored.key, stored.record.id)

    def _weigh(self, stored: Stored) -> None:
        size = stored.weight()
        self._tally.grow(size - stored.size)
        stored.size = size

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
            if not self._keys.take(stored.key, id, now):
                return False
            stored.set(attempts=0, stalls=0, finished_at=0.0, cancelling=False, expires_at=0.0, pending=0)
            stored.expires = 0.0
        elif stored.record.pending > 0:
            return False
        stored.due = now
        self._move(stored, State.QUEUED, run_at=self._wall())
        self._line_up(stored, now)
        return True

    def remove(self, id: str) -> bool:
        """Forget a job that is not running."""
        stored = self.jobs.get(id)
        if stored is None or stored.record.state is State.RUNNING:
            return False
        self._forget(stored)
        return True

    def _forget(self, stored: Stored) -> None:
        del self.jobs[stored.record.id]
        del self.states[stored.record.state][stored.record.id]
        self._tally.drop(stored.size)
        self._keys.forget(stored.key, stored.record.id)

    def page(self, states: Sequence[State], skip: int, most: int) -> list[JobRecord]:
        """Return jobs in some states, the one that changed last first."""
        kinds = [reversed(self.states[state].values()) for state in frozenset(states) or State]
        found = merge(*kinds, key=lambda stored: -stored.changed)
        return [stored.record for stored in islice(found, skip, skip + most)]

    def report(self, id: str, progress: bytes, lines: Sequence[str]) -> bool:
        """Store progress and log lines of a job that has not ended."""
        stored = self.jobs.get(id)
        if stored is None or stored.record.state in FINAL:
            return False
        if progress:
            stored.set(progress=progress)
        stored.lines = [*stored.lines, *lines][-_LINES:]
        self._weigh(stored)
        return True

    def sweep(self, retention: Retention, now: float, wanted: Callable[[JobRecord], bool]) -> int:
        """Forget ended jobs past their retention, but for those that are ``wanted``; succeeded ones first."""
        ended = [stored for state in FINAL for stored in self.states[state].values()]
        free = [stored for stored in ended if not wanted(stored.record)]
        old = [stored for stored in free if stored.kept_until(retention) <= now]
        young = [stored for stored in free if stored.kept_until(retention) > now]
        young.sort(key=lambda stored: (stored.record.state is not State.SUCCEEDED, stored.changed))
        gone = [*old, *young[: max(0, len(ended) - len(old) - retention.most)]]
        for stored in gone:
            self._forget(stored)
        return len(gone)
