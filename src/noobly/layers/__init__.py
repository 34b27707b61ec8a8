"""What every call of every service goes through, written once.

The order, outermost first: observe (with the final outcome), circuit breaker (so that a missed deadline counts as a
failure), deadline (the whole call), limit, validate, require, retry (inside the deadline, so that attempts are counted
once), classify, provider.
"""

from __future__ import annotations

from collections.abc import Sequence

from noobly.core.binding import Layer
from noobly.core.scope import Scope
from noobly.layers.breaker import Breaker, breaker
from noobly.layers.classify import classify
from noobly.layers.deadline import deadline
from noobly.layers.limit import limit
from noobly.layers.observe import observe
from noobly.layers.require import require
from noobly.layers.retry import retry
from noobly.layers.validate import validate

__all__ = ["Breaker", "default_stack"]


def default_stack(scope: Scope, circuit: Breaker, *, inner: Sequence[Layer] = ()) -> list[Layer]:
    """Return the layers of one instance, outermost first.

    Args:
        scope: The instance.
        circuit: Its circuit breaker, which health shows.
        inner: Further layers next to the provider, such as the fault layer of the tests.
    """
    return [
        observe(scope),
        breaker(circuit),
        deadline(scope),
        limit(scope),
        validate(),
        require(),
        retry(scope),
        classify(),
        *inner,
    ]
