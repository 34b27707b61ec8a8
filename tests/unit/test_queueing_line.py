"""One queue of the memory provider against a model that is too simple to be wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from noobly.core.tally import Tally
from noobly.queueing.driver import Failure, Posted
from noobly.queueing.providers._line import Line


@dataclass
class Entry:
    """What the model knows of a message."""

    id: str
    number: int
    priority: int
    turn: int
    group: str | None
    due: float
    until: float = 0.0
    receipt: str = ""
    deliveries: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def order(self) -> tuple[int, int, int]:
        return -self.priority, self.turn, self.number


class Model:
    """All messages in one list, looked through from the start each time."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.keys: dict[str, tuple[str, float]] = {}
        self.turns: dict[str, int] = {}
        self.round = 0
        self.now = 0.0

    def add(self, message: Posted, number: int) -> str | None:
        """Return the id of the earlier message with the same key."""
        if message.dedup is not None:
            before, end = self.keys.get(message.dedup, ("", -1.0))
            if end > self.now:
                return before
            self.keys[message.dedup] = (message.id, self.now + message.window)
        turn = 0
        if message.tenant is not None:
            turn = self.turns[message.tenant] = max(self.round, self.turns.get(message.tenant, 0) + 1)
        due = self.now + message.delay
        self.entries.append(Entry(message.id, number, message.priority, turn, message.group, due))
        return None

    def held(self) -> list[Entry]:
        return [one for one in self.entries if one.until > self.now]

    def free(self) -> list[Entry]:
        return sorted((one for one in self.entries if one.until <= self.now), key=lambda one: one.order)

    def next(self) -> Entry | None:
        first = {one.group: one for one in reversed(self.entries) if one.group is not None}
        ready = [one for one in self.free() if one.due <= self.now and first.get(one.group, one) is one]
        return ready[0] if ready else None

    def drop(self, entry: Entry) -> None:
        self.entries.remove(entry)
        if not self.entries:
            self.turns.clear()


