"""API keys: their form, who they let in, what is kept of them, and changes while a server runs."""

from __future__ import annotations

import hashlib
import json
import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noobly.core.errors import ConfigError, InvalidArgument, NotFound
from noobly.server.keys import Issued, Key, Keyring, KeyStore, Principal, StaticKeys
from noobly.testing import FakeClock

LEVELS = ["read", "write", "admin"]
GOOD = "a-long-random-key-for-tests"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "data" / "keys.json"


@pytest.fixture
def store(path, clock) -> KeyStore:
    return KeyStore(path, clock)


def principal(*scopes: str) -> Principal:
    return Principal(name="test", scopes=frozenset(scopes))


class TestScopes:
    @pytest.mark.parametrize(
        ("scope", "service", "permission", "allowed"),
        [
            ("caching:read", "caching", "read", True),
            ("caching:read", "caching", "write", False),
            ("caching:read", "queueing", "read", False),
            ("caching:write", "caching", "read", True),
            ("caching:write", "caching", "admin", False),
            ("caching:admin", "caching", "write", True),
            ("*:read", "queueing", "read", True),
            ("*:read", "queueing", "write", False),
            ("*:admin", "server", "admin", True),
            ("*", "server", "admin", True),
            ("*", "server", "everything", False),
            ("caching", "caching", "read", False),
            ("caching:", "caching", "read", False),
            ("caching:all", "caching", "read", False),
            ("", "", "read", False),
        ],
    )
    def test_what_a_scope_allows(self, scope, service, permission, allowed):
        assert principal(scope).may(service, permission) is allowed

    def test_no_scope_allows_nothing(self):
        assert not principal().may("caching", "read")

    @given(st.sampled_from(LEVELS), st.sampled_from(LEVELS), st.sampled_from(["caching", "*"]))
    def test_a_higher_level_includes_the_lower_ones(self, granted, wanted, service):
        allowed = principal(f"{service}:{granted}").may("caching", wanted)
        assert allowed is (LEVELS.index(granted) >= LEVELS.index(wanted))

    @given(
        st.lists(st.sampled_from([f"{s}:{p}" for s in ("a", "b", "*") for p in LEVELS] + ["*"])), st.sampled_from("abc")
    )
    def test_scopes_add_up_and_none_takes_away(self, scopes, service):
        everything = principal(*scopes)
        for level in LEVELS:
            assert everything.may(service, level) is any(principal(scope).may(service, level) for scope in scopes)


class TestForm:
    def test_prefix_id_and_secret(self, store):
        issued = store.create("web", ["caching:read"])
        prefix, id, secret = issued.text.reveal().split("_")
        assert (prefix, id, len(id)) == ("noobly", issued.key.id, 12)
        assert len(secret) == 43
        assert id.isalnum()
        assert secret.isalnum()

    def test_no_two_are_alike(self, store):
        texts = {store.create("web", ["*"]).text.reveal() for _ in range(50)}
        assert len(texts) == len({text.split("_")[1] for text in texts}) == 50

    def test_only_the_digest_is_kept(self, store, path):
        issued = store.create("web", ["caching:read"])
        secret = issued.text.reveal().split("_")[2]
        assert secret not in path.read_text()
        assert issued.key.digest == hashlib.sha256(secret.encode()).hexdigest()
        assert secret not in repr(issued)
        assert secret not in repr(store.__dict__)


