"""What this process remembers: its deliveries, above all.

SQS may take a receipt whose lease has ended, and it never tells what a receipt stands for.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

import msgspec

from noobly.core.clock import fresh_id
from noobly.queueing.driver import Posted
from noobly.queueing.providers._sqs_wire import Value, weight

_MOST_BYTES = 256 * 1024 * 1024
"""Bytes of bodies that are kept; beyond them the oldest are given up, and their messages cannot be buried."""
_SWEPT = 1024
"""Ends of leases beyond twice those that are held, from which on the others are swept out."""
_RECEIPT = re.compile(r"[0-9a-f]{12}\.(.+)")

K = TypeVar("K")
V = TypeVar("V")


class Held(msgspec.Struct, kw_only=True):
    """A delivery under its lease; times are seconds of the caller's clock.

    Args:
        queue: Its queue.
        handle: SQS's receipt handle.
        number: SQS's id of the message.
        message: The message; None where it was given up for want of room.
        foreign: Attributes that somebody else gave it.
        deliveries: How often it was delivered.
        until: When the lease ends.
    """

    queue: str
    handle: str
    number: str
    message: Posted | None
    foreign: Mapping[str, Value] = {}
    deliveries: int
    until: float


class Receipts:
    """The deliveries of one opened provider, by receipt.

    A receipt is a mark of the provider and SQS's receipt handle. One with another mark comes from another process:
    SQS alone can say whether it is good.

    Args:
        now: The clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._mark = f"{fresh_id()[:12]}."
        self._held: dict[str, Held] = {}
        self._latest: dict[str, str] = {}
        self._ends: list[tuple[float, str]] = []
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, held: Held) -> str:
        """Keep a delivery and return its receipt; an earlier delivery of the same message is no good any more."""
        self._sweep()
        receipt = self._mark + held.handle
        if held.number in self._latest:
            self._drop(self._latest[held.number])
        self._held[receipt] = held
        self._latest[held.number] = receipt
        heappush(self._ends, (held.until, receipt))
        self._weigh(receipt, held)
        return receipt

    def mine(self, receipt: str) -> bool:
        """Return whether a receipt was given out here."""
        return receipt.startswith(self._mark)

    def get(self, queue: str, receipt: str) -> Held | None:
        """Return a delivery of a queue whose lease stands."""
        held = self._held.get(receipt)
        return held if held is not None and held.queue == queue and held.until > self._now() else None

    def take(self, queue: str, receipt: str) -> Held | None:
        """Return such a delivery and forget it, so that nobody else answers for it meanwhile."""
        held = self.get(queue, receipt)
        if held is not None:
            self._drop(receipt)
        return held

    @contextmanager
    def taken(self, queue: str, receipts: Sequence[str]) -> Iterator[list[Held | None]]:
        """Take several for the body of a ``with``; they are kept again if it fails, for SQS may not have heard."""
        taken = [self.take(queue, receipt) for receipt in receipts]
        try:
            yield taken
        except BaseException:
            for held in taken:
                if held is not None and held.number not in self._latest:
                    self.add(held)
            raise

    def handle(self, receipt: str, held: Held | None) -> str:
        """Return the receipt handle of a receipt; empty for one that is no good, or none."""
        if held is not None:
            return held.handle
        found = _RECEIPT.fullmatch(receipt)
        return found[1] if found and not self.mine(receipt) else ""

    def extend(self, receipt: str, lease: float) -> None:
        """Let a lease end ``lease`` seconds from now."""
        held = self._held.get(receipt)
        if held is not None:
            held.until = self._now() + lease
            heappush(self._ends, (held.until, receipt))

    def _drop(self, receipt: str) -> None:
        held = self._held.pop(receipt)
        self._bytes -= self._sizes.pop(receipt, 0)
        if self._latest.get(held.number) == receipt:
            del self._latest[held.number]

    def _sweep(self) -> None:
        now = self._now()
        while self._ends and self._ends[0][0] <= now:
            held = self._held.get(receipt := heappop(self._ends)[1])
            if held is not None and held.until <= now:
                self._drop(receipt)
        if len(self._ends) > 2 * len(self._held) + _SWEPT:
            self._ends = [(held.until, receipt) for receipt, held in self._held.items()]
            heapify(self._ends)

    def _weigh(self, receipt: str, held: Held) -> None:
        """Count what a delivery's message takes, and give up the oldest ones where that is too much together."""
        size = len(held.message.body) + len(held.message.headers) + weight(held.foreign) if held.message else 0
        self._sizes[receipt] = size
        self._bytes += size
        while self._bytes > _MOST_BYTES:
            oldest, freed = self._sizes.popitem(last=False)
            self._bytes -= freed
            self._held[oldest].message, self._held[oldest].foreign = None, {}


class Memory(Generic[K, V]):
    """What holds for a while, by key; the oldest is forgotten where it gets too much.

    Args:
        now: The clock.
        most: How much is remembered.
    """

    def __init__(self, now: Callable[[], float], most: int = 100_000) -> None:
        self._now, self._most = now, most
        self._kept: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return what is remembered under a key."""
        found = self._kept.get(key)
        return found[0] if found is not None and found[1] > self._now() else None

    def set(self, key: K, value: V, until: float) -> None:
        """Remember something until a time of the clock."""
        self._kept[key] = (value, until)
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget a key."""
        self._kept.pop(key, None)

    def count(self, value: V) -> int:
        """Return how many keys stand for a value, and forget what is over."""
        now = self._now()
        for key in [key for key, (_, until) in self._kept.items() if until <= now]:
            del self._kept[key]
        return sum(1 for found, _ in self._kept.values() if found == value)
