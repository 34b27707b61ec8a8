"""The metrics that users hold."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from noobly.core.checks import whole
from noobly.core.clock import Seconds, seconds
from noobly.core.errors import Closed, InvalidArgument, NooblyError, TooLarge
from noobly.core.lifecycle import Tasks
from noobly.core.public import public
from noobly.core.scope import Scope
from noobly.measuring import answers
from noobly.measuring.admission import Admission, Labels, check_labels, check_name
from noobly.measuring.answers import Figure, Measurements, Moment, Overview, Points, SampleIn, moment
from noobly.measuring.buffer import Buffer
from noobly.measuring.driver import Answer, MetricDriver, Sample, Selector, SeriesInfo
from noobly.measuring.options import MetricOptions
from noobly.measuring.rollups import Row
from noobly.measuring.sugar import MetricSugar

SeriesList = list[SeriesInfo]
Wanted = Mapping[str, str] | None
"""Label values that a series must have; None for all series of the metric."""

_MOST_POINTS = 11_000
_MOST_LISTED = 100_000
_MOST_ADDED = 10_000

_log = logging.getLogger("noobly.measuring")


class Metrics(MetricSugar):
    """Samples over time under text names with labels, and instruments for Prometheus.

    Samples are kept raw at first and then as steps of 10 seconds, one minute and one hour, so that memory has a bound
    per series and old ranges are still answered, with less exact ends; each answer says how exact in ``tier``. Ranges
    begin at ``start`` and end before ``end``; without them they hold all there is. Times are seconds since the epoch or
    datetimes with a time zone. Names are any text of 1 to 256 characters.
    """

    service = "measuring"

    def __init__(self, driver: MetricDriver, scope: Scope, options: MetricOptions) -> None:
        self._begin(scope, options)
        self._driver = driver
        self._now = scope.environment.clock.time
        self._admission = Admission(scope, options)
        self._admit: Callable[[str, Wanted], tuple[str, Labels]] = self._admission.admit
        self._closed = False
        self._tasks = Tasks()
        self._buffer = Buffer(driver.record, self._tasks, scope, options)

    async def start(self) -> None:
        """Learn which series there are, and begin to hand on samples and to look for what is past its retention."""
        self._admission.renew(await self._driver.series("", _MOST_LISTED))
        self._maintaining = self._tasks.spawn(self._maintain(self._due()), "measuring.maintain")

    async def close(self) -> None:
        """Hand on the samples that wait, and end; what the store refuses is lost, and said to be."""
        self._closed = True
        self._admit = self._refuse
        self._maintaining.cancel()
        try:
            await self._buffer.flush()
        except NooblyError as error:
            _log.warning("samples of %s are lost, for the store fails at the end: %s", self.scope.instance, error)
            self._buffer.give_up()
        finally:
            await self._tasks.close()
            self._admission.close()
            self._buffer.close()
            await self._end()

    @public("POST", "add", permission="write")
    async def add(self, name: str, value: float, labels: Wanted = None, at: Moment | None = None) -> None:
        """Add a sample. It is in the next answer, and in the store within ``flush_every`` seconds; see ``flush``.

        Args:
            name: The metric's name.
            value: The value, finite.
            labels: Label values by name.
            at: When it was taken, which may be before samples that are already there; now by default.

        Raises:
            InvalidArgument: An argument is bad, or the time lies in the future.
        """
        series = self._admit(name, labels)
        if self._buffer.add(self._sample(series, value, at)):
            await self._buffer.relieve()

    @public("POST", "add-many", permission="write")
    async def add_many(self, samples: Sequence[SampleIn]) -> None:
        """Add up to 10,000 samples; one that is bad refuses all.

        Raises:
            InvalidArgument: See ``add``.
            TooLarge: There are too many.
        """
        if len(samples) > _MOST_ADDED:
            raise TooLarge(f"{len(samples)} samples are too many for one call; {_MOST_ADDED} is the most")
        checked = [self._sample(self._admit(one.name, one.labels), one.value, one.at) for one in samples]
        full = [self._buffer.add(sample) for sample in checked]
        if any(full):
            await self._buffer.relieve()

    @public("POST", "flush", permission="write", idempotent=True)
    async def flush(self) -> None:
        """Return when the store has all samples that were added before.

        Raises:
            Unavailable: The store fails; the samples are kept for the next time, up to ``buffer`` of them.
        """
        if self._closed:
            self._refuse()
        await self._buffer.flush()

    @public("POST", "list", permission="read", idempotent=True)
    async def list(
        self,
        name: str,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        labels: Wanted = None,
        limit: int = 10_000,
    ) -> Measurements:
        """Return the first samples of a range, those of all series in order of time.

        Args:
            name: The metric's name.
            start: Where the range begins.
            end: Where it ends, exclusive.
            labels: Label values that a series must have.
            limit: How many, up to 100,000.
        """
        whole(limit, "limit", 1, _MOST_LISTED)
        wanted = _selector(name, start, end, labels, limit=limit + 1)
        return await answers.measurements(await self._query(wanted, 0), limit)

    @public("POST", "total", permission="read", idempotent=True)
    async def total(
        self, name: str, start: Moment | None = None, end: Moment | None = None, *, labels: Wanted = None
    ) -> Figure:
        """Return the sum of all values of a range; 0 of nothing."""
        row, tier = await self._whole(_selector(name, start, end, labels))
        return _figure(row.sum, row, tier) if row else Figure(value=0.0, count=0, tier=tier)

    @public("POST", "average", permission="read", idempotent=True)
    async def average(
        self, name: str, start: Moment | None = None, end: Moment | None = None, *, labels: Wanted = None
    ) -> Figure:
        """Return the mean of all values of a range; None of nothing."""
        row, tier = await self._whole(_selector(name, start, end, labels))
        return _figure(row.sum / row.samples if row else None, row, tier)

    @public("POST", "min", permission="read", idempotent=True)
    async def min(
        self, name: str, start: Moment | None = None, end: Moment | None = None, *, labels: Wanted = None
    ) -> Figure:
        """Return the least value of a range; None of nothing."""
        row, tier = await self._whole(_selector(name, start, end, labels))
        return _figure(row.min if row else None, row, tier)

    @public("POST", "max", permission="read", idempotent=True)
    async def max(
        self, name: str, start: Moment | None = None, end: Moment | None = None, *, labels: Wanted = None
    ) -> Figure:
        """Return the greatest value of a range; None of nothing."""
        row, tier = await self._whole(_selector(name, start, end, labels))
        return _figure(row.max if row else None, row, tier)

    @public("POST", "rate", permission="read", idempotent=True)
    async def rate(
        self, name: str, start: Moment | None = None, end: Moment | None = None, *, labels: Wanted = None
    ) -> Figure:
        """Return the sum of all values of a range per second of it; None of a range without length.

        Without ``start`` the range begins with the first sample, without ``end`` it ends now.
        """
        selector = _selector(name, start, end, labels)
        row, tier = await self._whole(selector)
        return _figure(self._rate(selector, row), row, tier)

    @public("POST", "percentile", permission="read", idempotent=True)
    async def percentile(
        self,
        name: str,
        q: float,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        labels: Wanted = None,
    ) -> Figure:
        """Return the value that ``q`` percent of a range's values do not exceed, within 1 %; None of nothing.

        Args:
            name: The metric's name.
            q: 0 to 100: 50 is the median, 0 the least, 100 the greatest.
            start: Where the range begins.
            end: Where it ends, exclusive.
            labels: Label values that a series must have.
        """
        if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= 100:
            raise InvalidArgument(f"q must be a number of 0 to 100, not {q!r:.80}")
        row, tier = await self._whole(_selector(name, start, end, labels, sketches=True))
        return _figure(answers.percentile(row, q / 100) if row else None, row, tier)

    @public("POST", "overview", permission="read", idempotent=True)
    async def overview(
        self, name: str, start: Moment | None = None, end: Moment | None = None, *, labels: Wanted = None
    ) -> Overview:
        """Return count, total, average, least, greatest, latest, rate and percentiles of a range at once."""
        selector = _selector(name, start, end, labels, sketches=True)
        row, tier = await self._whole(selector)
        return answers.overview(row, self._rate(selector, row), tier)

    @public("POST", "range", permission="read", idempotent=True)
    async def range(
        self,
        name: str,
        start: Moment,
        end: Moment | None = None,
        step: Seconds = 60.0,
        *,
        labels: Wanted = None,
    ) -> Points:
        """Return the points of a chart, at multiples of ``step`` seconds, with the samples of all series together.

        Args:
            name: The metric's name.
            start: Where the range begins.
            end: Where it ends, exclusive; now by default.
            step: Seconds per point; made longer where the range is no longer kept that finely.
            labels: Label values that a series must have.

        Raises:
            InvalidArgument: An argument is bad, or there would be more than 11,000 points.
        """
        selector = _selector(name, start, end, labels)
        length = seconds(step, "step") or 0.0
        until = min(selector.end, self._now() + self.options.ahead)
        if until - selector.start > _MOST_POINTS * length:
            raise InvalidArgument(f"that is more than {_MOST_POINTS} points; make the step longer or the range shorter")
        return await answers.chart(await self._query(selector, length))

    @public("GET", "series", permission="read")
    async def series(self, prefix: str = "", *, limit: int = 1000) -> SeriesList:
        """Return the series of the metrics whose name begins so, the one with the latest sample first."""
        await self._buffer.flush()
        return await self._driver.series(prefix, limit)

    @public("POST", "retain", permission="admin", idempotent=True)
    async def retain(self) -> int:
        """Drop what is past its retention, as happens by itself from time to time.

        Returns:
            How many raw samples and steps there were.
        """
        await self._buffer.flush()
        dropped = await self._driver.retain()
        if self._admission.crowded:
            self._admission.renew(await self._driver.series("", _MOST_LISTED))
        return dropped

    def _sample(self, series: tuple[str, Labels], value: float, at: Moment | None) -> Sample:
        if type(value) is not float and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InvalidArgument(f"the value of {series[0]} must be a number, not {type(value).__name__}")
        if not -math.inf < value < math.inf or abs(value) > _GREATEST:
            raise InvalidArgument(f"the value of {series[0]} must be finite and a double, not {value!r:.80}")
        now = self._now()
        if at is None:
            return Sample(series[0], series[1], now, float(value))
        taken = moment(at, "at", now)
        if taken > now + self.options.ahead:
            raise InvalidArgument(
                f"a sample of {series[0]} lies {taken - now:.0f} seconds in the future; set the clock"
            )
        return Sample(series[0], series[1], taken, float(value))

    def _refuse(self, *_: object) -> NoReturn:
        raise Closed(f"the measuring instance {self.scope.instance!r} is closed; open it before use")

    async def _query(self, selector: Selector, step: float) -> Answer:
        if selector.start >= selector.end:
            return Answer(tier=0, step=step, rollups=[])
        await self._buffer.flush()
        return await self._driver.query(selector, step)

    async def _whole(self, selector: Selector) -> tuple[Row | None, float]:
        answer = await self._query(selector, math.inf)
        return await answers.whole(answer), answer.tier

    def _rate(self, selector: Selector, row: Row | None) -> float | None:
        start = selector.start if math.isfinite(selector.start) or row is None else row.at
        end = selector.end if math.isfinite(selector.end) else self._now()
        return answers.per_second(row.sum if row else 0.0, start, end)

    def _due(self) -> float:
        return self.scope.environment.clock.monotonic() + self.options.retain_every

    async def _maintain(self, due: float) -> None:
        clock = self.scope.environment.clock
        while True:
            await asyncio.sleep(self.options.flush_every)
            await self._buffer.relieve()
            if clock.monotonic() < due:
                continue
            due = self._due()
            try:
                await self.retain()
            except NooblyError as error:
                _log.warning("old samples of %s could not be dropped: %s", self.scope.instance, error)


_GREATEST = 1.7976931348623157e308


def _selector(
    name: str,
    start: Moment | None,
    end: Moment | None,
    labels: Wanted,
    *,
    sketches: bool = False,
    limit: int | None = None,
) -> Selector:
    given = {} if labels is None else labels
    check_labels(given)
    return Selector(
        name=check_name(name),
        labels=dict(given),
        start=moment(start, "start", -math.inf),
        end=moment(end, "end", math.inf),
        sketches=sketches,
        limit=limit,
    )


def _figure(value: float | None, row: Row | None, tier: float) -> Figure:
    return Figure(value=value, count=row.samples if row else 0, tier=tier)
