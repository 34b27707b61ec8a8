"""What the SQS provider remembers: which of its receipts are good, and for how long."""

from __future__ import annotations

import pytest

from noobly.queueing.driver import Posted
from noobly.queueing.providers import _sqs_held
from noobly.queueing.providers._sqs_held import Held, Memory, Receipts
from noobly.queueing.providers._sqs_wire import Value
from noobly.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


def held(number: str = "m", *, handle: str = "h", until: float, body: bytes = b"1", queue: str = "q") -> Held:
    message = Posted(id="i", body=body)
    return Held(queue=queue, handle=handle, number=number, message=message, deliveries=1, until=until)


def test_a_receipt_is_good_until_its_lease_ends(clock: FakeClock) -> None:
    receipts = Receipts(clock.monotonic)
    receipt = receipts.add(held(until=clock.monotonic() + 10))
    assert receipts.get("q", receipt) is not None
    assert receipts.get("other", receipt) is None
    clock.advance(9)
    receipts.extend(receipt, 5)
    clock.advance(4)
    assert receipts.get("q", receipt) is not None
    clock.advance(1)
    assert receipts.take("q", receipt) is None
    receipts.add(held("other", until=clock.monotonic() + 10))
    assert len(receipts) == 1


def test_the_next_delivery_ends_the_one_before(clock: FakeClock) -> None:
    receipts = Receipts(clock.monotonic)
    first = receipts.add(held(handle="one", until=clock.monotonic() + 10))
    second = receipts.add(held(handle="two", until=clock.monotonic() + 10))
    assert receipts.get("q", first) is None
    assert receipts.get("q", second) is not None


def test_what_was_taken_comes_back_where_the_answer_failed(clock: FakeClock) -> None:
    receipts = Receipts(clock.monotonic)
    receipt = receipts.add(held(until=clock.monotonic() + 10))

    def fail() -> None:
        with receipts.taken("q", [receipt, receipt]) as (first, again):
            assert (first is not None, again) == (True, None)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    with receipts.taken("q", [receipt]) as (taken,):
        assert taken is not None
    assert receipts.get("q", receipt) is None


def test_receipts_of_others_are_sqs_business(clock: FakeClock) -> None:
    mine, other = Receipts(clock.monotonic), Receipts(clock.monotonic)
    receipt = other.add(held(handle="theirs", until=clock.monotonic() + 10))
    assert mine.handle(receipt, None) == "theirs"
    assert other.handle(receipt, None) == ""
    for odd in ("", ".", "x.y", "never given out", "abcdefabcdef.", f"{receipt[:11]}.h"):
        assert mine.handle(odd, None) == ""


def test_what_is_remembered_has_a_bound(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqs_held, "_MOST_BYTES", 250)
    receipts = Receipts(clock.monotonic)
    until = clock.monotonic() + 10
    given = [receipts.add(held(str(one), handle=str(one), until=until, body=b"x" * 100)) for one in range(4)]
    bodies = [receipts.get("q", one) for one in given]
    assert [one is not None and one.message is not None for one in bodies] == [False, False, True, True]
    assert all(receipts.take("q", one) for one in given)
    assert receipts.add(held("new", until=until, body=b"x" * 200))
    heavy = held("heavy", handle="heavy", until=until)
    heavy.foreign = {"a": Value(string_value="x" * 300, data_type="String")}
    found = receipts.get("q", receipts.add(heavy))
    assert found is not None
    assert (found.message, found.foreign) == (None, {})


def test_ends_of_settled_leases_are_swept(clock: FakeClock) -> None:
    receipts = Receipts(clock.monotonic)
    for number in range(5000):
        receipt = receipts.add(held(str(number), handle=str(number), until=clock.monotonic() + 40_000))
        assert receipts.take("q", receipt)
    assert len(receipts._ends) < 1100


def test_memory_forgets(clock: FakeClock) -> None:
    memory: Memory[int, str] = Memory(clock.monotonic, 3)
    for key in range(4):
        memory.set(key, "a", clock.monotonic() + 1 + key)
    assert [memory.get(key) for key in range(4)] == [None, "a", "a", "a"]
    assert memory.count("a") == 3
    clock.advance(3)
    assert (memory.get(2), memory.get(3), memory.count("a")) == (None, "a", 1)
    memory.drop(3)
    assert memory.count("a") == 0
