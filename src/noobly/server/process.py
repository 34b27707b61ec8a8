"""What a process does that serves and does nothing else."""

from __future__ import annotations

import gc
import os
import resource
import sys
from contextlib import suppress

from noobly.core.journal import Journal

_OTHERS = 256
"""Open files besides the connections of clients: those of stores, and the process's own."""

_LOG = Journal("noobly.server")


def dedicate() -> None:
    """Give this process to serving, before its first thread: fewer thread switches, and shorter garbage collections.

    A request passes between granian's threads and the event loop several times. By default Linux lets each thread that
    wakes take the core from the one that woke it, which still holds Python's lock, so that both switch once more for
    nothing; ``SCHED_BATCH`` lets the waker finish first (sched(7)). It takes no rights, and a policy that an operator
    chose is kept. What was imported stays for good, and full collections need not walk it again.
    """
    gc.collect()
    gc.freeze()
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with suppress(OSError):  # Some sandboxes refuse every change of scheduling; then it serves as before.
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def places(connections: int) -> int:
    """Return how many connections this process can keep open, and make room for them in its limit of open files.

    Beyond that limit neither a connection is taken nor a store opened.

    Args:
        connections: How many are wanted.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHERS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    room = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    with suppress(OSError, ValueError):  # macOS has a limit of its own below the one that it tells.
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
        soft = room
    found = max(1, min(connections, soft - _OTHERS))
    if found < connections:
        _LOG.warning("the limit of open files allows fewer connections", connections=found, wanted=connections)
    return found
