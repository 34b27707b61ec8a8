"""Report: where the outcome of each call of one operation goes, for the observe layer."""

from __future__ import annotations

import logging
from typing import NoReturn

from noobly.core.errors import NooblyError
from noobly.core.events import OperationFinished
from noobly.core.journal import Said
from noobly.core.operation import Operation
from noobly.core.scope import Scope
from noobly.layers.classify import unknown

_STDLIB = logging.getLogger("noobly.operation")


class Report:
    """The histogram, the event and the log line of one operation of one instance.

    Attributes:
        cell: The series of good calls, into which the observe layer writes directly.
        topic: Who wants an event.
        debug: Whether a line may be wanted, as ``DEBUG: False`` where it is known that none is.
    """

    def __init__(self, operation: Operation, scope: Scope) -> None:
        self._operation, self._scope = operation, scope
        self._names = scope.service, scope.instance, scope.provider, operation.name
        self.cell = scope.environment.meter.cell(*self._names, "ok")
        self.topic = scope.environment.bus.topic(OperationFinished, scope.service, scope.instance)
        # What `isEnabledFor` remembers, read without the call of it; were it not there, `tell` would see to it.
        self.debug: dict[int, bool] = getattr(_STDLIB, "_cache", {})

    def failed(self, error: BaseException, took: float) -> NoReturn:
        """Report a failure and raise it; what no provider has classified is Internal."""
        scope, failure = self._scope, error
        if isinstance(error, Exception) and not isinstance(error, NooblyError):
            failure = unknown(error, self._operation, scope.provider)
        outcome = "cancelled"
        if isinstance(failure, NooblyError):
            outcome = failure.code
            failure.service, failure.operation = scope.service, self._operation.name
            failure.provider = failure.provider or scope.provider
        scope.environment.meter.cell(*self._names, outcome).add(took)
        self.tell(took, outcome)
        if failure is error:
            raise error
        raise failure from error

    def tell(self, took: float, outcome: str) -> None:
        """Send the event and write the line, where somebody wants them."""
        service, instance, provider, operation = self._names
        self.topic.emit(OperationFinished(service, instance, provider, operation, outcome, took))
        if _STDLIB.isEnabledFor(logging.DEBUG):
            fields = {"service": service, "instance": instance, "provider": provider}
            name = f"{service}.{operation}"
            _STDLIB.debug(Said(name, {**fields, "outcome": outcome, "seconds": round(took, 7)}))
