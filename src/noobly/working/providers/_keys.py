"""The unique keys of one queue in memory."""

from __future__ import annotations

from collections.abc import Container


class Keys:
    """Which job has which key, and until when; an end of 0 stands for that of the job.

    Args:
        jobs: The ids of the jobs that there are.
    """

    def __init__(self, jobs: Container[str]) -> None:
        self._jobs = jobs
        self._held: dict[str, tuple[str, float]] = {}

    def holder(self, key: str | None, now: float) -> str | None:
        """Return the job that has a key."""
        id, ends = self._held.get(key, ("", 0.0)) if key is not None else ("", 0.0)
        return id if ends > now or (not ends and id in self._jobs) else None

    def give(self, key: str | None, id: str, ends: float) -> None:
        """Let a job have its key, if it has one."""
        if key is not None:
            self._held[key] = (id, ends)

    def take(self, key: str | None, id: str, now: float) -> bool:
        """Let a job that runs again have its key again; false where another one has it."""
        holder = self.holder(key, now)
        if holder is None:
            self.give(key, id, 0.0)
        return holder in (None, id)

    def end(self, key: str | None, id: str) -> None:
        """Take away the key of a job that has ended, unless it counts for a while."""
        if key is not None and self._held.get(key) == (id, 0.0):
            del self._held[key]

    def forget(self, key: str | None, id: str) -> None:
        """Take away the key of a job that is gone."""
        if key is not None and self._held.get(key, ("", 0.0))[0] == id:
            del self._held[key]
