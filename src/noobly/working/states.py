"""Where jobs, claims and attempts stand: the words of the driver protocol."""

from __future__ import annotations

from enum import Enum

ASKED = "somebody cancelled the job"
"""The error of a job that was cancelled, where there is none of its own."""

LATE = "nobody began it in its time"
"""The error of a job that has expired."""


class Word(Enum):
    """Base of the words here: each is one object, which is its hash, where ``Enum`` would compute one of its name."""

    __hash__ = object.__hash__


class State(Word):
    """Where a job stands."""

    QUEUED = "queued"
    DELAYED = "delayed"
    """It waits for its time, or for jobs it runs after."""
    RUNNING = "running"
    RETRYING = "retrying"
    """It failed, and waits for its next attempt."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Nobody had begun it in its time."""

    @property
    def final(self) -> bool:
        """Whether a job stays in this state."""
        return self in FINAL


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})


class Beat(Word):
    """How a claim stands."""

    KEPT = "kept"
    LOST = "lost"
    """Its lease had ended, or the job is gone."""
    CANCELLED = "cancelled"
    """Kept, but somebody has asked for the job's end."""


class Verdict(Word):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    RETRY = "retry"
    """It failed, and runs again after ``delay``."""
    RELEASE = "release"
    """Its worker stops: it runs again after ``delay``, and this attempt does not count."""

    @property
    def final(self) -> bool:
        """Whether the job stays in the state that this brings it to."""
        return self not in (Verdict.RETRY, Verdict.RELEASE)
