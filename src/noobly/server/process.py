"""What a process does that serves and does nothing else."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress


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
