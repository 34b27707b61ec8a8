"""Metrics on prometheus-client: one histogram of all operations, gauges, and counters that services keep themselves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from noobly.core.errors import AlreadyExists, NooblyError
from noobly.core.lines import Block, Chunk, Head, Merge, Ready, label_text, start_of
from noobly.core.series import OVERFLOW, Cell, Cells, Number, Numbers, Source

__all__ = ["BOUNDS", "OVERFLOW", "Cell", "Gauges", "Look", "Meter", "Peers", "Rows"]

_log = logging.getLogger("noobly.metrics")

BOUNDS = (
    1e-6,
    5e-6,
    2.5e-5,
    1e-4,
    2.5e-4,
    5e-4,
    1e-3,
    2.5e-3,
    5e-3,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds of the duration buckets, in seconds: from an in-memory call to a slow network."""

Rows = Iterable[tuple[tuple[str, ...], float]]
"""The series of a counter: label values and the count."""

Look = Callable[[], Awaitable[None]]
"""Asks a store for what its owner's gauges show."""

LOOK_SECONDS = 2.0
"""How long an exposition waits for stores that are asked."""

F = TypeVar("F", bound=Source)

_OPERATIONS = Head(
    name="noobly_operation_duration_seconds",
    type="histogram",
    text="Duration of each operation with its final outcome.",
    labels=("service", "instance", "provider", "operation", "outcome"),
)
_OPENED = Head(
    name="noobly_provider_instances",
    type="gauge",
    text="Instances of a provider that were opened since the process began.",
    labels=("service", "provider"),
    merge=Merge.MAX,
)
_USED = Head(
    name="noobly_provider_operations",
    type="counter",
    text="Operations of a provider, whatever their outcome.",
    labels=("service", "provider"),
)


class Peers(Protocol):
    """The other processes that serve as one with this one."""

    def share(self, blocks: Sequence[Block], taken: int) -> list[Block]:
        """Publish this process's metrics and return those of all processes together; called in a thread.

        Args:
            blocks: The metrics.
            taken: When they were taken, in any steady unit.
        """
        ...


class Level(Number):
    """A series of a gauge that is set."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Set the value, and note when that was."""
        self.value = float(value)
        self.at = time.time()


class Gauges(Numbers[Level]):
    """A gauge of the suite's own."""

    def __init__(self, head: Head, cap: int) -> None:
        super().__init__(head, cap, Level)

    def labels(self, *values: str) -> Level:
        """Return the series with these label values."""
        return self.one(values)


class Tallies(Source):
    """A family whose owners keep its series: they are read for each exposition, and summed and capped here.

    Args:
        head: What it says of itself.
        cap: The most series.
    """

    def __init__(self, head: Head, cap: int) -> None:
        super().__init__(head)
        self.cap = cap
        self.readers: list[Callable[[], Rows]] = []
        self._name = f"{head.name}_total" if head.type == "counter" else head.name
        self._starts: dict[tuple[str, ...], str] = {}

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Read all owners, so many rows at a time; the lines come last, for only then the sums are known."""
        sums: dict[tuple[str, ...], float] = {}
        for read in tuple(self.readers):
            rows = iter(read())
            while part := list(islice(rows, size)):
                self._sum(sums, part)
                yield Ready([], {})
        known, self._starts = self._starts, {}
        for labels in sums:
            self._starts[labels] = known.get(labels) or start_of(self._name, label_text(self.head.labels, labels))
        yield Ready([(start, sums[labels]) for labels, start in self._starts.items()], {})

    def collect(self) -> Iterable[Metric]:
        """Return the family as prometheus-client asks for it."""
        sums: dict[tuple[str, ...], float] = {}
        for read in tuple(self.readers):
            self._sum(sums, read())
        metric = Metric(self.head.name, self.head.text, self.head.type)
        for labels, count in sums.items():
            metric.samples.append(Sample(self._name, dict(zip(self.head.labels, labels, strict=True)), count))
        return [metric]

    def _sum(self, sums: dict[tuple[str, ...], float], rows: Rows) -> None:
        for labels, count in rows:
            kept = labels if labels in sums or len(sums) < self.cap else tuple(OVERFLOW for _ in labels)
            sums[kept] = sums.get(kept, 0.0) + count


class _Registry(CollectorRegistry):
    """A registry that tells what is registered, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        super().register(collector)
        self.collectors.append(collector)

    def unregister(self, collector: Collector) -> None:
        super().unregister(collector)
        self.collectors.remove(collector)


