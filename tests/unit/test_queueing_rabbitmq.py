"""What of the RabbitMQ provider needs no server: names, letters, leases and options."""

from __future__ import annotations

from typing import cast

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from noobly.core.errors import ConfigError, MissingDependency, Unavailable
from noobly.queueing import open_queues
from noobly.queueing.driver import Posted
from noobly.queueing.providers._rabbitmq_config import RabbitmqConfig, addresses, credentials, limit
from noobly.queueing.providers._rabbitmq_holds import Hold, Holds
from noobly.queueing.providers._rabbitmq_ladder import LONGEST, STEPS, Binding
from noobly.queueing.providers._rabbitmq_link import Connection
from noobly.queueing.providers._rabbitmq_messages import Letter, pack, unpack
from noobly.queueing.providers._rabbitmq_moving import Moving
from noobly.queueing.providers._rabbitmq_names import Place, Places
from noobly.queueing.providers._rabbitmq_roll import Roll
from noobly.queueing.providers._rabbitmq_sending import Sending
from noobly.queueing.providers._rabbitmq_tap import Tap
from noobly.testing import FakeClock, eventually, free_port


async def test_a_connection_that_cannot_be_opened_is_closed() -> None:
    connection = Connection(aio_pika.connection.make_url(f"amqp://127.0.0.1:{free_port()}"))
    with pytest.raises(OSError, match=r"refused|failed"):
        await connection.connect(timeout=5)
    assert connection.is_closed


class TestNames:
    places = Places("n", 50)

    @pytest.mark.parametrize("queue", ["a", "a.dead", "A:b-c_d.e", "x" * 120])
    def test_plain_names_are_kept(self, queue: str) -> None:
        assert self.places.name(queue) == f"n.{queue}"

    @pytest.mark.parametrize("queue", ["a b", "#", "a#32", "ä", "x" * 121, "鍵" * 200, "\x00", "a/b", "~", "🦊.dead"])
    def test_others_are_hashed_and_meet_no_plain_one(self, queue: str) -> None:
        name = self.places.name(queue)
        assert name.startswith("n.#")
        assert len(name) == 35

    def test_delay_queues_meet_no_other_queue(self) -> None:
        delays = {name for queue in ("a", "a#32") for name in self.places.delays(queue)}
        assert len(delays) == 2 * len(STEPS)
        assert not delays & {self.places.name(queue) for queue in ("a", "a#32", "a#128")}

    def test_what_is_given_up_goes_to_the_dead_letters_and_these_stay(self) -> None:
        assert self.places.main("a").arguments["x-dead-letter-routing-key"] == "n.a.dead"
        assert self.places.main("a").arguments["x-delivery-limit"] == 50
        assert "x-dead-letter-exchange" not in self.places.main("a.dead").arguments
        assert self.places.main("a.dead").arguments["x-delivery-limit"] == 1_000_000_000

    def test_no_name_or_key_is_longer_than_the_server_takes(self) -> None:
        longest = Places("n" * 64, 50)
        path = longest.path("x" * 120, 1e9)
        for place in path.places:
            assert place.binding is not None
            assert max(len(place.name), len(path.key), len(place.binding.key)) < 256
            assert int(place.arguments["x-expires"]) < 2**32


class TestDelays:
    places = Places("n", 50)

    @pytest.mark.parametrize(
        ("seconds", "steps"),
        [
            (0.0001, [32]),
            (0.032, [32]),
            (0.033, [64]),
            (1.0, [1024]),
            (20.0, [16_384, 2048, 1024, 512, 32]),
            (LONGEST / 1000, [*reversed(STEPS)]),
            (1e9, [*reversed(STEPS)]),
        ],
    )
    def test_a_message_falls_through_as_many_queues_as_make_up_its_delay(
        self, seconds: float, steps: list[int]
    ) -> None:
        path = self.places.path("a", seconds)
        assert [place.name for place in path.places] == [f"n.a#{step}" for step in steps]
        assert [place.arguments["x-message-ttl"] for place in path.places] == steps
        assert seconds * 1000 <= sum(steps) < seconds * 1000 + 32 or sum(steps) == LONGEST

    @pytest.mark.parametrize("seconds", [0.01, 0.1, 1.234, 20.0, 86_400.0, 1e9])
    def test_its_exchanges_let_it_through_in_that_order(self, seconds: float) -> None:
        """Follow it as the server does, past queues of other names."""
        path = self.places.path("a", seconds)
        every = [place for name in ("a", "b", "n.a") for place in self._all(name)]
        past = {rung.past.exchange: rung for rung in self.places.rungs()}
        exchange, found = path.exchange, list[str]()
        while exchange:
            taken = [place for place in every if _lets(place.binding, exchange, path.key)]
            found += [place.name for place in taken]
            rung = past.get(exchange)
            if rung is not None and _lets(rung.past, exchange, path.key):
                assert taken == []
                exchange = rung.exchange
            else:
                (place,) = taken
                exchange = str(place.arguments["x-dead-letter-exchange"])
        assert found == [*(place.name for place in path.places), "n.a"]

    def _all(self, name: str) -> list[Place]:
        return [*self.places.path(name, 1e9).places, self.places.main(name)]


