"""The trace of a message, from its sender to those who work on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from noobly.core.correlation import correlated, correlation_id
from noobly.queueing import Message, Queues, open_queues
from noobly.queueing.driver import Posted
from noobly.queueing.messages import Value
from noobly.testing import eventually

from ..spans import PARENT, in_a_trace, provider, spans

__all__ = ["provider", "spans"]


@pytest.fixture
async def queues() -> AsyncIterator[Queues]:
    async with open_queues() as queues:
        yield queues


async def sent_in_a_trace(queues: Queues) -> None:
    with in_a_trace():
        await queues.send("q", 1, headers={"h": "1"})


async def worked(queues: Queues, *, fails: bool = False) -> None:
    async with queues.consume("q") as messages, await anext(messages):
        if fails:
            raise ValueError("bad")


async def test_the_trace_of_others_goes_on_where_nothing_is_recorded(queues: Queues) -> None:
    await sent_in_a_trace(queues)
    async with queues.consume("q") as messages:
        message = await anext(messages)
        assert (message.delivery.traceparent, message.delivery.headers) == (PARENT, {"h": "1"})
        async with message:
            await queues.send("next", 2)
        await queues.send("last", 3)
    assert (await queues.receive("next"))[0].traceparent == PARENT
    assert (await queues.receive("last"))[0].traceparent == ""


async def test_the_work_has_a_span_linked_to_the_sender(spans: InMemorySpanExporter, queues: Queues) -> None:
    await sent_in_a_trace(queues)
    await worked(queues)
    (span,) = [one for one in spans.get_finished_spans() if one.name == "queueing.process"]
    assert span.kind is SpanKind.CONSUMER
    (link,) = span.links
    assert f"{link.context.trace_id:032x}" == PARENT.split("-")[1]
    assert span.attributes is not None
    assert span.attributes["messaging.destination.name"] == "q"
    assert {one.name for one in spans.get_finished_spans() if one.parent == span.context} == {"queueing.ack"}


async def test_a_failed_span_for_failed_work(spans: InMemorySpanExporter, queues: Queues) -> None:
    await queues.send("q", 1)
    await worked(queues, fails=True)
    (span,) = [one for one in spans.get_finished_spans() if one.name == "queueing.process"]
    assert not span.status.is_ok
    assert span.status.description == "ValueError: bad"
    assert [event.attributes["exception.type"] for event in span.events] == ["ValueError"]
    assert span.links == ()


async def test_an_exception_without_a_text_is_no_other_one(spans: InMemorySpanExporter, queues: Queues) -> None:
    class UnspokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    await queues.send("q", 1)
    async with queues.consume("q") as messages, await anext(messages):
        raise UnspokenError
    (span,) = [one for one in spans.get_finished_spans() if one.name == "queueing.process"]
    assert span.status.description == "UnspokenError, whose text cannot be had"


async def test_nothing_is_added_where_there_is_nothing(queues: Queues) -> None:
    await queues.send("q", 1)
    (found,) = await queues._driver.receive("q", 1, 30.0, 0.0)
    assert found.message.headers == ""


async def test_what_is_damaged_counts_as_none(spans: InMemorySpanExporter, queues: Queues) -> None:
    await queues._driver.send(
        "q", [Posted(id="theirs", body=b"1", headers='{"t": "no trace", "i": "no id, but text"}')]
    )
    async with queues.consume("q") as messages, await anext(messages):
        assert correlation_id() not in ("", "no id, but text")
    (span,) = [one for one in spans.get_finished_spans() if one.name == "queueing.process"]
    assert span.links == ()


async def test_it_may_be_left_elsewhere_than_it_was_entered(queues: Queues) -> None:
    with correlated("request-7"):
        await queues.send("q", 1)
    async with queues.consume("q") as messages:
        message = await anext(messages)
        await asyncio.create_task(message.__aenter__())
        await message.__aexit__(None, None, None)
    assert await queues.receive("q") == []


async def test_plain_handlers_have_it_too(queues: Queues) -> None:
    seen: list[str] = []

    def work(message: Message[Value]) -> None:
        seen.append(correlation_id())

    with correlated("request-7"):
        await queues.send("q", 1)
    task = asyncio.create_task(queues.work("q", work))
    await eventually(lambda: seen == ["request-7"])
    task.cancel()
    await asyncio.wait([task])