class TestAuthenticating:
    def test_whom_a_key_stands_for(self, store):
        issued = store.create("web", ["caching:read", "caching:read", "*:read"])
        found = store.authenticate(issued.text.reveal())
        assert found == Principal(id=issued.key.id, name="web", scopes=frozenset({"caching:read", "*:read"}))

    @pytest.mark.parametrize(
        "change", [str.upper, lambda text: text + "x", lambda text: text[:-1], lambda text: f" {text}"]
    )
    def test_a_changed_key_is_refused(self, store, change):
        text = store.create("web", ["*"]).text.reveal()
        assert store.authenticate(change(text)) is None

    def test_the_id_alone_or_another_secret_is_refused(self, store):
        one, other = (store.create("web", ["*"]).text.reveal().split("_") for _ in range(2))
        assert store.authenticate(f"noobly_{one[1]}_{other[2]}") is None
        assert store.authenticate(f"noobly_{one[1]}_") is None
        assert store.authenticate(f"noobly_{one[1]}") is None
        assert store.authenticate(f"other_{one[1]}_{one[2]}") is None

    def test_an_expired_key_is_refused(self, store, clock):
        text = store.create("web", ["*"], lifetime=60).text.reveal()
        clock.advance(59)
        assert store.authenticate(text) is not None
        clock.advance(1)
        assert store.authenticate(text) is None

    def test_a_revoked_key_is_refused_at_once(self, store):
        issued = store.create("web", ["*"])
        assert store.revoke(issued.key.id) == issued.key
        assert store.authenticate(issued.text.reveal()) is None
        with pytest.raises(NotFound, match=issued.key.id):
            store.revoke(issued.key.id)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[Keyring, Issued]:
    store = KeyStore(tmp_path_factory.mktemp("keys") / "keys.json")
    return Keyring([StaticKeys(GOOD), store]), store.create("web", ["*"])


class TestHypothesis:
    @given(st.text() | st.text(alphabet=st.characters()) | st.from_regex(r"noobly_[A-Za-z0-9]{12}_[A-Za-z0-9]{43}"))
    def test_no_made_up_text_gets_in_or_raises(self, shared, presented):
        assert shared[0].authenticate(presented) is None

    @given(st.integers(0, 62), st.characters())
    def test_one_changed_character_is_enough(self, shared, position, character):
        keyring, issued = shared
        text = issued.text.reveal()
        changed = text[:position] + character + text[position + 1 :]
        assert (keyring.authenticate(changed) is not None) is (changed == text)

    @given(st.lists(st.text(alphabet=st.characters(exclude_characters=","), min_size=16, max_size=64)))
    def test_static_keys_let_in_exactly_those_given(self, keys):
        keys = [key for key in keys if len(key.strip()) >= 16 and key.strip()]
        static = StaticKeys(",".join(keys))
        assert len(static) == len(keys)
        for key in keys:
            assert static.authenticate(key.strip()) is not None
        assert static.authenticate("".join(keys) + "x") is None

    @given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=3))
    def test_what_is_created_is_what_is_listed(self, shared_folder, name, scopes):
        store = KeyStore(shared_folder / "keys.json")
        before = store.list()
        try:
            issued = store.create(name, scopes)
        except InvalidArgument:
            assert store.list() == before
            return
        assert issued.key in store.list()
        assert KeyStore(shared_folder / "keys.json").authenticate(issued.text.reveal()) is not None


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("created")


