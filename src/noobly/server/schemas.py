"""Docstrings and types of the declarations, as JSON Schema and as words for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import msgspec
from docstring_parser import DocstringStyle, parse

Schema = Mapping[str, object]
"""A JSON Schema (2020-12), as msgspec writes it."""

REF = "#/components/{}/{}"


class Words(NamedTuple):
    """A docstring taken apart; ``raises`` are the names of errors."""

    summary: str
    description: str
    returns: str
    params: Mapping[str, str]
    raises: tuple[str, ...]


@cache
def words(doc: str | None) -> Words:
    """Take a docstring apart: its first sentence, what else it says, its arguments and its errors."""
    parsed = parse((doc or "").replace("``", "`"), style=DocstringStyle.GOOGLE)
    first, _, rest = _line(parsed.short_description).partition(". ")
    return Words(
        summary=first.rstrip(".") + "." if first else "",
        description="\n\n".join(filter(None, (rest, parsed.long_description))),
        returns=_line(parsed.returns.description) if parsed.returns else "",
        params={param.arg_name: _line(param.description) for param in parsed.params},
        raises=tuple(error.type_name or "" for error in parsed.raises),
    )


def _line(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip()


class Schemas:
    """The schemas of all types that travel; each named type stands once, in ``components``.

    Args:
        types: The types.
    """

    def __init__(self, types: Iterable[object]) -> None:
        unique = list(dict.fromkeys(types))
        schemas, components = msgspec.json.schema_components(
            unique, schema_hook=_any, ref_template=REF.format("schemas", "{name}")
        )
        self._schemas = dict(zip(unique, schemas, strict=True))
        self.components = {name: _described(components[name]) for name in sorted(components)}

    def of(self, type: object) -> Schema:
        """Return the schema of a type: its own, or the reference to it."""
        return self._schemas[type]

    def named(self, name: str, schema: Schema) -> Schema:
        """Keep a schema among the components under a name, and return the reference to it."""
        self.components[name] = schema
        return {"$ref": REF.format("schemas", name)}

    def present(self, type: object) -> Schema:
        """Return the schema of a type's values other than None; a query leaves None out."""
        schema = self.of(type)
        kinds = schema.get("anyOf")
        if not isinstance(kinds, list):
            return schema
        kept = [kind for kind in kinds if kind != {"type": "null"}]
        found: Schema = kept[0] if len(kept) == 1 else {**schema, "anyOf": kept}
        return found


def _any(type: object) -> dict[str, object]:
    if type is object:
        return {"description": "Any value."}
    raise NotImplementedError


def _described(component: Mapping[str, Any]) -> Schema:
    """Return a component whose docstring's parts stand where JSON Schema has places for them."""
    said = words(component.get("description"))
    described = {**component, "description": f"{said.summary} {said.description}".strip()}
    if "properties" in component:
        described["properties"] = {
            name: with_meaning(schema, said.params.get(name, "")) for name, schema in component["properties"].items()
        }
    return described


def with_meaning(schema: Schema, meaning: str) -> Schema:
    """Return a schema with a description, where there is one."""
    return {**schema, "description": meaning} if meaning else schema
