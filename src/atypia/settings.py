"""Settings: frozen, typed, refusing unknown keys, round-tripping through JSON and TOML."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

import pydantic

from atypia import files
from atypia.errors import InputError, SettingsError, unknown_name


class Settings(pydantic.BaseModel):
    """Base of every settings class.

    A subclass declares its fields with defaults and, in `presets`, named sets of values that
    differ from them. Precedence: defaults < preset < file < flags.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _words_as_numbers(cls, values: Any) -> Any:
        """Take a number's text where one of several numbers is asked for, as flags give it."""
        if not isinstance(values, dict):
            return values
        known: dict[str, int] = {}
        for name, field in cls.model_fields.items():
            given = values.get(name)
            if isinstance(given, str) and get_origin(field.annotation) is Literal:
                numbers = [o for o in get_args(field.annotation) if isinstance(o, int)]
                known |= {name: int(given)} if given in map(str, numbers) else {}
        return values | known

    @classmethod
    def make(cls, values: Mapping[str, Any] | None = None, preset: str | None = None) -> Self:
        """Build settings from a preset and the values that override it.

        Parameters
        ----------
        values
            Field values, nested settings as mappings.
        preset
            A name from `presets`; None or ``"default"`` for the plain defaults.

        Raises
        ------
        SettingsError
            The preset or a key is unknown, or a value does not fit its type or bounds.
        """
        base: Mapping[str, Any] = {}
        if preset not in (None, "default"):
            if preset not in cls.presets:
                raise unknown_name("preset", str(preset), ["default", *cls.presets])
            base = cls.presets[preset]
        try:
            return cls.model_validate(_on_defaults(cls, merge(base, values or {})))
        except pydantic.ValidationError as error:
            raise settings_error(cls.__name__, error, cls) from error

    @classmethod
    def tiny(cls) -> Self:
        """Give the preset for tests: the real thing at a size that takes a second or two."""
        return cls.make(preset="tiny" if "tiny" in cls.presets else None)

    def but(self, **values: Any) -> Self:
        """Copy with some fields changed and checked again."""
        return type(self).make(merge(self.model_dump(), values))

    def explicit(self) -> dict[str, Any]:
        """Give only the values that were set on purpose, as opposed to defaults."""
        return self.model_dump(exclude_unset=True)

    def to_json(self) -> dict[str, Any]:
        """Give the settings as plain JSON values."""
        return dict(self.model_dump(mode="json"))

    def to_toml(self) -> str:
        """Give the settings as TOML; None is left out, because TOML has no word for it."""
        import tomli_w

        return tomli_w.dumps(_without_none(self.to_json()))

    def digest(self) -> str:
        """Sixteen hexadecimal digits that change when any value changes."""
        return files.digest(json.dumps(self.to_json(), sort_keys=True))


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file of settings.

    Raises
    ------
    InputError
        The file is missing or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, "cannot be read", "Check the path of the settings file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, f"is not TOML ({error})", "Mend the settings file") from error


def settings_error(
    name: str, error: pydantic.ValidationError, model: type[pydantic.BaseModel] | None = None
) -> SettingsError:
    """Say in one line what pydantic found.

    Parameters
    ----------
    name
        What the settings are called in the message.
    error
        What pydantic raised.
    model
        The class of the settings, for the nearest known key when one is unknown.
    """
    problems = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or name
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown{_nearest(item['loc'], model)}"
        problems.append(f"{field}: {message}")
    return SettingsError(name, "; ".join(problems), "Correct these settings")


def _nearest(place: tuple[int | str, ...], model: type[pydantic.BaseModel] | None) -> str:
    """Ask whether the nearest known key was meant; empty when none is near."""
    known: Any = model
    for part in place[:-1]:
        field = getattr(known, "model_fields", {}).get(part)
        known = field.annotation if field else None
    names = getattr(known, "model_fields", {})
    close = difflib.get_close_matches(str(place[-1]), names, n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` on `base`, nested mappings key by key."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged


def _on_defaults(model: type[Settings], values: dict[str, Any]) -> dict[str, Any]:
    """Lay nested mappings on the nested settings that are the model's own defaults."""
    # Else one value of `training` would reset the others to what training is by itself.
    for name, field in model.model_fields.items():
        if isinstance(field.default, Settings) and isinstance(values.get(name), Mapping):
            values[name] = merge(field.default.explicit(), values[name])
    return values


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value
