"""Redaction: what must never be stored, at any depth and in any text, and that the quick look misses nothing."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import UTC, datetime
from enum import Enum

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.context import Context as TraceContext

from noobly.core.config import Secret
from noobly.core.correlation import Context
from noobly.logging.assembly import Assembler, Source
from noobly.logging.formats import encode
from noobly.logging.plain import LONGEST
from noobly.logging.redaction import REDACTED, Redactor

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
BASIC = "Basic " + base64.b64encode(b"ada:lovelace").decode()
SECRETS = [
    "Bearer abcdef123456",
    "bearer=abcdef123456",
    BASIC,
    JWT,
    "postgres://ada:s3cret@db/app",
    "https://ghp_abcdef@github.com/x",
    "redis://:pa/ss@host",
    "amqp://a@b:c@host/",
    "https://host/path?access_token=abcdef&x=1",
    "password='hunter 2'",
    "api_key=abcdef",
    "4111 1111 1111 1111",
    "5500-0000-0000-0004",
    "378282246310005",
    "paid with 4111111111111111 4111111111111111 today",
]
HARMLESS = [
    "request finished",
    "max_tokens 100",
    "basic training",
    "2026-11-23T04:45:45.123456Z",
    "1763873145123456",
    "4111 1111 1111 1112",
    "https://host:8080/path?mail=ada",
    "ada@example.org",
    "a:b@c",
    "sha256=0123456789abcdef",
]
ODD = st.text(
    st.sampled_from("bearBEARsicJy:/@=-_ .\t\n\"'\\?&#,;0123456789aoptknwkgé\u017f\u212a\ud800\u2028"), max_size=60
)
TEXTS = st.one_of(ODD, st.text(max_size=40), st.sampled_from(SECRETS + HARMLESS))
MIXED = st.lists(TEXTS, min_size=1, max_size=4).map("".join)
PLAIN = st.one_of(MIXED, st.integers(), st.floats(), st.booleans(), st.none(), st.integers(10**12, 10**19))
KEYS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["user", "Pass-Word", "X-API-Key", "refreshToken", "set_cookie", "max_tokens", "\u017fecret", "to\u212aen"]
    ),
)


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


class TestTexts:
    @pytest.mark.parametrize("secret", SECRETS)
    def test_what_looks_like_a_secret(self, redactor: Redactor, secret: str) -> None:
        cleaned = redactor.text(f"before {secret} after")
        assert REDACTED in cleaned
        assert cleaned.startswith("before ")
        for part in ("abcdef", "s3cret", "pa/ss", "hunter", "1111", "0004", "82246", "c2lnb", "YWRh"):
            assert part not in cleaned
        assert redactor.count >= 1

    @pytest.mark.parametrize("text", HARMLESS)
    def test_what_does_not(self, redactor: Redactor, text: str) -> None:
        assert redactor.text(text) == text
        assert redactor.count == 0

    def test_long_ones_are_cut_and_secrets_across_the_cut_are_not_kept(self, redactor: Redactor) -> None:
        text = "x " * (LONGEST // 2 - 10) + JWT + "y" * 10_000
        cleaned = redactor.text(text)
        assert cleaned.endswith("more characters]")
        assert len(cleaned) < LONGEST + 40
        assert JWT[:12] not in cleaned

    @pytest.mark.parametrize("part", ["://a:b", "4111111111111111 ", "eyJ", "token='", "basic ", "1 ", "://a@"])
    def test_no_text_takes_long(self, redactor: Redactor, part: str) -> None:
        # Would time out or exhaust the stack, were it more than about linear.
        assert len(redactor.text(part * 5000)) < LONGEST + 40


class TestNames:
    @pytest.mark.parametrize(
        "name",
        ["password", "PassWord", "db-passwd", "client_secret", "api_key", "X-Api-Key", "Authorization", "Set-Cookie",
         "private key", "token", "access_token",
         "refreshToken", "jwt", "\u017fecret", "\uff54\uff4f\uff4b\uff45\uff4e", "credentials", "otp"],
    )  # fmt: skip
    def test_secret_ones(self, redactor: Redactor, name: str) -> None:
        assert redactor.clean({name: "x", "deep": [{"er": {name: 1}}]}) == {
            name: REDACTED,
            "deep": [{"er": {name: REDACTED}}],
        }
        assert redactor.count == 2

    @pytest.mark.parametrize("name", ["user", "prompt_tokens", "max_tokens", "key", "author", "passed", "status"])
    def test_harmless_ones(self, redactor: Redactor, name: str) -> None:
        assert redactor.clean({name: "x"}) == {name: "x"}
        assert redactor.harmless({name: "x"})

    def test_further_ones_are_a_setting(self) -> None:
        assert Redactor(["Patient-Id"]).clean({"patient_id": 7, "id": 7}) == {"patient_id": REDACTED, "id": 7}

    def test_pairs_are_names_with_values(self, redactor: Redactor) -> None:
        headers = [(b"cookie", b"a=b"), (b"accept", b"*/*")]
        assert redactor.clean({"headers": headers}) == {"headers": [["cookie", REDACTED], ["accept", "*/*"]]}


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Account:
    name: str
    password: str


class Point(msgspec.Struct):
    x: int
    token: str


class Broken(dict[str, object]):
    def __iter__(self) -> object:  # type: ignore[override]  # it must be wrong
        raise RuntimeError("no")

    keys = items = __iter__  # type: ignore[assignment]  # as above

    def __repr__(self) -> str:
        raise RuntimeError("no")


class TestObjects:
    def test_any_object_becomes_json(self, redactor: Redactor) -> None:
        found = redactor.clean(
            {
                "account": Account("ada", "hunter2"),
                "point": Point(1, "abc"),
                "colour": Colour.RED,
                "when": datetime(2026, 1, 2, tzinfo=UTC),
                "bytes": b"a\xff",
                "set": {1},
                "secret object": Secret("x"),
                "held": [Secret("hunter2")],
                "huge": 2**5000,
                "error": ValueError("password=hunter2"),
                "broken": Broken(),
                7: "number",  # type: ignore[dict-item]  # callers may pass on any dict
            }
        )
        text = encode(found).decode()
        assert "hunter2" not in text
        assert found["account"] == {"name": "ada", "password": REDACTED}
        assert found["point"] == {"x": 1, "token": REDACTED}
        assert (found["colour"], found["bytes"], found["set"], found["7"]) == ("red", "a\\xff", [1], "number")
        assert "cannot be" in str(found["broken"])

    def test_bounds(self, redactor: Redactor) -> None:
        cycle: list[object] = []
        cycle.append(cycle)
        deep: object = 1
        for _ in range(20):
            deep = {"in": deep}
        found = redactor.clean({"cycle": cycle, "deep": deep, "long": list(range(1000)), "twice": [cycle, cycle]})
        assert found["cycle"] == ["[cycle]"]
        assert "[too deep]" in str(found["deep"])
        assert found["long"] == [*range(100), "[900 more]"]
        assert found["twice"] == [["[cycle]"], ["[cycle]"]]


class TestTheQuickLook:
    @given(MIXED)
    @example("Bearer\tabcdef")
    @example("://@@")
    def test_no_text_that_changes_goes_unsuspected(self, text: str) -> None:
        redactor = Redactor()
        cleaned = redactor.text(text)
        try:
            encoded = encode(text)
        except UnicodeEncodeError:
            return  # Such a line always goes the long way.
        assert cleaned == text or Redactor.suspects(encoded)

    @given(st.dictionaries(KEYS, PLAIN, max_size=5), MIXED)
    def test_a_line_is_the_same_as_on_the_long_way(self, attributes: dict[str, object], message: str) -> None:
        redactor, item = (
            Redactor(),
            (0.0, 9, message, attributes, Source("", "", "", 0), Context(), TraceContext(), None),
        )
        (line,) = Assembler(redactor).lines([item])
        record = json.loads(line.data)
        long = json.loads(encode({"message": redactor.text(message), "attributes": redactor.clean(attributes)}))
        assert record["message"] == long["message"]
        found = record.get("attributes", {})
        # A whole number beyond 64 bits is a number on the short way and text on the long one.
        for name, value in long["attributes"].items():
            assert found[name] == value or (isinstance(found[name], int) and found[name].bit_length() > 64)

    @given(st.lists(st.dictionaries(KEYS, PLAIN, max_size=3), max_size=6))
    def test_neighbours_in_a_batch_do_not_matter(self, several: list[dict[str, object]]) -> None:
        source, context, traced = Source("", "", "", 0), Context(), TraceContext()
        items = [(1.5, 9, "m", attributes, source, context, traced, None) for attributes in several]
        together = Assembler(Redactor()).lines(items)
        assert together == [Assembler(Redactor()).lines([item])[0] for item in items]
