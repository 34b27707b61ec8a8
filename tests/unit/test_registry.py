from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from noobly.core import registry
from noobly.core.errors import ConfigError, MissingDependency
from noobly.core.registry import Provider, Registry

BUILTIN = {
    "dict": Provider("collections:OrderedDict"),
    "gone": Provider("a_package_nobody_has:Thing", "gone"),
    "broken": Provider("a_package_nobody_has:Thing"),
    "value": Provider("string:digits"),
}


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    found: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: [point for point in found if point.group == group])
    return found


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "noobly.things")


def test_a_scheme_loads_its_class(points: list[EntryPoint]) -> None:
    assert Registry("things", BUILTIN).load("dict").__name__ == "OrderedDict"


def test_an_unknown_scheme_lists_the_known_ones(points: list[EntryPoint]) -> None:
    points.append(point("mine", "collections:Counter"))
    with pytest.raises(
        ConfigError, match="no things provider has the scheme 'dic'; known are broken, dict, gone, mine"
    ):
        Registry("things", BUILTIN).load("dic")


def test_a_missing_package_names_the_extra(points: list[EntryPoint]) -> None:
    with pytest.raises(MissingDependency, match=r"pip install 'noobly\[gone\]'"):
        Registry("things", BUILTIN).load("gone")
    with pytest.raises(MissingDependency, match="cannot be imported"):
        Registry("things", BUILTIN).load("broken")


def test_a_package_that_is_there_but_broken_is_not_said_to_be_missing(
    points: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(module: str) -> None:
        raise ImportError(f"{module} lacks a script")

    monkeypatch.setattr(registry.importlib, "import_module", broken)
    with pytest.raises(ConfigError, match="the provider gone cannot be imported: a_package_nobody_has lacks a script"):
        Registry("things", BUILTIN).load("gone")


def test_what_is_not_a_class_is_refused(points: list[EntryPoint]) -> None:
    with pytest.raises(ConfigError, match="not a class"):
        Registry("things", BUILTIN).load("value")


def test_entry_points_of_others_are_found(points: list[EntryPoint]) -> None:
    points.append(point("mine", "collections:Counter"))
    things = Registry("things", BUILTIN)
    assert things.load("mine").__name__ == "Counter"
    assert ("mine", False) in [(listed.scheme, listed.builtin) for listed in things.providers()]


def test_two_claims_on_one_scheme_are_refused(points: list[EntryPoint]) -> None:
    points.extend([point("mine", "collections:Counter"), point("mine", "collections:deque")])
    with pytest.raises(ConfigError, match="several packages offer the things scheme mine"):
        Registry("things", BUILTIN).load("mine")


def test_a_claim_on_a_builtin_scheme_is_refused(points: list[EntryPoint]) -> None:
    points.append(point("dict", "collections:Counter"))
    with pytest.raises(ConfigError, match="claims the built-in things scheme dict"):
        Registry("things", BUILTIN).providers()
