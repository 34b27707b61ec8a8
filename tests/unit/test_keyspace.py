"""From users' keys to drivers' keys: nothing is lost, and the suite's own entries never meet a user's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noobly.caching import keyspace
from noobly.caching.driver import KEY
from noobly.core.checks import Limits
from noobly.core.errors import InvalidArgument

MARK = keyspace.MARK

keys = st.text(min_size=1, max_size=60) | st.text(alphabet=f"{MARK}clth:", min_size=1, max_size=12)
"""Any text, and texts that look like the suite's own."""

own = st.one_of(
    keys.map(lambda key: keyspace.claim(keyspace.check(key))),
    keys.map(keyspace.tag),
    keys.map(keyspace.lock),
    st.just(keyspace.HOT),
)


@given(keys)
def test_a_users_key_comes_back(key: str) -> None:
    assert keyspace.user(keyspace.check(key)) == key


@given(keys, keys)
def test_no_two_keys_become_one(one: str, other: str) -> None:
    assert (keyspace.check(one) == keyspace.check(other)) is (one == other)


@given(own)
def test_the_suites_own_are_never_users_keys(name: str) -> None:
    assert keyspace.user(name) is None


@given(keys, own)
def test_a_users_key_is_never_the_suites_own(key: str, name: str) -> None:
    assert keyspace.check(key) != name


@given(keys, keys)
def test_the_suites_own_are_apart_from_each_other(one: str, other: str) -> None:
    claim, tag, lock = keyspace.claim(keyspace.check(one)), keyspace.tag(other), keyspace.lock(other)
    assert len({claim, tag, lock, keyspace.HOT}) == 4
    assert (keyspace.claim(keyspace.check(one)) == keyspace.claim(keyspace.check(other))) is (one == other)
    assert (keyspace.tag(one) == keyspace.tag(other)) is (one == other)


@given(keys, st.text(max_size=20))
def test_a_key_and_its_claim_stay_in_their_namespace(namespace: str, rest: str) -> None:
    inside = f"{keyspace.check(namespace)}:"
    name = keyspace.check(f"{namespace}:{rest}")
    assert name.startswith(inside)
    assert keyspace.claim(name).startswith(inside)


@given(keys, keys)
def test_tags_and_locks_are_in_no_users_namespace(namespace: str, name: str) -> None:
    inside = f"{keyspace.check(namespace)}:"
    assert not keyspace.tag(name).startswith(inside)
    assert not keyspace.lock(name).startswith(inside)


def test_the_longest_keys_fit_every_driver() -> None:
    fits = KEY.compile("key", Limits())
    for key in ("k" * 1024, "鍵" * 1024, MARK * 512):
        name = keyspace.check(key)
        for stored in (name, keyspace.claim(name), keyspace.tag(key), keyspace.lock(key)):
            fits(stored)


@pytest.mark.parametrize("bad", ["", "k" * 1025, MARK * 513, "\ud800", "é\udfff", None, 5, b"k", ["k"]])
def test_bad_keys_are_refused_by_name(bad: object) -> None:
    with pytest.raises(InvalidArgument, match="key"):
        keyspace.check(bad)


@pytest.mark.parametrize("bad", ["text", b"bytes", 5, None])
def test_one_text_is_not_a_list_of_keys(bad: object) -> None:
    with pytest.raises(InvalidArgument, match="list"):
        keyspace.several(bad)  # type: ignore[arg-type]
