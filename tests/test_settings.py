"""Settings: precedence, unknown keys, round trips."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.errors import InputError, SettingsError
from atypia.settings import Settings, merge, read_toml


class Inner(Settings):
    steps: int = pydantic.Field(10, ge=1)
    rate: float = 0.1


class Outer(Settings):
    name: str = "plain"
    limit: float | None = None
    sizes: tuple[int, ...] = (1, 2)
    inner: Inner = Inner()
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"inner": {"steps": 2, "rate": 0.5}}
    }


def test_precedence_is_default_preset_value() -> None:
    made = Outer.make({"inner": {"rate": 0.9}}, preset="tiny")
    assert made.inner == Inner(steps=2, rate=0.9)
    assert made.name == "plain"
    assert Outer.make(preset="default") == Outer.make() == Outer()
    assert Outer.tiny().inner.steps == 2
    assert Inner.tiny() == Inner()


def test_one_nested_value_keeps_the_other_defaults_of_the_outer_settings() -> None:
    class Special(Outer):
        inner: Inner = Inner(rate=0.7)

    assert Special.make({"inner": {"steps": 3}}).inner == Inner(steps=3, rate=0.7)
    assert Special.make({"inner": {"rate": 0.2}}).inner == Inner(steps=10, rate=0.2)
    assert Special.make(preset="tiny").inner == Inner(steps=2, rate=0.5)
    assert Special.make({"inner": Inner(steps=4)}).inner == Inner(steps=4)
    assert Special.make().explicit() == {}


def test_settings_are_frozen() -> None:
    with pytest.raises(pydantic.ValidationError):
        Outer().name = "other"


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match=r"Outer: nmae: unknown.*did you mean 'name'\?"):
        Outer.make({"nmae": "x"})
    with pytest.raises(SettingsError, match=r"inner\.stepz.*did you mean 'steps'\?"):
        Outer.make({"inner": {"stepz": 3}})


def test_an_unknown_preset_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'tiny'"):
        Outer.make(preset="tinny")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"inner": {"steps": 0}}, r"inner\.steps"),
        ({"sizes": ["a"]}, r"sizes\.0"),
        ({"name": None}, "name"),
    ],
)
def test_a_value_that_does_not_fit_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(SettingsError, match=rf"Outer: {field}: .*Correct"):
        Outer.make(values)


def test_but_changes_one_field_and_checks_it() -> None:
    changed = Outer.tiny().but(inner={"rate": 0.2})
    assert changed.inner == Inner(steps=2, rate=0.2)
    with pytest.raises(SettingsError, match="steps"):
        Outer().but(inner={"steps": -1})


def test_explicit_gives_only_what_was_set() -> None:
    assert Outer.make({"inner": {"rate": 0.3}}).explicit() == {"inner": {"rate": 0.3}}
    assert Outer().explicit() == {}


settings = st.builds(
    Outer,
    name=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])),
    limit=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    sizes=st.lists(st.integers(-5, 5), max_size=3).map(tuple),
    inner=st.builds(Inner, steps=st.integers(1, 9)),
)


@given(settings)
def test_json_and_toml_bring_the_same_settings_back(value: Outer) -> None:
    assert Outer.make(value.to_json()) == value
    assert Outer.make(tomllib.loads(value.to_toml())) == value


@given(settings, settings)
def test_the_digest_is_equal_exactly_for_equal_settings(one: Outer, other: Outer) -> None:
    assert (one.digest() == other.digest()) == (one.to_json() == other.to_json())
    assert Outer.make(one.to_json()).digest() == one.digest()


def test_merge_goes_into_nested_mappings_and_changes_neither() -> None:
    base, over = {"a": {"x": 1, "y": 2}, "b": [1]}, {"a": {"y": 3}, "b": [2], "c": {"z": 0}}
    assert merge(base, over) == {"a": {"x": 1, "y": 3}, "b": [2], "c": {"z": 0}}
    assert base == {"a": {"x": 1, "y": 2}, "b": [1]}
    assert merge({"a": {"x": 1}}, {"a": 5}) == {"a": 5}
    assert merge({"a": 5}, {"a": {"x": 1}}) == {"a": {"x": 1}}


def test_toml_files(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('name = "x"\n[inner]\nsteps = 3\n')
    assert Outer.make(read_toml(path)) == Outer(name="x", inner=Inner(steps=3))
    path.write_text("name = ")
    with pytest.raises(InputError, match=r"settings\.toml: is not TOML"):
        read_toml(path)
    path.write_bytes(b'name = "\xe9"')
    with pytest.raises(InputError, match="is not TOML"):
        read_toml(path)
    with pytest.raises(InputError, match=r"absent\.toml: cannot be read"):
        read_toml(tmp_path / "absent.toml")


def test_a_choice_of_numbers_may_come_as_text() -> None:
    """Flags of the command line are text; other text is still refused."""

    class Chosen(Settings):
        depth: Literal[18, 34] = 18
        word: Literal["18", "a"] = "a"

    assert Chosen.make({"depth": "34"}).depth == 34
    assert Chosen.make({"depth": "34"}).explicit() == {"depth": 34}
    assert Chosen.make({"word": "18"}).word == "18"
    with pytest.raises(SettingsError, match="depth"):
        Chosen.make({"depth": "35"})
