"""Refusals: what is wrong with a call is said before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from noobly.core.capability import Capability
from noobly.core.errors import ConfigError, InvalidArgument, TooLarge, Unsupported
from noobly.core.events import OperationFinished
from noobly.queueing import Can, Outbound, Queues
from noobly.testing.queueing.harness import QueueHarness
from noobly.testing.queueing.theme import Theme, recorded, worked

Wrong = Any
"""An argument of a type that the signature does not allow."""
Calls = tuple[Callable[[Queues, Wrong], Awaitable[object]], ...]

BAD_NAMES: tuple[Wrong, ...] = ("", "q" * 201, "\ud800", "ok\udfff", None, 5, b"bytes", ["list"], True)
BAD_TEXTS: tuple[Wrong, ...] = ("", "k" * 257, "\ud800", 5, b"bytes", True)
BAD_TIMES: tuple[Wrong, ...] = (
    -1, -0.001, math.nan, math.inf, 1e10, True, False, "60", Decimal(60), timedelta(seconds=-1),
)  # fmt: skip
BAD_COUNTS: tuple[Wrong, ...] = (0, -1, 1001, 1.5, True, "1", None)
BAD_VALUES: tuple[Wrong, ...] = (object(), {1j}, lambda: None, "\ud800", {"k": object()}, [b"", 1j])
BAD_RECEIPTS: tuple[Wrong, ...] = ("", "x", "1", "1m", "m1", "1x1", "1m\ud800", "1m" + "x" * 9000, None, 5, b"1m1")
BAD_HEADERS: tuple[Wrong, ...] = ({"a": 1}, {"a": None}, {1: "a"}, {"a": b"x"}, {"a": "\ud800"}, {"\ud800": "a"}, ["a"])

_NAMED: Calls = (
    lambda queues, name: queues.send(name, 1),
    lambda queues, name: queues.send_many(name, [Outbound(message=1)]),
    lambda queues, name: queues.receive(name),
    lambda queues, name: queues.receive(name, wait=5),
    lambda queues, name: queues.dequeue(name),
    lambda queues, name: queues.ack(name, "1mx"),
    lambda queues, name: queues.ack_many(name, ["1mx"]),
    lambda queues, name: queues.nack(name, "1mx"),
    lambda queues, name: queues.reject(name, "1mx"),
    lambda queues, name: queues.release_many(name, ["1mx"]),
    lambda queues, name: queues.extend(name, "1mx"),
    lambda queues, name: queues.size(name),
    lambda queues, name: queues.stats(name),
    lambda queues, name: queues.purge(name),
    lambda queues, name: queues.redrive(name),
    lambda queues, name: queues.move(name, "other"),
    lambda queues, name: queues.move("other", name),
)
_TEXTS: Calls = (
    lambda queues, text: queues.send("q", 1, dedup=text),
    lambda queues, text: queues.send("q", 1, group=text),
)
_TIMED: Calls = (
    lambda queues, time: queues.send("q", 1, delay=time),
    lambda queues, time: queues.send("q", 1, ttl=time),
    lambda queues, time: queues.receive("q", wait=time),
    lambda queues, time: queues.receive("q", lease=time),
    lambda queues, time: queues.nack("q", "1mx", delay=time),
    lambda queues, time: queues.extend("q", "1mx", time),
)
_RECEIPTS: Calls = (
    lambda queues, receipt: queues.ack("q", receipt),
    lambda queues, receipt: queues.ack_many("q", ["1mx", receipt]),
    lambda queues, receipt: queues.nack("q", receipt),
    lambda queues, receipt: queues.reject("q", receipt),
    lambda queues, receipt: queues.extend("q", receipt),
    lambda queues, receipt: queues.extend_many("q", [receipt]),
    lambda queues, receipt: queues.release_many("q", [receipt]),
)
_OTHER: Calls = (
    lambda queues, _: queues.send("q", 1, ttl=0),
    lambda queues, _: queues.receive("q", lease=0),
    lambda queues, _: queues.receive("q", lease=0.009),
    lambda queues, _: queues.receive("q", lease=43_201),
    lambda queues, _: queues.poll("q", wait=21),
    lambda queues, _: queues.send("q", 1, priority=-1),
    lambda queues, _: queues.send("q", 1, priority=10),
    lambda queues, wrong: queues.send("q", 1, priority=wrong),
    lambda queues, wrong: queues.nack("q", "1mx", reason=wrong),
    lambda queues, _: queues.reject("q", "1mx", reason="\ud800"),
    lambda queues, _: queues.move("q", "q"),
    lambda queues, _: queues.redrive("q.dead"),
    lambda queues, _: queues.redrive("q", max=0),
    lambda queues, _: queues.redrive("q", max=10_001),
    lambda queues, _: queues.redrive("q", rate=0),
    lambda queues, _: queues.redrive("q", to=""),
    lambda queues, _: queues.redrive("q", to="q.dead"),
    lambda queues, wrong: queues.redrive("q", rate=wrong),
)
_ABLE: dict[Capability, Calls] = {
    Can.PRIORITY: (lambda queues, _: queues.send("q", 1, priority=1),),
    Can.DELAY: (lambda queues, _: queues.send("q", 1, delay=5),),
    Can.DEDUP: (lambda queues, _: queues.send("q", 1, dedup="key"),),
    Can.ORDER: (lambda queues, _: queues.send_many("q", [Outbound(message=1, group="g")]),),
    Can.FAIR: (lambda queues, _: queues.send("q", 1, group="g"),),
    Can.ERRORS: (),
    Can.UNCOUNT: (),
    Can.PEEK: (lambda queues, _: queues.peek("q"), lambda queues, _: queues.dead_letters("q")),
    Can.PAUSE: (lambda queues, _: queues.pause("q"), lambda queues, _: queues.resume("q")),
}


async def _refused(queues: Queues, calls: Calls, wrong: Wrong) -> None:
    done = recorded(queues, OperationFinished)
    for number, call in enumerate(calls):
        with pytest.raises(InvalidArgument) as refusal:
            await call(queues, wrong)
            raise AssertionError(f"call {number} took {wrong!a}")
        assert refusal.value.message
    assert worked(done) == []


class RefusalsTheme(Theme):
    """Bad input raises InvalidArgument or TooLarge, and no operation of the store is done."""

    @pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:24])
    async def test_names(self, queues: Queues, harness: QueueHarness, name: Wrong) -> None:
        await _refused(queues, _NAMED, name)
        for capability in (Can.PEEK, Can.PAUSE):
            if capability in harness.capabilities:
                await _refused(queues, _looks(capability), name)

    @pytest.mark.parametrize("text", BAD_TEXTS, ids=lambda text: ascii(text)[:24])
    async def test_groups_and_keys(self, queues: Queues, text: Wrong) -> None:
        await _refused(queues, _TEXTS, text)

    @pytest.mark.parametrize("time", BAD_TIMES, ids=repr)
    async def test_lengths_of_time(self, queues: Queues, time: Wrong) -> None:
        await _refused(queues, _TIMED, time)

    @pytest.mark.parametrize("count", BAD_COUNTS, ids=repr)
    async def test_counts(self, queues: Queues, harness: QueueHarness, count: Wrong) -> None:
        await _refused(queues, (lambda queues, most: queues.receive("q", max=most),), count)
        if Can.PEEK in harness.capabilities:
            await _refused(queues, (lambda queues, most: queues.peek("q", max=most),), count)
            if count != 0 and count != 1001:
                await _refused(queues, (lambda queues, skip: queues.peek("q", skip=skip),), count)

    @pytest.mark.parametrize("value", BAD_VALUES, ids=lambda value: type(value).__name__)
    async def test_messages(self, queues: Queues, value: Wrong) -> None:
        await _refused(
            queues,
            (
                lambda queues, wrong: queues.send("q", wrong),
                lambda queues, wrong: queues.send_many("q", [Outbound(message=1), Outbound(message=wrong)]),
            ),
            value,
        )

    @pytest.mark.parametrize("receipt", BAD_RECEIPTS, ids=lambda receipt: ascii(receipt)[:24])
    async def test_receipts(self, queues: Queues, receipt: Wrong) -> None:
        await _refused(queues, _RECEIPTS, receipt)

    @pytest.mark.parametrize("headers", BAD_HEADERS, ids=ascii)
    async def test_headers(self, queues: Queues, headers: Wrong) -> None:
        await _refused(queues, (lambda queues, wrong: queues.send("q", 1, headers=wrong),), headers)

    async def test_others(self, queues: Queues) -> None:
        await _refused(queues, _OTHER, True)

    async def test_long_headers(self, queues: Queues) -> None:
        with pytest.raises(TooLarge, match="headers"):
            await queues.send("q", 1, headers={"a": "x" * 20_000})
        assert await queues.queues() == []

    async def test_messages_do_not_show_values(self, queues: Queues) -> None:
        with pytest.raises(InvalidArgument) as refusal:
            await queues.send("q", {"password": "hunter2", "bad": object()})
        assert "hunter2" not in str(refusal.value)

    async def test_unknown_options(self, harness: QueueHarness) -> None:
        with pytest.raises(ConfigError, match="max_deliveries"):
            async with harness.open(max_delivery=5):
                raise AssertionError("it opened")

    @pytest.mark.parametrize("capability", list(Can), ids=lambda capability: capability.name.lower())
    async def test_what_it_claims_works_and_nothing_else(self, harness: QueueHarness, capability: Can) -> None:
        groups = "fair" if capability is Can.FAIR else "ordered"
        calls = _ABLE[capability]
        async with harness.open(groups=groups) as queues:
            done = recorded(queues, OperationFinished)
            for call in calls:
                if capability in harness.capabilities:
                    await call(queues, None)
                    continue
                with pytest.raises(Unsupported):
                    await call(queues, None)
            if capability not in harness.capabilities:
                assert worked(done) == []

    @pytest.mark.parametrize("capability", list(Can), ids=lambda capability: capability.name.lower())
    async def test_what_is_missing_is_refused_on_opening(self, harness: QueueHarness, capability: Can) -> None:
        if capability in harness.capabilities:
            async with harness.open(require=[capability]) as queues:
                await queues.send("q", 1)
            return
        with pytest.raises(Unsupported, match=capability.name.lower()):
            async with harness.open(require=[capability]):
                raise AssertionError("it opened without what was required")


def _looks(capability: Can) -> Calls:
    if capability is Can.PEEK:
        return (lambda queues, name: queues.peek(name), lambda queues, name: queues.dead_letters(name))
    return (lambda queues, name: queues.pause(name), lambda queues, name: queues.resume(name))
