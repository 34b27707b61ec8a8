"""The options of a job that BullMQ keeps, as Node or we have written them, and what follows from them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from noobly.working.driver import Retrying

_log = logging.getLogger("noobly.working")

_ENDLESS = 1e9
"""The longest pause of jobs that Node adds, which knows none."""
_TRACES = 10
"""Errors that are kept of a job that does not say how many."""

Fields = Mapping[bytes, bytes]


class Own(msgspec.Struct, frozen=True, omit_defaults=True):
    """What BullMQ has no option for."""

    cap: float = 300.0
    timeout: float = 0.0
    expires: float = 0.0
    order: int = 0
    priority: int | None = None
    correlation_id: str = ""


class _Backoff(msgspec.Struct, frozen=True):
    type: str = "fixed"
    delay: float = 0.0
    jitter: float = 0.0


class Keep(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How many ended jobs of a kind BullMQ keeps when one ends: ``count``, of at most ``age`` seconds."""

    count: int | None = None
    age: float | None = None
    limit: int | None = None


_Removing = bool | int | Keep | None


class Options(msgspec.Struct, frozen=True):
    """The options of a stored job, those that matter here; ``tm`` is what the telemetry of its producer wrote."""

    attempts: int = 1
    delay: float | None = None
    backoff: _Backoff | float | None = None
    noobly: Own | None = None
    tm: object = None
    fpof: bool = False
    idof: bool = False
    cpof: bool = False
    rdof: bool = False
    completed: _Removing = msgspec.field(default=None, name="removeOnComplete")
    failed: _Removing = msgspec.field(default=None, name="removeOnFail")
    traces: int = msgspec.field(default=_TRACES, name="stackTraceLimit")

    @property
    def own(self) -> Own:
        """What BullMQ has no option for."""
        return self.noobly or Own()


class Ending(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What BullMQ wants to know of a job that ends.

    Args:
        flags: What its script reads.
        completed: What is kept when it succeeds.
        failed: What is kept when it fails.
        traces: The errors of its attempts.
        most: How many of them are kept.
    """

    flags: Mapping[str, bool | int]
    completed: Keep
    failed: Keep
    traces: tuple[str, ...] = ()
    most: int = _TRACES

    def traced(self, error: str) -> str:
        """Return the errors with one more, as BullMQ keeps them."""
        kept = [*self.traces, error][-self.most :] if self.most > 0 else []
        return msgspec.json.encode(kept).decode()


class _Carrier(msgspec.Struct, frozen=True):
    """What the telemetry of a producer writes, as text: the headers of W3C Trace Context, and others."""

    traceparent: str = ""


_read_carrier = msgspec.json.Decoder(_Carrier).decode
_read_options = msgspec.json.Decoder(Options, strict=False).decode
_read_traces = msgspec.json.Decoder(tuple[str, ...]).decode
_DEFAULTS = Options()
_warned: set[str] = set()


def options_of(fields: Fields) -> Options:
    """Return the options of a stored job; those of BullMQ where they cannot be read."""
    try:
        return _read_options(fields.get(b"opts", b"{}"))
    except msgspec.DecodeError:
        return _DEFAULTS


def ending(fields: Fields) -> Ending:
    """Return what BullMQ wants to know of a job that ends."""
    options = options_of(fields)
    return Ending(
        flags={
            "attempts": options.attempts,
            "fpof": options.fpof,
            "idof": options.idof,
            "cpof": options.cpof,
            "rdof": options.rdof,
        },
        completed=_kept(options.completed),
        failed=_kept(options.failed),
        traces=_traces(fields),
        most=options.traces,
    )


def _kept(removing: _Removing) -> Keep:
    if isinstance(removing, Keep):
        return removing
    if isinstance(removing, bool) or removing is None:
        return Keep(count=0 if removing else -1)
    return Keep(count=removing)


def _traces(fields: Fields) -> tuple[str, ...]:
    found = fields.get(b"stacktrace")
    try:
        return _read_traces(found) if found else ()
    except msgspec.DecodeError:
        return ()


def retrying_of(options: Options) -> Retrying:
    """Return how often a job is tried, and how long its pauses are."""
    backoff, attempts = options.backoff, max(1, options.attempts)
    if not isinstance(backoff, _Backoff):
        base = (backoff or 0.0) / 1000
        return Retrying(attempts=attempts, base=base, cap=base, jitter=0.0, fixed=True)
    cap = options.noobly.cap if options.noobly else _ENDLESS
    if backoff.type not in ("fixed", "exponential"):
        _warn_of(backoff.type)
        return Retrying(attempts=attempts, cap=cap, jitter=0.0)
    fixed = backoff.type == "fixed"
    return Retrying(attempts=attempts, base=backoff.delay / 1000, cap=cap, jitter=backoff.jitter, fixed=fixed)


def metadata(traceparent: str) -> str:
    """Return what the telemetry of BullMQ reads in Node (https://github.com/taskforcesh/bullmq-otel)."""
    return msgspec.json.encode(_Carrier(traceparent)).decode()


def traceparent_of(options: Options) -> str:
    """Return the trace that a job was added in; empty for none, or where its telemetry writes something else."""
    if not isinstance(options.tm, str):
        return ""
    try:
        return _read_carrier(options.tm).traceparent
    except msgspec.DecodeError:
        return ""


def _warn_of(backoff: str) -> None:
    """Tell once that a way of pausing is only known to workers of Node."""
    if backoff not in _warned and len(_warned) < 100:
        _warned.add(backoff)
        _log.warning("jobs of BullMQ have the backoff %r, which only Node knows; here it is 1 s, doubled each", backoff)
