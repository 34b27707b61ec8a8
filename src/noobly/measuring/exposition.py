"""The exposition: all metrics of a meter as Prometheus text or OpenMetrics, without holding up the event loop.

Series are taken on the event loop in bounded slices, where nothing changes them meanwhile, and written out in a thread.
Collectors of prometheus-client's own kind are asked in the thread: theirs have locks. The text is byte for byte what
prometheus-client's ``generate_latest`` makes of the same registry, save that ``:`` in the names of others' metrics
stays in OpenMetrics.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

import msgspec
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.registry import Collector

from noobly.core.clock import Clock, SystemClock
from noobly.core.lines import LINES, Block, Chunk, Extra, Head, Line, breathe, number
from noobly.core.meter import Meter
from noobly.core.series import Source
from noobly.measuring.foreign import Foreign

CACHED_SECONDS = 1.0
LOOKED_SECONDS = 5.0
"""How long what stores said is good; asking them is calls to servers."""

SLICE = 500
"""Series, or lines of a histogram, that are taken on the event loop before others get their turn."""

_COMPRESSION = 4
_LEAST_COMPRESSED = 1024
_REORDERED = ("_created", "_gcount", "_gsum")
_TYPES = {"info": "gauge", "stateset": "gauge", "gaugehistogram": "histogram", "unknown": "untyped"}


class Format(Enum):
    """A format, by its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a scraper asks for.

    Args:
        format: The format.
        gzip: Whether it takes gzip.
        names: Only samples with these names; all where there are none.
    """

    format: Format = Format.TEXT
    gzip: bool = False
    names: frozenset[str] = frozenset()


class Page(msgspec.Struct, frozen=True):
    """An exposition, and whether it is compressed."""

    content: bytes
    gzip: bool


class _Taken(NamedTuple):
    head: Head
    chunks: list[Chunk]


class Exposition:
    """Answers scrapes of one meter; what it has is at most a second old.

    Args:
        meter: Whose metrics they are.
        clock: Where the age of what it has is read.
        others: Whose metrics appear too where the meter has none of the name: prometheus-client's global registry.
    """

    def __init__(
        self, meter: Meter, *, clock: Clock | None = None, others: CollectorRegistry | None = REGISTRY
    ) -> None:
        self._meter = meter
        self._clock = clock or SystemClock()
        self._foreign = Foreign()
        self._others = others
        self._lock = asyncio.Lock()
        # Where several processes answer in turn, an older page of one could show less than a younger of another.
        self._keeps = CACHED_SECONDS if meter.peers is None else 0.0
        self._made = -CACHED_SECONDS
        self._looked = -LOOKED_SECONDS
        self._blocks: list[Block] = []
        self._pages: dict[Wanted, Page] = {}

    async def page(self, wanted: Wanted) -> Page:
        """Return the metrics as they are now, or were at most a second ago."""
        async with self._lock:
            if self._clock.monotonic() - self._made >= self._keeps:
                self._pages = {}
                await self._look()
                self._made = self._clock.monotonic()
                self._blocks = await self._all()
            if wanted in self._pages:
                return self._pages[wanted]
            page = await asyncio.to_thread(_page, self._blocks, wanted)
            if not wanted.names:
                self._pages[wanted] = page
            return page

    async def _look(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked >= LOOKED_SECONDS:
            self._looked = now
            await self._meter.look()

    async def _all(self) -> list[Block]:
        taken, blocks = time.monotonic_ns(), await self.own()
        peers = self._meter.peers
        return blocks if peers is None else await asyncio.to_thread(peers.share, blocks, taken)

    async def own(self) -> list[Block]:
        """Return all families of this process as they are now."""
        taken: list[_Taken] = []
        foreign: list[Collector] = []
        for collector in tuple(self._meter.registry.collectors):
            if isinstance(collector, Source):
                taken.append(_Taken(collector.head, [chunk async for chunk in _turns(collector)]))
            else:
                foreign.append(collector)
        others = () if self._others is None else (self._others,)
        return await asyncio.to_thread(self._finish, taken, [*foreign, *others])

    def _finish(self, taken: Sequence[_Taken], foreign: Iterable[Collector | CollectorRegistry]) -> list[Block]:
        blocks = [_block(one) for one in taken]
        known = {block.head.name for block in blocks}
        for block in self._foreign.blocks(foreign):
            if block.head.name not in known:
                known.add(block.head.name)
                blocks.append(block)
        return blocks


async def _turns(source: Source) -> AsyncIterator[Chunk]:
    for chunk in source.chunks(SLICE):
        yield chunk
        await asyncio.sleep(0)


def _block(taken: _Taken) -> Block:
    extras: dict[str, Extra] = {}
    lines: list[Line] = []
    breath = LINES
    for chunk in taken.chunks:
        lines += chunk.lines(extras)
        if len(lines) > breath:
            breath = len(lines) + LINES
            breathe()
    return Block(head=taken.head, lines=lines, extras=extras)


def _page(blocks: Sequence[Block], wanted: Wanted) -> Page:
    content = render(blocks, wanted.format, wanted.names)
    if not wanted.gzip or len(content) < _LEAST_COMPRESSED:
        return Page(content, gzip=False)
    return Page(gzip.compress(content, _COMPRESSION, mtime=0), gzip=True)


def render(blocks: Iterable[Block], format: Format, names: frozenset[str] = frozenset()) -> bytes:
    """Return families in a format; called in a thread.

    Args:
        blocks: The families.
        format: The format.
        names: Only samples with these names, and families that have some; all where there are none.
    """
    parts: list[bytes] = []
    for block in blocks:
        chosen = _only(block, names) if names else block
        if chosen.lines or not names:
            written = _openmetrics(chosen) if format is Format.OPENMETRICS else _text(chosen)
            parts.extend(part.encode() for part in written)
    if format is Format.OPENMETRICS:
        parts.append(b"# EOF\n")
    return b"".join(parts)


def _only(block: Block, names: frozenset[str]) -> Block:
    lines = [line for line in block.lines if name_of(line[0]) in names]
    return msgspec.structs.replace(block, lines=lines)


def name_of(start: str) -> str:
    """Return the name of a line's sample."""
    return start.partition("{")[0].rstrip()


