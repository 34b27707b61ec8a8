"""One queue in memory: which message comes next, who holds it, and when what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count

import msgspec

from noobly.core.tally import Tally
from noobly.queueing.driver import ANSWER_BYTES, Counts, Failure, Leased, Posted, Sent, fitting

_SWEPT = 1024
"""Entries of a heap beyond twice what is alive, from which on the dead ones are swept out."""


class Kept(msgspec.Struct, kw_only=True):
    """A stored message and where it stands; ``number`` changes with each delivery and makes the receipt."""

    message: Posted
    sent_at: float
    order: tuple[int, int, int]
    deliveries: int = 0
    number: int = 0
    until: float = 0.0
    held: bool = False
    due: float = 0.0


class Line:
    """A queue's messages. Times are seconds of one clock that the caller reads.

    Heaps hold entries that may be out of date; each is checked against the message when it is taken.

    Args:
        numbers: Where deliveries get their numbers, so that a queue that was forgotten and made anew repeats none.
        tally: Counts the messages, with those of other queues.
    """

    def __init__(self, numbers: Iterator[int] | None = None, tally: Tally | None = None) -> None:
        self.paused = False
        self.listed = False
        self._messages: dict[str, Kept] = {}
        self._ready: list[tuple[tuple[int, int, int], str]] = []
        self._due: list[tuple[float, str, int]] = []
        self._groups: dict[str, list[tuple[int, str]]] = {}
        self._first: dict[str, str] = {}
        self._keys: dict[str, tuple[str, float]] = {}
        self._key_ends: list[tuple[float, str]] = []
        self._turns: dict[str, int] = {}
        self._round = 0
        self._sequence = count(1)
        self._numbers = numbers or count(1)
        self._tally = tally or Tally()

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Posted, now: float, wall: float) -> Sent:
        """Store a message, unless its key was sent shortly before, or it is there already."""
        self.listed = True
        if message.id in self._messages:
            return Sent(message.id, duplicate=True)
        if message.dedup is not None and (before := self._known(message.dedup, now)):
            return Sent(before, duplicate=True)
        if message.dedup is not None:
            self._keys[message.dedup] = (message.id, now + message.window)
            heappush(self._key_ends, (now + message.window, message.dedup))
        kept = Kept(message=message, sent_at=wall, order=self._order(message), due=now + message.delay)
        self._messages[message.id] = kept
        self._tally.add(len(message.body) + len(message.headers))
        self._line_up(kept)
        return Sent(message.id)

    def _known(self, key: str, now: float) -> str | None:
        while self._key_ends and self._key_ends[0][0] <= now:
            end, old = heappop(self._key_ends)
            if self._keys.get(old, ("", 0.0))[1] == end:
                del self._keys[old]
        found = self._keys.get(key)
        return found[0] if found else None

    def _order(self, message: Posted) -> tuple[int, int, int]:
        """Return a message's place: by priority, then by its tenant's turn, then by when it was sent.

        A tenant's messages take one turn after another, from the present one on, so that all tenants advance alike.
        """
        turn = 0
        if message.tenant is not None:
            turn = max(self._round, self._turns.get(message.tenant, 0) + 1)
            self._turns[message.tenant] = turn
        return -message.priority, turn, next(self._sequence)

    def _line_up(self, kept: Kept) -> None:
        """Put a message where it waits: behind its group, for its time, or for a receiver."""
        message = kept.message
        if message.group is not None and self._first.setdefault(message.group, message.id) != message.id:
            heappush(self._groups.setdefault(message.group, []), (kept.order[-1], message.id))
        elif message.delay > 0 or kept.number:
            heappush(self._due, (kept.due, message.id, kept.number))
        else:
            heappush(self._ready, (kept.order, message.id))

    def take(self, most: int, lease: float, now: float) -> Iterator[Leased]:
        """Lease the next messages."""
        self._wake(now)
        if self.paused:
            return
        left = ANSWER_BYTES
        while most and self._ready and left > 0:
            order, identity = heappop(self._ready)
            kept = self._messages.get(identity)
            if kept is None or kept.held or kept.order != order:
                continue
            self._advance(order[1])
            most -= 1
            left -= len(kept.message.body)
            yield self._lease(kept, lease, now)

    def _advance(self, turn: int) -> None:
        """Let the round go on; a tenant whose turn has passed counts like a new one."""
        if turn > self._round:
            self._round = turn
            self._turns = {tenant: last for tenant, last in self._turns.items() if last >= turn}

    def _lease(self, kept: Kept, lease: float, now: float) -> Leased:
        kept.number, kept.until, kept.held = next(self._numbers), now + lease, True
        kept.deliveries += 1
        heappush(self._due, (kept.until, kept.message.id, kept.number))
        return _shown(kept, f"{kept.message.id}.{kept.number}")

    def _wake(self, now: float) -> None:
        """Line up what has come due: messages after their delay, and those whose lease has ended."""
        while self._due and self._due[0][0] <= now:
            due, identity, number = heappop(self._due)
            kept = self._messages.get(identity)
            if kept is None or kept.number != number or due != (kept.until if kept.held else kept.due):
                continue
            kept.held = False
            heappush(self._ready, (kept.order, identity))

    def next_due(self) -> float | None:
        """Return when the next message may come due; None where none waits."""
        return self._due[0][0] if self._due else None

    def ack(self, receipt: str, now: float) -> bool:
        """Delete a delivered message; false where the receipt is an old one."""
        kept = self._held(receipt, now)
        if kept is None:
            return False
        self._drop(kept)
        return True

    def _held(self, receipt: str, now: float) -> Kept | None:
        identity, _, number = receipt.rpartition(".")
        kept = self._messages.get(identity)
        good = kept is not None and kept.held and str(kept.number) == number and kept.until > now
        return kept if good else None

    def _drop(self, kept: Kept) -> None:
        message = kept.message
        del self._messages[message.id]
        self._tally.drop(len(message.body) + len(message.headers))
        if message.group is not None and self._first.get(message.group) == message.id:
            self._follow(message.group)
        if not self._messages:
            self._turns.clear()
        most = 2 * len(self._messages) + _SWEPT
        if len(self._due) > most:
            self._due = [one for one in self._due if one[1] in self._messages]
            heapify(self._due)
        if len(self._ready) > most:
            self._ready = [one for one in self._ready if one[1] in self._messages]
            heapify(self._ready)

    def _follow(self, group: str) -> None:
        """Let the next message of a group take the place of its first one."""
        del self._first[group]
        waiting = self._groups.get(group, [])
        while waiting:
            kept = self._messages.get(heappop(waiting)[1])
            if kept is not None:
                self._line_up(kept)
                return
        self._groups.pop(group, None)

    def nack(self, failure: Failure, now: float) -> bool:
        """Line a delivered message up again."""
        kept = self._held(failure.receipt, now)
        if kept is None:
            return False
        kept.message, kept.held, kept.due = _failed(kept.message, failure.reason), False, now + failure.delay
        kept.deliveries -= not failure.counts
        heappush(self._due, (kept.due, kept.message.id, kept.number))
        return True

    def extend(self, receipt: str, lease: float, now: float) -> bool:
        """Let a lease end later, or sooner."""
        kept = self._held(receipt, now)
        if kept is None:
            return False
        kept.until = now + lease
        heappush(self._due, (kept.until, kept.message.id, kept.number))
        return True

    def remove(self, failure: Failure, now: float, wall: float) -> Posted | None:
        """Take a delivered message out, as the dead letter that it becomes."""
        kept = self._held(failure.receipt, now)
        if kept is None:
            return None
        self._drop(kept)
        failed = _failed(kept.message, failure.reason)
        return msgspec.structs.replace(failed, delay=0.0, dedup=None, attempts=kept.deliveries, died_at=wall)

    def peek(self, skip: int, most: int, now: float) -> Iterator[Leased]:
        """Show messages that nobody holds."""
        self._wake(now)
        free = sorted((kept for kept in self._messages.values() if not kept.held), key=lambda kept: kept.order)
        return fitting(_shown(kept, "") for kept in free[skip : skip + most])

    def counts(self, now: float, wall: float) -> Counts:
        """Return how many messages there are."""
        self._wake(now)
        held = sum(1 for kept in self._messages.values() if kept.held)
        ready = [kept for kept in self._messages.values() if not kept.held and (kept.due <= now or self._behind(kept))]
        oldest = min((kept.sent_at for kept in ready), default=None)
        return Counts(
            ready=len(ready),
            delayed=len(self._messages) - held - len(ready),
            in_flight=held,
            oldest=None if oldest is None else max(0.0, wall - oldest),
            paused=self.paused,
        )

    def _behind(self, kept: Kept) -> bool:
        """Return whether a message waits for an earlier one of its group."""
        group = kept.message.group
        return group is not None and self._first[group] != kept.message.id

    def purge(self, now: float) -> int:
        """Delete what nobody holds, and forget all dedup keys."""
        self._wake(now)
        self._keys.clear()
        self._key_ends.clear()
        free = [kept for kept in self._messages.values() if not kept.held]
        for kept in free:
            self._drop(kept)
        return len(free)


def _failed(message: Posted, reason: str) -> Posted:
    if not reason:
        return message
    return msgspec.structs.replace(message, first_error=message.first_error or reason, last_error=reason)


def _shown(kept: Kept, receipt: str) -> Leased:
    return Leased(message=kept.message, receipt=receipt, deliveries=kept.deliveries, sent_at=kept.sent_at)