class TestFile:
    def test_nothing_is_made_before_the_first_key(self, store, path):
        assert store.list() == []
        assert len(store) == 0
        assert store.authenticate("noobly_x_y") is None
        assert not path.parent.exists()

    def test_only_the_owner_can_read_it(self, store, path):
        store.create("web", ["*"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert sorted(file.name for file in path.parent.iterdir()) == ["keys.json", "keys.lock"]

    def test_what_is_kept(self, store, clock):
        first = store.create("first", ["caching:read"], lifetime=60)
        clock.advance(1)
        second = store.create("second", ["b:read", "a:read"])
        assert store.list() == [first.key, second.key]
        assert first.key == Key(
            id=first.key.id,
            name="first",
            digest=first.key.digest,
            scopes=["caching:read"],
            created=clock.time() - 1,
            expires=clock.time() + 59,
        )
        assert (second.key.scopes, second.key.expires) == (["a:read", "b:read"], None)

    def test_a_running_server_sees_changes_of_others(self, store, path):
        other = KeyStore(path)
        issued = other.create("web", ["*"])
        assert store.authenticate(issued.text.reveal()) is not None
        assert len(store) == 1
        other.revoke(issued.key.id)
        assert store.authenticate(issued.text.reveal()) is None
        assert len(store) == 0

    def test_a_removed_file_ends_its_keys(self, store, path):
        text = store.create("web", ["*"]).text.reveal()
        path.unlink()
        assert store.authenticate(text) is None

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', '{"version": 1, "keys": [{"id": 5}]}'])
    def test_a_damaged_file_lets_nobody_in_and_is_told(self, store, path, content, caplog):
        text = store.create("web", ["*"]).text.reveal()
        good = path.read_text()
        path.write_text(content)
        with caplog.at_level(logging.ERROR):
            assert store.authenticate(text) is None
            assert store.authenticate(text) is None
        (told,) = caplog.messages
        assert "is damaged" in told
        with pytest.raises(ConfigError, match="is damaged"):
            KeyStore(path)
        with pytest.raises(ConfigError, match="is damaged"):
            store.create("web", ["*"])
        path.write_text(good)
        assert store.authenticate(text) is not None

    def test_a_place_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match="cannot be"):
            KeyStore(tmp_path / "file" / "keys.json").create("web", ["*"])

    def test_a_failed_write_leaves_the_old_file(self, store, path, monkeypatch):
        text = store.create("web", ["*"]).text.reveal()

        def fails(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("noobly.server.keys.os.fsync", fails)
        with pytest.raises(ConfigError, match="No space left"):
            store.create("other", ["*"])
        assert [key.name for key in store.list()] == ["web"]
        assert store.authenticate(text) is not None
        assert sorted(file.name for file in path.parent.iterdir()) == ["keys.json", "keys.lock"]

    def test_processes_that_create_at_once_lose_nothing(self, path):
        many = (
            "import sys, pathlib; from noobly.server.keys import KeyStore; store = KeyStore(pathlib.Path(sys.argv[1]))"
        )
        command = [sys.executable, "-c", f"{many}\nfor _ in range(5): store.create('web', ['*'])", str(path)]
        running = [subprocess.Popen(command) for _ in range(3)]
        assert [process.wait(30) for process in running] == [0, 0, 0]
        assert len(json.loads(path.read_text())["keys"]) == 15

    @pytest.mark.parametrize(
        ("name", "scopes", "lifetime"),
        [
            ("", ["*"], None),
            (" ", ["*"], None),
            ("a\nb", ["*"], None),
            ("x" * 101, ["*"], None),
            ("web", [], None),
            ("web", ["caching"], None),
            ("web", ["caching:all"], None),
            ("web", ["caching:read "], None),
            ("web", ["Caching:read"], None),
            ("web", ["*"], 0),
            ("web", ["*"], -1),
            ("web", ["*"], float("nan")),
        ],
    )
    def test_bad_requests_make_no_key(self, store, path, name, scopes, lifetime):
        with pytest.raises(InvalidArgument):
            store.create(name, scopes, lifetime=lifetime)
        assert not path.exists()


class TestStaticKeys:
    def test_each_has_all_scopes(self):
        static = StaticKeys.from_environment({"NOOBLY_API_KEYS": f" {GOOD} ,, another-long-random-key"})
        assert len(static) == 2
        found = static.authenticate("another-long-random-key")
        assert found == Principal(id="static-2", name="NOOBLY_API_KEYS 2", scopes=frozenset({"*"}))
        assert static.authenticate(GOOD[:-1]) is None
        assert static.authenticate("") is None

    def test_the_process_environment_is_the_default(self, monkeypatch):
        monkeypatch.setenv("NOOBLY_API_KEYS", GOOD)
        assert len(StaticKeys.from_environment()) == 1
        monkeypatch.delenv("NOOBLY_API_KEYS")
        assert len(StaticKeys.from_environment()) == 0

    def test_a_short_one_is_warned_of_without_being_shown(self, caplog):
        keys = StaticKeys(f"{GOOD},hunter2")
        assert keys.authenticate("hunter2") is not None
        assert "key 2 of NOOBLY_API_KEYS has fewer than 16" in caplog.text
        assert "hunter2" not in caplog.text

    def test_they_are_not_kept(self):
        assert GOOD not in repr(StaticKeys(GOOD).__dict__)


class TestKeyring:
    def test_all_sources_count(self, store):
        assert Keyring([StaticKeys(), store]).empty()
        assert not Keyring([StaticKeys(GOOD), store]).empty()
        issued = store.create("web", ["caching:read"])
        ring = Keyring([StaticKeys(GOOD), store])
        assert not Keyring([StaticKeys(), store]).empty()
        assert ring.authenticate(GOOD).may("server", "admin")
        assert ring.authenticate(issued.text.reveal()).name == "web"

    @pytest.mark.parametrize("presented", ["", "x", "noobly__", "x" * 1_000_000])
    def test_anything_else_is_nobody(self, store, presented):
        assert Keyring([StaticKeys(GOOD), store]).authenticate(presented) is None