class Meter:
    """All metrics of one application; ``registry`` is what ``/metrics`` renders.

    Args:
        cap: How many series one instrument may have; further label values are counted as ``other``.
        peers: The other processes that serve as one with this one, where there are some.
    """

    def __init__(self, *, cap: int = 2000, peers: Peers | None = None) -> None:
        self.registry = _Registry()
        self.cap = cap
        self.peers = peers
        self._families: dict[str, Source] = {}
        self._looks: list[Look] = []
        self._operations = self.declare(Cells(_OPERATIONS, cap, BOUNDS))
        for head, read in ((_OPENED, self._opened), (_USED, self._used)):
            self.declare(Tallies(head, cap)).readers.append(read)

    def declare(self, family: F) -> F:
        """Add a family, or return the one that was declared so before.

        Raises:
            AlreadyExists: Another family has the name.
        """
        known = self._families.get(family.head.name)
        if known is None:
            try:
                self.registry.register(family)
            except ValueError as error:
                raise AlreadyExists(f"the metric {family.head.name} cannot be declared: {error}") from error
            self._families[family.head.name] = family
            return family
        if not isinstance(known, type(family)) or not known.same_as(family):
            raise AlreadyExists(f"{family} cannot be declared, for there is {known}")
        return known

    @property
    def heads(self) -> list[Head]:
        """What all families declared here say of themselves."""
        return [family.head for family in self._families.values()]

    def cell(self, service: str, instance: str, provider: str, operation: str, outcome: str) -> Cell:
        """Return the histogram series with these labels; the same one each time."""
        return self._operations.one((service, instance, provider, operation, outcome))

    def tallies(self, name: str, text: str, labels: Sequence[str], read: Callable[[], Rows]) -> Callable[[], None]:
        """Expose a counter that its owner counts: ``read`` is called for each exposition, on the event loop.

        Returns:
            A function that ends it, for the owner's end; calling it again does nothing.
        """
        tallies = self.declare(Tallies(Head(name=name, type="counter", text=text, labels=tuple(labels)), self.cap))
        tallies.readers.append(read)

        def end() -> None:
            if read in tallies.readers:
                tallies.readers.remove(read)

        return end

    def counter(self, name: str, text: str, labels: Sequence[str]) -> Numbers[Number]:
        """Return a counter, whose series are counted up by their ``value``; the same one each time."""
        return self.declare(Numbers(Head(name=name, type="counter", text=text, labels=tuple(labels)), self.cap, Number))

    def histogram(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> Cells:
        """Return a histogram; the same one each time."""
        head = Head(name=name, type="histogram", text=text, labels=tuple(labels))
        return self.declare(Cells(head, self.cap, bounds))

    def gauge(self, name: str, text: str, labels: Sequence[str], merge: Merge = Merge.SUM) -> Gauges:
        """Return a gauge; the same one each time."""
        head = Head(name=name, type="gauge", text=text, labels=tuple(labels), merge=merge)
        return self.declare(Gauges(head, self.cap))

    def watch(self, look: Look) -> Callable[[], None]:
        """Have a store asked before an exposition; nothing is asked where nobody scrapes.

        Returns:
            A function that ends it, for the owner's end; calling it again does nothing.
        """
        self._looks.append(look)

        def end() -> None:
            if look in self._looks:
                self._looks.remove(look)

        return end

    async def look(self) -> None:
        """Have all stores asked, side by side; one that is down or slow leaves its gauges as they were."""
        await asyncio.gather(*(_bounded(look) for look in tuple(self._looks)))

    def _opened(self) -> Rows:
        places = {(service, provider, instance) for service, instance, provider, _, _ in tuple(self._operations.series)}
        yield from Counter((service, provider) for service, provider, _ in places).items()

    def _used(self) -> Rows:
        for cell in self._operations.all():
            service, _, provider, _, _ = cell.values
            yield (service, provider), float(cell.count)


async def _bounded(look: Look) -> None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await look()
    except (NooblyError, TimeoutError) as error:
        _log.debug("a store was not asked for its gauges: %r", error)
