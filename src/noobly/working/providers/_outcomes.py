"""What the outcome of an attempt makes of its job, the same in every store of ours."""

from __future__ import annotations

from noobly.working.driver import Outcome, State, Verdict
from noobly.working.states import ASKED

_CANCELLED = State.CANCELLED

_LAST = {verdict: State(verdict.value) for verdict in Verdict if verdict.final}


def state_after(outcome: Outcome, cancelling: bool) -> State:
    """Return where an outcome brings a job.

    Args:
        outcome: How its attempt ended.
        cancelling: Somebody has asked for its end, so it does not run again.
    """
    last = _LAST.get(outcome.verdict)
    if last is not None:
        return last
    if cancelling:
        return State.CANCELLED
    if outcome.verdict is Verdict.RETRY:
        return State.RETRYING
    return State.DELAYED if outcome.delay > 0 else State.QUEUED


def error_after(outcome: Outcome, state: State) -> str:
    """Return the error of a job that an outcome brings to a last state."""
    return outcome.error or (ASKED if state is _CANCELLED else "")
