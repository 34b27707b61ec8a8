"""Jobs in the form in which BullMQ keeps them, and back.

Our own options stand in BullMQ's ``opts`` under ``noobly``, where Node passes them over. BullMQ's priorities begin with
1, and jobs with none, 0, come before all others: ours are 10 to 1, so that 0 only comes from Node.
"""

from __future__ import annotations

from typing import Any

import msgspec

from noobly.clients.redis import Arg, Command
from noobly.working.driver import JobRecord, NewJob, State
from noobly.working.providers._bullmq_names import known, stored, unescaped
from noobly.working.providers._bullmq_options import (
    Fields,
    Options,
    Own,
    metadata,
    options_of,
    retrying_of,
    traceparent_of,
)
from noobly.working.providers._bullmq_scripts import BullQueue, packed

ENDED_AS = "noobly"
"""The field of a failed job that tells how and when it ended, where BullMQ only knows failing."""

CANCELLING = "noobly-cancelling"
"""The field of a job that somebody wants to end while it runs."""

LASTING = "noobly-lasting"
"""The field of a job that does not expire any more, for somebody has asked for it again."""

EXPIRING = "noobly-expiring"
"""When jobs expire, unless they are begun or have ended before; what stands there of others leaves in its time."""

_STATES = {
    b"completed": State.SUCCEEDED,
    b"failed": State.FAILED,
    b"delayed": State.DELAYED,
    b"waiting-children": State.DELAYED,
    b"prioritized": State.QUEUED,
    b"waiting": State.QUEUED,
    b"active": State.RUNNING,
}

_read_parent = msgspec.json.Decoder(dict[str, object]).decode


def add_command(queue: BullQueue, parents: BullQueue | None, new: NewJob, order: int, now: int) -> Command:
    """Return the command that adds a job; a parent has to be there before its children."""
    parent_key = parents.key(stored(new.parent or "")) if parents else None
    parent = parent_of(new, parents) if parents else None
    key = f"{queue.base}de:{new.unique}" if new.unique is not None else None
    arguments = [
        *(queue.base, stored(new.id), new.task, now, parent_key),
        *(f"{parent_key}:dependencies" if parent_key else None, parent, None, key),
    ]
    args: list[Arg] = [packed(arguments), new.data, packed(_options(new, order))]
    if new.pending:
        return queue.command("addParentJob", *args)
    script = "addDelayedJob" if new.delay > 0 else "addPrioritizedJob"
    return queue.command(script, *args, now)


def parent_of(new: NewJob, parents: BullQueue) -> dict[str, str | bool]:
    """Return what a job keeps of its parent."""
    failing = "idof" if new.lenient else "fpof"
    return {"id": stored(new.parent or ""), "queueKey": parents.base[:-1], failing: True}


def _options(new: NewJob, order: int) -> dict[str, Any]:
    retrying = new.retrying
    own = Own(retrying.cap, new.timeout, new.expires, order, new.priority, new.correlation_id)
    options: dict[str, Any] = {
        "attempts": retrying.attempts,
        "backoff": {
            "type": "fixed" if retrying.fixed else "exponential",
            "delay": milliseconds(retrying.base),
            "jitter": 0 if retrying.fixed else retrying.jitter,
        },
        "priority": 10 - new.priority,
        "noobly": msgspec.to_builtins(own),
    }
    if new.delay > 0:
        options["delay"] = max(1, milliseconds(new.delay))
    if new.unique is not None:
        ttl = {"ttl": max(1, milliseconds(new.unique_for))} if new.unique_for else {}
        options["de"] = {"id": new.unique, **ttl}
    if new.parent is not None:
        options["idof" if new.lenient else "fpof"] = True
    if new.traceparent:
        options["tm"] = metadata(new.traceparent)
    return options


def place(fields: Fields) -> int:
    """Return where a job stands among those that were added with it."""
    return options_of(fields).own.order


def record(queue: str, id: str, fields: Fields, state: bytes) -> JobRecord:
    """Return a stored job."""
    options = options_of(fields)
    attempts, created = _number(fields, b"atm"), _number(fields, b"timestamp")
    parent, parent_queue = _parent(fields)
    stands = _state(fields, state, attempts)
    delay = _number(fields, b"delay")
    begun = (_number(fields, b"processedOn") or created) if stands is State.RETRYING else created
    return JobRecord(
        id=id,
        queue=queue,
        task=_text(fields, b"name"),
        data=fields.get(b"data", b""),
        state=stands,
        priority=_priority(fields, options),
        retrying=retrying_of(options),
        timeout=options.own.timeout,
        attempts=attempts + (stands is State.RUNNING),
        stalls=_number(fields, b"stc"),
        created_at=created / 1000,
        run_at=(begun + delay) / 1000,
        expires_at=_expires_at(fields, options, created),
        started_at=_number(fields, b"processedOn") / 1000,
        finished_at=_number(fields, b"finishedOn") / 1000,
        progress=fields.get(b"progress", b""),
        result=_result(fields),
        error=_text(fields, b"failedReason") if stands is not State.SUCCEEDED else "",
        worker=_text(fields, b"pb"),
        parent=parent,
        parent_queue=parent_queue,
        pending=_number(fields, b"pending"),
        cancelling=not stands.final and CANCELLING.encode() in fields,
        correlation_id=options.own.correlation_id,
        traceparent=traceparent_of(options),
    )


def _expires_at(fields: Fields, options: Options, created: int) -> float:
    if not options.own.expires or LASTING.encode() in fields:
        return 0.0
    # The field ``delay`` is of the latest wait, not of the first one.
    return (created + (options.delay or 0.0)) / 1000 + options.own.expires


def _state(fields: Fields, state: bytes, attempts: int) -> State:
    found = _STATES.get(state, State.QUEUED)
    verdict, _, at = _text(fields, ENDED_AS.encode()).partition(":")
    if found is State.FAILED and at and at == _text(fields, b"finishedOn"):  # Else it has run again, in Node.
        return State(verdict)
    if state == b"delayed" and not _number(fields, b"delay"):
        return State.QUEUED
    return State.RETRYING if attempts and state == b"delayed" else found


def _result(fields: Fields) -> bytes:
    found = fields.get(b"returnvalue", b"")
    return b"" if found == b"null" else found


def _priority(fields: Fields, options: Options) -> int:
    if options.own.priority is not None:
        return options.own.priority
    given = _number(fields, b"priority")
    return max(0, 10 - given) if given else 9


def _parent(fields: Fields) -> tuple[str | None, str]:
    try:
        found = _read_parent(fields.get(b"parent") or b"{}")
    except msgspec.DecodeError:
        found = {}
    id, queue = found.get("id"), found.get("queueKey")
    if not isinstance(id, str) or not isinstance(queue, str):
        key = _text(fields, b"parentKey")
        queue, _, id = key.rpartition(":")
    return (known(id), unescaped(queue.rpartition(":")[2])) if id else (None, "")


def _number(fields: Fields, name: bytes) -> int:
    given = fields.get(name, b"")
    try:
        return int(float(given)) if given else 0
    except ValueError:
        return 0


def _text(fields: Fields, name: bytes) -> str:
    return fields.get(name, b"").decode(errors="replace")


def milliseconds(time: float) -> int:
    """Return seconds as whole milliseconds."""
    return round(time * 1000)
