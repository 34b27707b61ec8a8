"""Require: an operation whose capability the provider lacks is refused before any I/O."""

from __future__ import annotations

from noobly.core.binding import Layer
from noobly.core.capability import Capability
from noobly.core.errors import Unsupported
from noobly.core.operation import Call, Driver, Operation


def require() -> Layer:
    """Refuse what the provider, or the server it found at start, cannot do.

    A provider may name in ``lacks`` the capabilities that its methods promise but its server does not have.
    """

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        lacks: frozenset[Capability] = getattr(driver, "lacks", frozenset())
        if operation.needs is None or (hasattr(driver, operation.name) and operation.needs not in lacks):
            return inner
        who = "its server" if operation.needs in lacks else "it"
        message = f"{driver.scheme} cannot do {operation.name}: {who} lacks {operation.needs.name.lower()}"

        async def refuse(*_: object) -> object:
            raise Unsupported(message)

        return refuse

    return layer