class LineMachine(RuleBasedStateMachine):
    """Does the same to both, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()
        self.line, self.model = Line(tally=self.tally), Model()
        self.receipts: list[str] = []
        self.sent = 0

    def drawn(self, data: st.DataObject, junk: str) -> str:
        """Return a receipt, mostly one that is or just was good."""
        good = [one.receipt for one in self.model.entries if one.receipt]
        return data.draw(st.sampled_from([*good, *good, *self.receipts[-3:], junk]))

    def standing(self, receipt: str) -> Entry | None:
        return next((one for one in self.model.held() if one.receipt == receipt), None)

    @rule(
        priority=st.sampled_from([0, 0, 0, 5]),
        group=st.sampled_from([None, "a", "a", "b"]),
        tenant=st.sampled_from([None, "x", "x", "y", "z"]),
        delay=st.sampled_from([0.0, 0.0, 1.0, 3.0]),
        dedup=st.sampled_from([None, None, "k", "l"]),
    )
    def add(self, priority: int, group: str | None, tenant: str | None, delay: float, dedup: str | None) -> None:
        self.sent += 1
        message = Posted(
            id=f"m{self.sent}",
            body=b"body",
            priority=priority,
            group=group,
            tenant=tenant,
            delay=delay,
            dedup=dedup,
            window=2.0,
        )
        before = self.model.add(message, self.sent)
        sent = self.line.add(message, self.model.now, 1000 + self.model.now)
        assert (sent.id, sent.duplicate) == ((before, True) if before else (message.id, False))

    @rule(
        tenants=st.lists(st.sampled_from("xxxyz"), min_size=2, max_size=5),
        priorities=st.lists(st.sampled_from([0, 5]), min_size=5, max_size=5),
        grouped=st.booleans(),
    )
    def add_some(self, tenants: list[str], priorities: list[int], grouped: bool) -> None:
        for tenant, priority in zip(tenants, priorities, strict=False):
            self.add(priority if grouped else 0, "a" if grouped else None, None if grouped else tenant, 0.0, None)

    @rule(times=st.integers(1, 5))
    def work_through(self, times: int) -> None:
        for _ in range(times):
            before = len(self.receipts)
            self.take(1, 5.0)
            for receipt in self.receipts[before:]:
                assert self.line.ack(receipt, self.model.now)
                self.model.drop(next(one for one in self.model.entries if one.receipt == receipt))

    @rule(most=st.integers(1, 4), lease=st.sampled_from([1.0, 2.0, 5.0]))
    def take(self, most: int, lease: float) -> None:
        found = list(self.line.take(most, lease, self.model.now))
        for one in found:
            entry = self.model.next()
            assert entry is not None
            assert not self.line.paused
            entry.deliveries += 1
            entry.until, entry.receipt = self.model.now + lease, one.receipt
            self.model.round = max(self.model.round, entry.turn)
            assert (one.message.id, one.deliveries) == (entry.id, entry.deliveries)
            assert one.receipt not in self.receipts
            self.receipts.append(one.receipt)
        assert len(found) == most or self.line.paused or self.model.next() is None

    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        receipt = self.drawn(data, "m1.1")
        entry = self.standing(receipt)
        assert self.line.ack(receipt, self.model.now) is (entry is not None)
        if entry is not None:
            self.model.drop(entry)

    @rule(data=st.data(), delay=st.sampled_from([0.0, 0.0, 1.0, 2.0]), reason=st.sampled_from(["", "a", "b"]))
    def nack(self, data: st.DataObject, delay: float, reason: str) -> None:
        receipt = self.drawn(data, "")
        entry = self.standing(receipt)
        assert self.line.nack(Failure(receipt, delay, reason), self.model.now) is (entry is not None)
        if entry is not None:
            entry.until, entry.due = 0.0, self.model.now + delay
            entry.errors += [reason] if reason else []

    @rule(data=st.data(), lease=st.sampled_from([0.5, 1.0, 4.0]))
    def extend(self, data: st.DataObject, lease: float) -> None:
        receipt = self.drawn(data, "m")
        entry = self.standing(receipt)
        assert self.line.extend(receipt, lease, self.model.now) is (entry is not None)
        if entry is not None:
            entry.until = self.model.now + lease

    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        receipt = self.drawn(data, "m.")
        entry = self.standing(receipt)
        dead = self.line.remove(Failure(receipt, 0.0, "dead"), self.model.now, 5.0)
        assert (dead is None) is (entry is None)
        if dead is not None and entry is not None:
            errors = [*entry.errors, "dead"]
            assert (dead.id, dead.attempts, dead.died_at) == (entry.id, entry.deliveries, 5.0)
            assert (dead.first_error, dead.last_error) == (errors[0], errors[-1])
            assert (dead.delay, dead.dedup, dead.group) == (0.0, None, entry.group)
            self.model.drop(entry)

    @rule(seconds=st.sampled_from([0.25, 1.0, 2.0]))
    def pass_time(self, seconds: float) -> None:
        self.model.now += seconds

    @rule()
    def purge(self) -> None:
        free = self.model.free()
        assert self.line.purge(self.model.now) == len(free)
        self.model.keys.clear()
        for entry in free:
            self.model.drop(entry)

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.line.paused = paused

    @rule()
    def counts_agree(self) -> None:
        counts = self.line.counts(self.model.now, 1000 + self.model.now)
        free = self.model.free()
        first = {one.group: one for one in reversed(self.model.entries) if one.group is not None}
        ready = [one for one in free if one.due <= self.model.now or first.get(one.group, one) is not one]
        assert (counts.ready, counts.delayed, counts.in_flight) == (
            len(ready),
            len(free) - len(ready),
            len(self.model.held()),
        )
        assert (counts.oldest is None) is (not ready)

    @rule()
    def the_same_is_seen(self) -> None:
        seen = self.line.peek(0, 1000, self.model.now)
        assert [(one.message.id, one.deliveries) for one in seen] == [
            (one.id, one.deliveries) for one in self.model.free()
        ]

    @invariant()
    def the_same_is_there(self) -> None:
        assert len(self.line) == len(self.model.entries)
        assert (self.tally.count, self.tally.bytes) == (len(self.line), 4 * len(self.model.entries))

    @invariant()
    def it_knows_when_something_comes_due(self) -> None:
        waits = [one.until for one in self.model.held()]
        first = {one.group: one for one in reversed(self.model.entries) if one.group is not None}
        waits += [one.due for one in self.model.free() if one.due > self.model.now and first.get(one.group, one) is one]
        due = self.line.next_due()
        assert not waits or (due is not None and due <= min(waits))


TestLine = LineMachine.TestCase
TestLine.settings = settings(max_examples=100, stateful_step_count=60)


def test_what_was_purged_beside_a_message_under_lease_is_swept_out() -> None:
    line = Line()
    line.add(Posted(id="held", body=b""), 0.0, 0.0)
    assert len(list(line.take(1, 3600.0, 0.0))) == 1
    for number in range(5000):
        line.add(Posted(id=f"m{number}", body=b""), 0.0, 0.0)
        line.purge(0.0)
    assert len(line._ready) < 2000


def test_tenants_whose_turn_has_passed_are_forgotten() -> None:
    line = Line()
    line.add(Posted(id="late", body=b"", delay=60.0), 0.0, 0.0)
    for number in range(100):
        line.add(Posted(id=f"m{number}", body=b"", tenant=f"t{number}"), 0.0, 0.0)
        line.add(Posted(id=f"n{number}", body=b"", tenant=f"t{number}"), 0.0, 0.0)
        for held in list(line.take(2, 60.0, 0.0)):
            assert line.ack(held.receipt, 0.0)
    assert len(line._turns) < 5


def test_what_is_done_is_swept_out() -> None:
    tally = Tally()
    line = Line(tally=tally)
    for number in range(5000):
        line.add(Posted(id=f"m{number}", body=b""), 0.0, 0.0)
        (held,) = line.take(1, 60.0, 0.0)
        assert line.ack(held.receipt, 0.0)
    assert len(line._due) < 2000
    assert len(line._ready) == 0
    assert (tally.count, tally.bytes) == (0, 0)


def test_a_message_that_is_there_already_is_not_stored_twice() -> None:
    tally = Tally()
    line = Line(tally=tally)
    for body in (b"one", b"longer"):
        assert line.add(Posted(id="same", body=body), 0.0, 0.0).id == "same"
    assert (len(line), tally.count, tally.bytes) == (1, 1, 3)
    (held,) = line.take(10, 60.0, 0.0)
    assert line.add(Posted(id="same", body=b"again"), 0.0, 0.0).duplicate
    assert line.ack(held.receipt, 0.0)
    assert (len(line), tally.count, tally.bytes) == (0, 0, 0)
