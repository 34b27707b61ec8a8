"""How jobs behave where a task or a call does not say."""

from __future__ import annotations

from typing import Annotated

import msgspec

from noobly.core.config import Config

Positive = Annotated[float, msgspec.Meta(gt=0, lt=1e10)]


class JobOptions(Config, frozen=True, kw_only=True):
    """The options of working, in ``noobly.toml``, in ``open_jobs`` or in the URL.

    Args:
        lease: Seconds after which the jobs of a worker that died run again elsewhere; a living one extends it.
        max_stalls: How often a job's worker may vanish before the job fails.
        keep_succeeded: Seconds that succeeded jobs and their results are kept.
        keep_others: Seconds that failed, cancelled and expired jobs are kept.
        keep_most: Ended jobs kept per queue; of more, the oldest leave, those that succeeded first.
        sweep_every: Seconds between two looks for ended jobs past their retention.
        data_bytes: The longest argument, result or progress of a job, in bytes of JSON.
        activities: The folder of the scripts that may be run by path; nothing outside of it can be.
        script_workers: Scripts that this process itself runs at once; 0 leaves them to ``noobly worker``.
        script_timeout: Seconds that a script may take.
        depth_queues: Queues whose jobs ``/metrics`` shows by state, the first ones by name; each scrape asks the store
            for them, at most every 5 seconds. 0 for none.
    """

    lease: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 30.0
    max_stalls: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 2
    keep_succeeded: Positive = 86_400.0
    keep_others: Positive = 7 * 86_400.0
    keep_most: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 10_000
    sweep_every: Positive = 60.0
    data_bytes: Annotated[int, msgspec.Meta(ge=1, le=64 * 1024 * 1024)] = 1024 * 1024
    activities: str = "activities"
    script_workers: Annotated[int, msgspec.Meta(ge=0, le=256)] = 4
    script_timeout: Positive = 300.0
    depth_queues: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 100
