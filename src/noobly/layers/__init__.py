"""What every call of every service goes through, written once.

The order, outermost first: observe (with the final outcome), validate, require, guard, provider. Guard is what bounds
and repeats calls that leave the process, outermost first: circuit breaker (so that a missed deadline counts as a
failure), deadline (of the whole call), limit, attempts (inside the deadline), classify.
"""

from __future__ import annotations

from collections.abc import Sequence

from noobly.core.binding import Layer
from noobly.core.scope import Scope
from noobly.layers.breaker import Breaker
from noobly.layers.guard import guard
from noobly.layers.observe import observe
from noobly.layers.require import require
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
        validate(),
        require(),
        guard(scope, circuit),
        *inner,
    ]
