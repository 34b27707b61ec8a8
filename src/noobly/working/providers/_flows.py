"""What adding a flow again means, the same in every store of ours: nothing of it is added."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from noobly.working.driver import Added, NewJob

Place = tuple[str, str]
"""A job, by its queue and id."""


def known_parents(jobs: Sequence[NewJob], known: Callable[[NewJob], Added | None]) -> frozenset[Place]:
    """Return the parents that are there already, and those that only run before one of them.

    Args:
        jobs: New jobs, each parent behind those it runs after.
        known: Returns what a new job duplicates.
    """
    found: set[Place] = set()
    for new in reversed(jobs):
        if new.pending and (parent_of(new) in found or known(new) is not None):
            found.add((new.queue, new.id))
    return frozenset(found)


def parent_of(new: NewJob) -> Place:
    """Return the job that a new one is run before; nobody's place where there is none."""
    return new.parent_queue, new.parent or ""
