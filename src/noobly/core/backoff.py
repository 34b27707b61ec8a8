"""The pause before something that failed is tried again: exponential, with full jitter."""

from __future__ import annotations

from noobly.core.clock import Chance


def jittered(attempts: int, base: float, cap: float, chance: Chance) -> float:
    """Return a random number of seconds from 0 to ``base`` doubled with each attempt after the first, or ``cap``.

    Full jitter spreads those who failed together best: Marc Brooker, "Exponential Backoff And Jitter", AWS, 2015.
    """
    return min(cap, base * 2.0 ** min(attempts - 1, 60)) * chance.random()
