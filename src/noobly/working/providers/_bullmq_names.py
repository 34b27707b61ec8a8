"""Names of queues and ids of jobs as BullMQ takes them, and back.

BullMQ takes no colons, gives whole numbers as ids itself, and keeps its lists beside the jobs, under names that an id
must not have. So what is added here is escaped, and no more than that: what Node has named stays as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

from noobly.working.driver import Hold

_ESCAPING = re.compile(r":|%(?:25)*3A")
_ESCAPED = re.compile(r"%((?:25)*)3A")
_SHIELDED = re.compile(r"%(?:25)*00")
_SHIELD = "%00"
_OTHERS = re.compile(
    r"[0-9]+|active|completed|de|delayed|events|failed|groups|id|limiter|marker|meta|paused|pc|prioritized|priority"
    r"|repeat|stalled|stalled-check|wait|waiting-children|noobly-.*",
    re.DOTALL,
)
"""The ids that BullMQ gives itself, and the names of its keys and of ours."""

_LATELY = 4096
"""Ids whose other form is remembered, for each is asked for several times while its job runs."""

_LITERAL = "="
"""What the token of a job begins with whose id Node has made of characters that are escaped here."""


def escaped(name: str) -> str:
    """Return a name without colons; each is the escaped form of exactly one name."""
    return _ESCAPING.sub(lambda match: "%3A" if match[0] == ":" else f"%25{match[0][1:]}", name)


def unescaped(name: str) -> str:
    """Return the name that was escaped."""
    return _ESCAPED.sub(lambda match: f"%{match[1][2:]}3A" if match[1] else ":", name)


@lru_cache(_LATELY)
def stored(id: str) -> str:
    """Return the id under which a job is added here."""
    name = escaped(id)
    if _OTHERS.fullmatch(id):
        return _SHIELD + name
    return f"%25{name[1:]}" if _SHIELDED.match(name) else name


@lru_cache(_LATELY)
def known(raw: str) -> str:
    """Return the id of a job as users know it: what it was added with here, or in Node."""
    name = raw
    if _SHIELDED.match(raw):
        name = raw.removeprefix(_SHIELD) if raw.startswith(_SHIELD) else f"%{raw[3:]}"
    id = unescaped(name)
    return id if stored(id) == raw else raw


def hold(raw: str, token: str) -> Hold:
    """Return a claim of a stored job, which tells the job apart from another that is known by the same id."""
    id = known(raw)
    return Hold(id, token if stored(id) == raw else _LITERAL + token)


def held(hold: Hold) -> tuple[str, str]:
    """Return the stored id and the token of a claim."""
    if hold.token.startswith(_LITERAL):
        return hold.id, hold.token.removeprefix(_LITERAL)
    return stored(hold.id), hold.token
