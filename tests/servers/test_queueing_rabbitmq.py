"""What is RabbitMQ's own about its queues; what all queues do is in tests/conformance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import aio_pika
import pytest
import trustme
from aio_pika.abc import AbstractChannel, AbstractQueue

from noobly.core.clock import fresh_id
from noobly.core.config import Secret
from noobly.core.errors import ConfigError, InvalidArgument, Unauthenticated, Unavailable
from noobly.queueing import Outbound, Queues, names, open_queues
from noobly.queueing.providers import _rabbitmq_receiving, _rabbitmq_roll, _rabbitmq_sending, rabbitmq
from noobly.queueing.providers._rabbitmq_link import RabbitLink
from noobly.queueing.providers._rabbitmq_names import Places
from noobly.testing import eventually, free_port, private_or_skip, server_or_skip
from noobly.testing.queueing.theme import LONG, PATIENCE, drained, one

from ..rabbit import swept


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with server_or_skip("rabbitmq") as url:
        yield url


@pytest.fixture
async def url(server: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    async with swept(server, monkeypatch):
        yield f"{server}?namespace=unit-{fresh_id()}"


@pytest.fixture
async def queues(url: str) -> AsyncIterator[Queues]:
    async with open_queues(url) as queues:
        yield queues


@pytest.fixture
async def channel(server: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(server) as connection, connection.channel() as channel:
        yield channel


def _namespace(url: str) -> str:
    return url.partition("namespace=")[2]


async def _consumers(channel: AbstractChannel, name: str) -> int | None:
    return (await channel.declare_queue(name, passive=True)).declaration_result.consumer_count


@pytest.mark.servers
class TestConnecting:
    async def test_a_wrong_password(self, server: str) -> None:
        wrong = {"username": "guest", "password": Secret("s3cret")}
        with pytest.raises(Unauthenticated) as error:
            async with open_queues(server, **wrong):
                pass
        assert "s3cret" not in f"{error.value!r} {error.value.__cause__!r}"

    async def test_no_such_virtual_host(self, server: str) -> None:
        with pytest.raises(ConfigError, match="virtual host"):
            async with open_queues(f"{server}/nowhere"):
                pass

    async def test_its_schemes(self, url: str) -> None:
        for scheme in ("rabbitmq", "amqp"):
            async with open_queues(url.replace("amqp", scheme, 1)) as queues:
                await queues.send("q", scheme)
                assert await queues.dequeue("q") == scheme


@pytest.mark.servers
class TestQueues:
    async def test_a_lease_longer_than_the_server_bears(self, url: str) -> None:
        async with open_queues(url, longest_lease=5, lease=5) as queues:
            with pytest.raises(InvalidArgument, match="rabbitmq holds a message for 5 seconds at most"):
                await queues.receive("q", lease=6)
            await queues.send("q", 1)
            held = await one(queues, "q", lease=5)
            with pytest.raises(InvalidArgument, match="5 seconds at most"):
                await queues.extend("q", held.receipt, 6)
            await queues.ack("q", held.receipt)
        with pytest.raises(ConfigError, match="set a shorter lease"):
            async with open_queues(url, longest_lease=5):
                pass

    async def test_a_message_is_held_no_longer_than_the_bound(self, url: str) -> None:
        async with open_queues(url, longest_lease=0.5, lease=0.5) as queues:
            await queues.send("q", 1)
            held = await one(queues, "q", lease=0.5)
            for _ in range(3):
                await queues.extend("q", held.receipt)  # As a heartbeat does.
            assert (await one(queues, "q", lease=0.5)).deliveries == 2
            assert await queues.ack_many("q", [held.receipt]) == [False]

    async def test_messages_move_where_leases_are_short(self, url: str) -> None:
        async with open_queues(url, longest_lease=5, lease=5) as queues:
            await queues.send("q", 1)
            assert (await queues.move("q", "to")).moved == 1
            await queues.reject("to", (await one(queues, "to", lease=5)).receipt)
            assert (await queues.redrive("to", to="q")).moved == 1
            assert await queues.dequeue("q") == 1

    async def test_a_message_of_another_program(self, url: str, queues: Queues, channel: AbstractChannel) -> None:
        await queues.send("q", 1)
        await queues.dequeue("q")
        await channel.default_exchange.publish(aio_pika.Message(b'{"a": 1}'), f"{_namespace(url)}.q")
        found = await one(queues, "q")
        assert (found.value, found.deliveries, found.headers) == ({"a": 1}, 1, {})
        await queues.nack("q", found.receipt, delay=0)
        again = await one(queues, "q")
        assert (again.id, again.deliveries) == (found.id, 2)

    async def test_another_program_reads_what_was_sent(
        self, url: str, queues: Queues, channel: AbstractChannel
    ) -> None:
        sent = await queues.send("q", {"a": 1})
        queue = await channel.get_queue(f"{_namespace(url)}.q")
        message = await queue.get()
        assert (message.body, message.message_id, message.delivery_mode) == (b'{"a":1}', sent.id, 2)
        await message.ack()

    async def test_a_dead_letter_of_another_program(self, url: str, queues: Queues, channel: AbstractChannel) -> None:
        await queues.send("q", 1)
        await queues.dequeue("q")
        foreign = aio_pika.Message(b"{}", headers={"trace": "abc"}, correlation_id="c", content_type="application/json")
        await channel.default_exchange.publish(foreign, f"{_namespace(url)}.q")
        await queues.reject("q", (await one(queues, "q")).receipt, reason="bad")
        dead = await (await channel.get_queue(f"{_namespace(url)}.q.dead")).get(timeout=PATIENCE)
        assert (dead.correlation_id, dead.content_type) == ("c", "application/json")
        assert (dead.headers["trace"], dead.headers["noobly-last-error"]) == ("abc", "bad")
        await dead.ack()

    async def test_looking_makes_no_queue(self, url: str, queues: Queues, channel: AbstractChannel) -> None:
        assert await queues.receive("q", wait=0.1) == []
        assert (await queues.stats("q")).ready == 0
        await queues.purge("q")
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await channel.declare_queue(f"{_namespace(url)}.q", passive=True)

    async def test_who_waits_before_the_queue_is_there(self, url: str, queues: Queues) -> None:
        async with open_queues(url) as other:
            waiting = asyncio.create_task(queues.receive("q", wait=PATIENCE))
            await asyncio.sleep(0)
            await other.send("q", 1)
            assert [each.value for each in await waiting] == [1]

    async def test_all_who_wait_for_a_queue_look_for_it_together(
        self, queues: Queues, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks, channel = 0, RabbitLink.channel

        async def counted(link: RabbitLink, *, confirms: bool = False) -> AbstractChannel:
            nonlocal looks
            looks += 1
            return await channel(link, confirms=confirms)

        monkeypatch.setattr(RabbitLink, "channel", counted)
        assert await asyncio.gather(*(queues.receive("q", wait=1.0) for _ in range(20))) == [[]] * 20
        assert 1 <= looks <= 5

    async def test_who_waits_is_woken_by_the_first_message_from_this_process(
        self, queues: Queues, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (rabbitmq, _rabbitmq_receiving):
            monkeypatch.setattr(module, "LOOK", LONG)
        for name in ("q", names.dead("q")):
            waiting = asyncio.create_task(queues.receive(name, wait=PATIENCE))
            assert await queues.receive(name) == []
            began = time.monotonic()
            await queues.send("q", 1)
            if names.is_dead(name):
                await queues.reject("q", (await one(queues, "q")).receipt)
            assert [each.value for each in await waiting] == [1]
            assert time.monotonic() - began < 1.0

    async def test_a_queue_that_does_not_answer_holds_up_no_other(
        self, queues: Queues, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stuck, go, declare = asyncio.Event(), asyncio.Event(), aio_pika.Channel.declare_queue

        async def slow(channel: aio_pika.Channel, name: str, *, passive: bool = False, **rest: Any) -> AbstractQueue:
            if name.endswith(".stuck"):
                stuck.set()
                await go.wait()
            return await declare(channel, name, passive=passive, **rest)

        await queues.send("q", 1)
        monkeypatch.setattr(aio_pika.Channel, "declare_queue", slow)
        waiting = asyncio.create_task(queues.receive("stuck"))
        await stuck.wait()
        assert (await one(queues, "q")).value == 1
        go.set()
        assert await waiting == []

    async def test_a_queue_with_other_arguments(self, url: str, queues: Queues, channel: AbstractChannel) -> None:
        await channel.declare_queue(f"{_namespace(url)}.q", durable=True)
        with pytest.raises(ConfigError, match="arguments"):
            await queues.send("q", 1)

    async def test_a_queue_keeps_the_limit_that_it_was_made_with(self, url: str, queues: Queues) -> None:
        await queues.send("q", 1)
        async with open_queues(url, delivery_limit=60) as other:
            await other.send("q", 2)
            found = await one(other, "q")
            await other.nack("q", found.receipt, delay=0)
            assert await drained(other, "q") == [2, 1]

    async def test_a_queue_without_a_limit_but_with_other_arguments(
        self, url: str, queues: Queues, channel: AbstractChannel
    ) -> None:
        for name, other in (("unlimited", {}), ("other", {"x-max-length": 5})):
            place = Places(_namespace(url), 50).main(name)
            arguments = {key: value for key, value in place.arguments.items() if key != "x-delivery-limit"}
            await channel.declare_queue(place.name, durable=True, arguments={**arguments, **other})
        await queues.send("unlimited", 1)
        assert await queues.dequeue("unlimited") == 1
        with pytest.raises(ConfigError, match="x-max-length"):
            await queues.send("other", 1)

    async def test_a_queue_that_somebody_deletes(self, url: str, queues: Queues, channel: AbstractChannel) -> None:
        await queues.send("q", 1)
        await one(queues, "q")
        await channel.queue_delete(f"{_namespace(url)}.q")
        assert await queues.receive("q") == []
        await queues.send("q", 2)
        assert (await one(queues, "q")).value == 2

    async def test_a_consumer_whose_queue_goes_away(self, url: str, queues: Queues, channel: AbstractChannel) -> None:
        looks = 0

        async def receive() -> object:
            nonlocal looks
            while True:
                with suppress(Unavailable):  # RabbitMQ 3.10 may end the connection of a consumer whose queue goes.
                    if found := await queues.receive("q", wait=0.2):
                        return found[0].value
                looks += 1

        await queues.send("q", 1)
        await queues.dequeue("q")
        waiting, name = asyncio.create_task(receive()), f"{_namespace(url)}.q"
        await eventually(lambda: _consumers(channel, name), PATIENCE)
        await channel.queue_delete(name)
        before = looks
        await eventually(lambda: looks >= before + 2, PATIENCE)
        await queues.send("q", 2)
        assert await asyncio.wait_for(waiting, PATIENCE) == 2

    async def test_what_the_server_refuses_for_now(self, queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
        publish = _rabbitmq_sending._publish

        async def partly(channel: AbstractChannel, parcel: _rabbitmq_sending.Parcel) -> object:
            if parcel.message.body == b"0":
                raise aio_pika.exceptions.DeliveryError(None, None)  # type: ignore[arg-type]
            return await publish(channel, parcel)

        await queues.send("q", "first")
        monkeypatch.setattr(_rabbitmq_sending, "_publish", partly)
        for refused in (queues.send("q", 0), queues.send_many("q", [Outbound(message=0)] * 2)):
            with pytest.raises(Unavailable, match="RabbitMQ refused it"):
                await refused
        some = await queues.send_many("q", [Outbound(message=number) for number in range(2)])
        assert [bool(each.error) for each in some] == [True, False]
        assert await drained(queues, "q") == ["first", 1]

    async def test_the_server_itself_gives_up_what_nobody_acknowledges(
        self, url: str, channel: AbstractChannel
    ) -> None:
        async with open_queues(url, delivery_limit=2, max_deliveries=2) as queues:
            sent = await queues.send("q", "killer")
            for _ in range(3):
                await (await (await channel.get_queue(f"{_namespace(url)}.q")).get(timeout=PATIENCE)).reject(
                    requeue=True
                )
            dead = await one(queues, names.dead("q"))
            assert (dead.id, dead.value, dead.deliveries) == (sent.id, "killer", 1)
            assert "never acknowledged" in dead.last_error
            await queues.nack(names.dead("q"), dead.receipt, delay=0)
            assert (await one(queues, names.dead("q"))).deliveries == 2

    async def test_a_cancelled_receiver_costs_no_delivery(self, queues: Queues) -> None:
        await queues.send("q", 1)
        for _ in range(20):
            receiving = asyncio.create_task(queues.receive("q", wait=1))
            for _ in range(3):
                await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait([receiving])
        assert (await one(queues, "q")).deliveries == 1

    async def test_a_cancelled_call_does_not_end_the_leases_of_others(self, queues: Queues) -> None:
        await queues.send("q", 1)
        held = await one(queues, "q")
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: queues.receive("q", wait=1),
            lambda: queues.size("q"),
            lambda: queues.send("q", 2, delay=LONG),
            lambda: queues.queues(),
        ]
        for call in calls * 5:
            task = asyncio.ensure_future(call())
            await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.wait([task])
        assert await queues.ack_many("q", [held.receipt]) == [True]

    async def test_names_are_read_by_many_at_once_and_lost_by_none(self, url: str, queues: Queues) -> None:
        await asyncio.gather(*(queues.send(f"q{number}", 1) for number in range(5)))
        async with open_queues(url) as other:
            await other.send("q1", 2)
            found = await asyncio.gather(*(each.queues() for each in (queues, other) * 3))
            assert {tuple(each) for each in found} == {("q0", "q1", "q2", "q3", "q4")}
            await other.purge("q3")
            assert await queues.queues() == ["q0", "q1", "q2", "q4"]
            await other.send("q3", 1)
            assert "q3" in await queues.queues()

    async def test_the_names_are_gone_through_when_they_are_many(
        self, url: str, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def entries() -> int:
            names = await channel.declare_queue(f"{_namespace(url)}#names", passive=True)
            return names.declaration_result.message_count or 0

        for _ in range(4):
            async with open_queues(url) as other:
                await other.send("q", 1)
        assert await entries() == 4
        monkeypatch.setattr(_rabbitmq_roll, "_LONG", 3)
        async with open_queues(url) as other:
            await other.send("q", 1)

            async def few() -> bool:
                return await entries() == 1

            await eventually(few, PATIENCE)
            assert await other.queues() == ["q"]

    async def test_many_receivers_of_one_queue_get_everything_once(self, queues: Queues) -> None:
        async def receive() -> list[object]:
            found: list[object] = []
            while batch := await queues.receive("q", max=7, wait=1, lease=LONG):
                found += [each.value for each in batch]
                assert all(each.deliveries == 1 for each in batch)
                await queues.ack_many("q", [each.receipt for each in batch])
            return found

        receivers = [asyncio.create_task(receive()) for _ in range(8)]
        for number in range(200):
            await queues.send("q", number)
        found = await asyncio.gather(*receivers)
        found.append(await drained(queues, "q"))
        assert sorted(value for batch in found for value in batch) == list(range(200))


@pytest.mark.servers
async def test_an_encrypted_connection(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, port = tmp_path_factory.mktemp("tls"), free_port()
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    files = f'[{{certfile,"{folder}/cert.pem"}},{{keyfile,"{folder}/key.pem"}}]'
    with private_or_skip("rabbitmq", "-rabbit", "ssl_listeners", f"[{port}]", "-rabbit", "ssl_options", files):
        async with open_queues(f"rabbitmqs://localhost:{port}", ca=f"{folder}/ca.pem", timeout=20) as queues:
            await queues.send("q", 1)
            assert await queues.dequeue("q") == 1
        with pytest.raises(Unavailable):
            async with open_queues(f"amqps://localhost:{port}"):
                pass
