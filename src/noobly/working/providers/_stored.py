"""One job in memory."""

from __future__ import annotations

import msgspec

from noobly.working.driver import JobRecord, Retention, State


class Stored(msgspec.Struct, kw_only=True):
    """A job and what only the store knows of it; ``changed`` tells entries of the heaps that are out of date."""

    record: JobRecord
    order: tuple[int, int]
    lenient: bool
    key: str | None
    token: str = ""
    fence: int = 0
    until: float = 0.0
    changed: int = 0
    lines: list[str] = []
    children: list[tuple[str, str]] = []

    def set(self, **changes: object) -> None:
        """Change fields of the record."""
        self.record = msgspec.structs.replace(self.record, **changes)

    def kept(self, retention: Retention) -> float:
        """Return the seconds for which it is kept once it has ended."""
        return retention.succeeded if self.record.state is State.SUCCEEDED else retention.others
