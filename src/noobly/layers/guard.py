"""Guard: what bounds and repeats a call that leaves the process, in one coroutine.

Outermost first: the circuit, so that a missed deadline counts as a failure; the deadline, over all attempts and the
wait for a place; a place among the calls under way; the attempts. Where all is well each of them has next to nothing
to do, while each coroutine around a call costs anew whenever the call waits. So they share one.
"""

from __future__ import annotations

from noobly.core.binding import Layer
from noobly.core.operation import Call, Driver, Operation
from noobly.core.scope import Scope
from noobly.layers.attempt import Recover, recovery
from noobly.layers.breaker import Breaker, Circuit
from noobly.layers.classify import classify
from noobly.layers.deadline import Sweep
from noobly.layers.limit import Gate

_LASTING = 10_800.0
"""Seconds of the deadline of calls that take as long as their arguments ask for."""


def guard(scope: Scope, circuit: Breaker) -> Layer:
    """Guard the calls of one instance; what an in-process provider raises is classified, and it needs no more."""
    policy = scope.policy
    sweep, long = Sweep(policy.timeout), Sweep(max(policy.timeout, _LASTING))
    gate = Gate(policy.concurrency, policy.waiting)
    waits = Gate(
        max(policy.concurrency, policy.waiting), 0
    )  # Those that wait for something to come would take all places, and do nothing.
    classified = classify()

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        if driver.in_process:
            return classified(operation, driver, inner)
        recover = recovery(scope, operation, driver, inner)
        deadline, places = long if operation.lasts else sweep, waits if operation.waits else gate
        return _guarded(operation, inner, recover, circuit, deadline, places)

    return layer


def _guarded(operation: Operation, inner: Call, recover: Recover, circuit: Breaker, sweep: Sweep, gate: Gate) -> Call:
    watch, forget, closed, waits = sweep.watch, sweep.calls.pop, Circuit.CLOSED, operation.waits

    async def guarded(*args: object) -> object:
        if circuit.state is not closed:
            circuit.admit(waits=waits)
        watched = watch()
        try:
            if gate.free:
                gate.free -= 1
            else:
                await gate.wait()
            try:
                result = await inner(*args)
            except Exception as error:  # noqa: BLE001 - what is not tried again is raised anew
                result = await recover(error, args)
            finally:
                if gate.waiters:
                    gate.leave()
                else:
                    gate.free += 1
        except BaseException as error:
            late = sweep.missed(watched, error, operation.name)
            circuit.judge(late or error)
            if late is None:
                raise
            raise late from error
        finally:
            forget(watched, None)
        if circuit.failures:
            circuit.succeeded()
        return result

    return guarded