def _lets(binding: Binding | None, exchange: str, key: str) -> bool:
    """Return whether a topic exchange lets a routing key through."""
    assert binding is not None
    wanted, words = binding.key.split("."), key.split(".")
    if wanted[-1] == "#":
        wanted, words = wanted[:-1], words[: len(wanted) - 1]
    return (
        binding.exchange == exchange
        and [word if other == "*" else other for other, word in zip(wanted, words, strict=False)] == words
    )


class _Incoming:
    """A message as it comes from the server."""

    def __init__(self, message: aio_pika.Message, **headers: object) -> None:
        self.body, self.message_id, self.timestamp = message.body, message.message_id, message.timestamp
        self.content_type, self.content_encoding = message.content_type, message.content_encoding
        self.correlation_id, self.reply_to = message.correlation_id, message.reply_to
        self.type, self.app_id = message.type, message.app_id
        self.headers = {**message.headers, **headers}

    def letter(self) -> Letter:
        return unpack(cast(AbstractIncomingMessage, self))


class TestLetters:
    posted = Posted(id="i", body=b"\x00b", headers="{}", first_error="f\x00", last_error="l鍵", attempts=3, died_at=1.5)

    def test_a_letter_comes_as_it_went(self) -> None:
        letter = _Incoming(
            pack(Letter(message=self.posted, sent_at=1_700_000_000.125, deliveries=2, due=9.25))
        ).letter()
        assert (letter.sent_at, letter.deliveries, letter.due) == (1_700_000_000.125, 2, 9.25)
        message = letter.message
        assert (message.id, message.body, message.headers) == ("i", b"\x00b", "{}")
        assert (message.first_error, message.last_error) == ("f\x00", "l鍵")
        assert (message.attempts, message.died_at) == (3, 1.5)

    def test_a_foreign_message_has_an_id_that_stays(self) -> None:
        first, second = (_Incoming(aio_pika.Message(b"{}")).letter() for _ in range(2))
        assert first.message.id == second.message.id != ""
        assert (first.sent_at, first.message.headers) == (0.0, "")

    def test_headers_of_another_type_are_not_taken(self) -> None:
        foreign = {"noobly-deliveries": "many", "noobly-headers": 5, "noobly-due": True, "x-death": "?"}
        letter = _Incoming(aio_pika.Message(b""), **foreign).letter()
        assert (letter.deliveries, letter.message.headers, letter.due) == (0, "", 0.0)

    def test_numbers_below_zero_are_not_taken(self) -> None:
        foreign = {"noobly-deliveries": -5, "noobly-attempts": -1, "noobly-sent-at": -1, "noobly-due": -1}
        letter = _Incoming(aio_pika.Message(b""), **foreign).letter()
        assert (letter.deliveries, letter.message.attempts, letter.sent_at, letter.due) == (0, 0, 0.0, 0.0)

    def test_what_a_foreign_sender_put_beside_a_message_stays_with_it(self) -> None:
        beside = {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "correlation_id": "c",
            "reply_to": "r",
            "type": "t",
            "app_id": "a",
        }
        headers = {"trace": "abc", "x-tenant": 5, "x-death": [], "x-delivery-count": 2, "CC": ["other"]}
        first = _Incoming(aio_pika.Message(b"{}", headers=headers, **beside)).letter()
        stored = pack(_Incoming(pack(first)).letter())
        assert {name: getattr(stored, name) for name in beside} == beside
        assert {name for name in stored.headers if not name.startswith("noobly-")} == {"trace", "x-tenant"}


class _Tap:
    held = 0
    closed = False

    def __init__(self) -> None:
        self.answers: list[object] = [Unavailable("no answer"), None]
        self.acknowledged: list[int] = []

    @property
    def channel(self) -> _Tap:
        return self

    @property
    def delivery_tag(self) -> int:
        return 7

    async def ended(self) -> None:
        pass

    async def basic_ack(self, tag: int, *, wait: bool) -> None:
        self.acknowledged.append(tag)

    async def settled(self) -> None:
        if isinstance(answer := self.answers.pop(0), Unavailable):
            raise answer


async def test_an_acknowledgement_without_an_answer_is_asked_for_and_not_repeated() -> None:
    clock, tap = FakeClock(1000.0), _Tap()
    holds = Holds(clock, 100.0, lambda _: None)
    moving = Moving(cast(Sending, None), Places("n", 50), cast(Roll, None), holds, clock.time)
    letter = Letter(message=Posted(id="i", body=b""), sent_at=0.0)
    hold = Hold("q", cast(Tap, tap), cast(AbstractIncomingMessage, tap), letter)
    holds.add(hold, 10.0)
    assert holds.take("q", [hold.receipt]) == [hold]
    with pytest.raises(Unavailable):
        await moving.settle([hold])
    assert holds.take("q", [hold.receipt]) == [hold]
    await moving.settle([hold])
    assert tap.acknowledged == [7]
    assert holds.take("q", [hold.receipt]) == [None]