def _openmetrics(block: Block) -> Iterator[str]:
    head = block.head
    text = head.text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    unit = f"# UNIT {head.name} {head.unit}\n" if head.unit else ""
    yield f"# HELP {head.name} {text}\n# TYPE {head.name} {head.type}\n{unit}"
    if not block.extras:
        yield from _written(block.lines)
        return
    nothing = Extra()
    for start, value in block.lines:
        extra = block.extras.get(start, nothing)
        yield f"{start}{number(value)}{extra.stamp}{extra.exemplar}\n"


def _text(block: Block) -> Iterator[str]:
    head = block.head
    suffix = {"counter": "_total", "info": "_info"}.get(head.type, "")
    yield _said(head, f"{head.name}{suffix}", _TYPES.get(head.type, head.type))
    if not block.foreign:
        yield from _written(block.lines)
        return
    # What only OpenMetrics has stands in families of its own at the end.
    late: dict[str, list[str]] = {}
    for start, value in block.lines:
        extra = block.extras.get(start)
        line = f"{start}{number(value)}{extra.milliseconds if extra else ''}\n"
        kind = name_of(start).removeprefix(head.name)
        if kind in _REORDERED:
            late.setdefault(kind, []).append(line)
        else:
            yield line
    for kind, lines in sorted(late.items()):
        yield _said(head, f"{head.name}{kind}", "gauge")
        yield from lines


def _said(head: Head, name: str, kind: str) -> str:
    text = head.text.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _written(lines: Sequence[Line]) -> Iterator[str]:
    for begin in range(0, len(lines), LINES):
        if begin:
            breathe()
        part = lines[begin : begin + LINES]
        # Most values are written as Python does; `number` knows the rest.
        yield "".join([f"{start}{v!r}\n" if -1e300 < v < 1e6 else f"{start}{number(v)}\n" for start, v in part])


def negotiate(accept: str) -> Format:
    """Return the format an ``Accept`` header asks for; text where it leaves the choice (RFC 9110, 12.5.1)."""
    best, chosen = 0.0, Format.TEXT
    for part in accept.lower().split(","):
        kind, *parameters = (token.strip() for token in part.split(";"))
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        format = _format(kind, given.get("version", ""))
        quality = _quality(given.get("q", "1"))
        if format is not None and quality > best:
            best, chosen = quality, format
    return chosen


def _format(kind: str, version: str) -> Format | None:
    if kind == "application/openmetrics-text":
        return Format.OPENMETRICS if version in ("", "1.0.0") else None
    return Format.TEXT if kind in ("text/plain", "text/*", "*/*") else None


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def takes_gzip(accept_encoding: str) -> bool:
    """Return whether an ``Accept-Encoding`` header takes gzip (RFC 9110, 12.5.3)."""
    qualities: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        coding, _, weight = part.partition(";")
        qualities[coding.strip()] = _quality(weight.strip().removeprefix("q=")) if weight else 1.0
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0
