from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noobly.core.config import Config, Secret, load, parse_url
from noobly.core.errors import ConfigError


class Store(Config, frozen=True, kw_only=True):
    url_parts: ClassVar[Mapping[str, str]] = {"host": "host", "port": "port", "path": "database", "user": "username"}

    host: str = "localhost"
    port: int = 1
    database: int = 0
    username: str | None = None
    password: Secret | None = None
    fast: bool = False


def test_parts_and_parameters_become_typed_fields() -> None:
    store = load(Store, parse_url("store://ada@example.org:99/3?fast=true"), {})
    assert store == Store(host="example.org", port=99, database=3, username="ada", fast=True)


def test_options_win_over_the_url() -> None:
    assert load(Store, parse_url("store://a/1?fast=true"), {"fast": False, "database": 2}).database == 2


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("store://a?fats=true", "did you mean fast"),
        ("store://a?colour=red", "it knows database"),
        ("store://a?fast=maybe", "wrong setting"),
        ("store://a/three", "wrong setting"),
        ("store://a?fast=true&fast=false", "gives fast twice"),
        ("store://a:b@c", "holds a password"),
        ("store://a:port", "cannot be read"),
        ("no-scheme", "has no scheme"),
        ("store://a?password=hunter2", "env:NAME or file:PATH"),
        ("store://a?password=env:NOT_SET_AT_ALL", "is not set"),
        ("store://a?password=file:/does/not/exist", "cannot be read"),
    ],
)
def test_what_is_wrong_is_refused_with_a_hint(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Store, parse_url(url), {})


def test_a_part_without_a_field_is_refused() -> None:
    class Bare(Config, frozen=True):
        pass

    with pytest.raises(ConfigError, match="has no host"):
        load(Bare, parse_url("bare://somewhere"), {})


def test_secrets_come_by_reference_and_never_show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STORE_PASSWORD", "hunter2")
    store = load(Store, parse_url("store://a?password=env:STORE_PASSWORD"), {})
    assert store.password is not None
    assert store.password.reveal() == "hunter2"
    assert "hunter2" not in repr(store)
    file = tmp_path / "secret"
    file.write_text("hunter3\n")
    from_file = load(Store, parse_url("store://a"), {"password": f"file:{file}"})
    assert from_file.password is not None
    assert from_file.password.reveal() == "hunter3"
    given_in_code = load(Store, parse_url("store://a"), {"password": Secret("hunter4")})
    assert given_in_code.password is not None
    assert given_in_code.password.reveal() == "hunter4"


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_a_config_error(text: str) -> None:
    try:
        url = parse_url(text)
    except ConfigError:
        return
    assert url.scheme
    assert all(url.parts.values())
