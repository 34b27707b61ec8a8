"""Jobs in the form in which BullMQ keeps them, and back.

Our own options stand in BullMQ's ``opts`` under ``noobly``, where Node passes them over. BullMQ's priorities begin with
1, and jobs with none, 0, come before all others: ours are 10 to 1, so that 0 only comes from Node.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from noobly.clients.redis import Arg, Command
from noobly.working.driver import JobRecord, NewJob, Retrying, State
from noobly.working.providers._bullmq_scripts import BullQueue, packed

ENDED_AS = "noobly"
"""The field of a failed job that tells how it ended, where BullMQ only knows failing."""

_PLAIN = re.compile(r"[%:]")
_ESCAPED = re.compile(r"%([0-9A-F]{2})")
_STATES = {
    b"completed": State.SUCCEEDED,
    b"failed": State.FAILED,
    b"delayed": State.DELAYED,
    b"waiting-children": State.DELAYED,
    b"prioritized": State.QUEUED,
    b"waiting": State.QUEUED,
    b"active": State.RUNNING,
}

Fields = Mapping[bytes, bytes]


class _Own(msgspec.Struct, frozen=True, omit_defaults=True):
    """What BullMQ has no option for."""

    cap: float = 300.0
    timeout: float = 0.0
    expires: float = 0.0
    order: int = 0
    priority: int | None = None


class _Backoff(msgspec.Struct, frozen=True):
    type: str = "fixed"
    delay: float = 0.0
    jitter: float = 0.0


class _Options(msgspec.Struct, frozen=True):
    """The options of a stored job, those that matter here."""

    attempts: int = 1
    backoff: _Backoff | float | None = None
    noobly: _Own = _Own()
    fpof: bool = False
    idof: bool = False
    cpof: bool = False
    rdof: bool = False


_read_options = msgspec.json.Decoder(_Options, strict=False).decode
_DEFAULTS = _Options()


def escaped(name: str) -> str:
    """Return a name or an id that BullMQ takes: without colons. Whole numbers are the ids that it gives itself."""
    return _PLAIN.sub(lambda match: f"%{ord(match[0]):02X}", name)


def unescaped(name: str) -> str:
    """Return the name or id that was escaped."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), name)


def add_command(queue: BullQueue, parents: BullQueue | None, new: NewJob, order: int, now: int) -> Command:
    """Return the command that adds a job; a parent has to be there before its children."""
    parent_key = parents.key(escaped(new.parent or "")) if parents else None
    parent = parent_of(new, parents) if parents else None
    key = f"{queue.base}de:{new.unique}" if new.unique is not None else None
    arguments = [
        *(queue.base, escaped(new.id), new.task, now, parent_key),
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
    return {"id": escaped(new.parent or ""), "queueKey": parents.base[:-1], failing: True}


def _options(new: NewJob, order: int) -> dict[str, Any]:
    retrying = new.retrying
    own = _Own(retrying.cap, new.timeout, new.expires, order, new.priority)
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
    return options


def flags(fields: Fields) -> dict[str, bool | int]:
    """Return what BullMQ's script wants to know of a job that ends."""
    options = _read(fields)
    return {
        "attempts": options.attempts,
        "fpof": options.fpof,
        "idof": options.idof,
        "cpof": options.cpof,
        "rdof": options.rdof,
    }


def _read(fields: Fields) -> _Options:
    try:
        return _read_options(fields.get(b"opts", b"{}"))
    except msgspec.DecodeError:
        return _DEFAULTS


def place(fields: Fields) -> int:
    """Return where a job stands among those that were added with it."""
    return _read(fields).noobly.order


def record(queue: str, id: str, fields: Fields, state: bytes, *, cancelling: bool = False) -> JobRecord:
    """Return a stored job."""
    options = _read(fields)
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
        retrying=_retrying(options),
        timeout=options.noobly.timeout,
        attempts=attempts + (stands is State.RUNNING),
        stalls=_number(fields, b"stc"),
        created_at=created / 1000,
        run_at=(begun + delay) / 1000,
        expires_at=(created + delay) / 1000 + options.noobly.expires if options.noobly.expires else 0.0,
        started_at=_number(fields, b"processedOn") / 1000,
        finished_at=_number(fields, b"finishedOn") / 1000,
        progress=fields.get(b"progress", b""),
        result=_result(fields),
        error=_text(fields, b"failedReason") if stands is not State.SUCCEEDED else "",
        worker=_text(fields, b"pb"),
        parent=parent,
        parent_queue=parent_queue,
        pending=_number(fields, b"pending"),
        cancelling=cancelling,
    )


def _state(fields: Fields, state: bytes, attempts: int) -> State:
    found = _STATES.get(state, State.QUEUED)
    if found is State.FAILED and ENDED_AS.encode() in fields:
        return State(_text(fields, ENDED_AS.encode()))
    if state == b"delayed" and not _number(fields, b"delay"):
        return State.QUEUED
    return State.RETRYING if attempts and state == b"delayed" else found


def _result(fields: Fields) -> bytes:
    found = fields.get(b"returnvalue", b"")
    return b"" if found == b"null" else found


def _retrying(options: _Options) -> Retrying:
    backoff = options.backoff
    if backoff is None or not isinstance(backoff, _Backoff):
        base = (backoff or 0.0) / 1000
        return Retrying(attempts=max(1, options.attempts), base=base, cap=base, jitter=0.0, fixed=True)
    fixed = backoff.type != "exponential"
    base = backoff.delay / 1000
    return Retrying(
        attempts=max(1, options.attempts), base=base, cap=options.noobly.cap, jitter=backoff.jitter, fixed=fixed
    )


def _priority(fields: Fields, options: _Options) -> int:
    if options.noobly.priority is not None:
        return options.noobly.priority
    given = _number(fields, b"priority")
    return max(0, 10 - given) if given else 9


def _parent(fields: Fields) -> tuple[str | None, str]:
    key = _text(fields, b"parentKey")
    if not key:
        return None, ""
    _, queue, id = key.rsplit(":", 2)
    return unescaped(id), unescaped(queue)


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
