"""The objects of OpenAPI 3.1 that Noobly's document consists of (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

import msgspec

from noobly.server.schemas import Schema


def _spelt(name: str) -> str:
    if name.startswith("x_"):
        return name.replace("_", "-")
    first, *others = name.strip("_").split("_")
    return first + "".join(word.capitalize() for word in others)


class _Object(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_spelt):
    """An object of the specification; its members are named as there."""


class Ref(_Object, frozen=True, kw_only=True, rename={"ref": "$ref"}):
    """A reference to a component."""

    ref: str


class Media(_Object, frozen=True, kw_only=True):
    """What is in a body of one media type."""

    schema: Schema


class Header(_Object, frozen=True, kw_only=True):
    """A header of an answer."""

    description: str
    schema: Schema


class Response(_Object, frozen=True, kw_only=True):
    """An answer."""

    description: str
    headers: dict[str, Header] = {}
    content: dict[str, Media] = {}


class Body(_Object, frozen=True, kw_only=True):
    """The body of a request."""

    required: bool = False
    content: dict[str, Media]


class Parameter(_Object, frozen=True, kw_only=True):
    """A parameter in the query, path or a header."""

    name: str
    in_: str
    required: bool = False
    description: str = ""
    schema: Schema


class Invocation(_Object, frozen=True, kw_only=True):
    """How Python calls an operation: method, positional arguments, the one that is the body, and whether it streams."""

    method: str
    positional: list[str] = []
    body: str = ""
    streams: bool = False


class Operation(_Object, frozen=True, kw_only=True):
    """An operation; the ``x-noobly`` members are for the explorer."""

    tags: list[str]
    operation_id: str
    summary: str
    description: str = ""
    deprecated: bool = False
    parameters: list[Parameter | Ref] = []
    request_body: Body | None = None
    responses: dict[str, Response | Ref]
    security: list[dict[str, list[str]]] | None = None
    x_noobly_scope: str = ""
    x_noobly_instance: str = ""
    x_noobly_call: Invocation | None = None