async def test_a_lease_ends_by_the_clock_and_no_extension_outlasts_the_bound() -> None:
    clock, ended = FakeClock(1000.0), list[Hold]()
    holds, tap = Holds(clock, 100.0, ended.append), _Tap()
    incoming, letter = cast(AbstractIncomingMessage, None), Letter(message=Posted(id="i", body=b""), sent_at=0.0)
    hold = Hold("q", cast(Tap, tap), incoming, letter)
    holds.add(hold, 10.0)
    assert (tap.held, holds.count("q"), holds.count("other")) == (1, 1, 0)
    assert not holds.extend("other", hold.receipt, 60.0)
    clock.advance(9.0)
    assert holds.extend("q", hold.receipt, 200.0)
    clock.advance(90.9)
    assert holds.count("q") == 1
    clock.advance(0.1)
    assert holds.take("q", [hold.receipt]) == [None]
    assert holds.count("q") == 0


async def test_a_lease_that_ends_is_given_back_once() -> None:
    clock, ended = FakeClock(1000.0), list[Hold]()
    holds, tap = Holds(clock, 100.0, ended.append), _Tap()
    incoming, letter = cast(AbstractIncomingMessage, None), Letter(message=Posted(id="i", body=b""), sent_at=0.0)
    hold = Hold("q", cast(Tap, tap), incoming, letter)
    holds.add(hold, 0.02)
    clock.advance(0.02)
    await eventually(lambda: ended)
    assert (ended, tap.held) == ([hold], 0)


class TestOptions:
    def test_guest_is_for_this_machine(self) -> None:
        assert credentials(RabbitmqConfig()) == ("guest", "guest")
        for config in (RabbitmqConfig(hosts="localhost,mq.example.org"), RabbitmqConfig(username="ada")):
            with pytest.raises(ConfigError, match="password"):
                credentials(config)

    @pytest.mark.parametrize(
        ("scheme", "options", "wanted"),
        [
            ("rabbitmq", {"ca": "ca.pem"}, "write rabbitmqs://"),
            ("amqp", {"cert": "cert.pem", "cert_key": "key.pem"}, "write amqps://"),
            ("amqps", {"cert_key": "key.pem"}, "needs cert"),
            ("amqps", {"cert": "/nowhere/cert.pem"}, "cannot be read"),
            ("amqp", {"delivery_limit": 4}, "set delivery_limit to as many"),
            ("amqp", {"delivery_limit": 99, "max_deliveries": 100}, "max_deliveries"),
        ],
    )
    async def test_those_that_would_do_nothing_are_refused(
        self, scheme: str, options: dict[str, object], wanted: str
    ) -> None:
        with pytest.raises(ConfigError, match=wanted):
            async with open_queues(f"{scheme}://localhost", **options):
                pass

    @pytest.mark.parametrize(
        ("hosts", "wanted"),
        [
            ("mq", [("mq", 5672)]),
            ("a:1,b,10.0.0.1:65535", [("a", 1), ("b", 5672), ("10.0.0.1", 65_535)]),
            ("[::1]:7, [fe80::1]", [("::1", 7), ("fe80::1", 5672)]),
        ],
    )
    def test_hosts(self, hosts: str, wanted: list[tuple[str, int]]) -> None:
        assert [(one.host, one.port) for one in addresses(RabbitmqConfig(hosts=hosts))] == wanted
        assert addresses(RabbitmqConfig(scheme="amqps", hosts="mq"))[0].port == 5671

    @pytest.mark.parametrize("hosts", ["", "a,,b", "a:x", "a:0", "a:65536", "::1", "a b", "[::1"])
    async def test_what_is_no_host(self, hosts: str) -> None:
        with pytest.raises(ConfigError, match="is not host:port"):
            async with open_queues("rabbitmq://", hosts=hosts):
                pass

    def test_the_server_gives_up_later_than_receivers(self) -> None:
        assert limit(RabbitmqConfig()) == 50
        assert limit(RabbitmqConfig(max_deliveries=100)) == 100
        assert limit(RabbitmqConfig(max_deliveries=7, delivery_limit=7)) == 7

    @pytest.mark.parametrize("options", [{"namespace": "a.b"}, {"heartbeat": 0}, {"longest_lease": 0}, {"nope": 1}])
    async def test_wrong_ones_are_refused(self, options: dict[str, object]) -> None:
        with pytest.raises(ConfigError):
            async with open_queues("rabbitmq://localhost", **options):
                pass

    async def test_a_password_in_the_url_is_refused_and_not_shown(self) -> None:
        with pytest.raises(ConfigError) as error:
            async with open_queues("rabbitmq://ada:s3cret@localhost"):
                pass
        assert "s3cret" not in str(error.value)

    async def test_a_missing_package_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        for module in [name for name in sys.modules if name.startswith("noobly.queueing.providers.")]:
            if "rabbitmq" in module:
                monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, "aio_pika", None)
        with pytest.raises(MissingDependency, match=r"noobly\[rabbitmq\]"):
            async with open_queues("rabbitmq://localhost"):
                pass
