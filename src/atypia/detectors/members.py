"""Members of an ensemble: which detectors it has, and what fitted ones must have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from atypia.detectors.base import Detector, DetectorSettings
from atypia.detectors.training_scans import PreparationSettings
from atypia.errors import SettingsError
from atypia.preprocessing import Plan
from atypia.registry import method_named
from atypia.settings import Settings

METHOD = "ensemble"
PREPARATION = frozenset(PreparationSettings.model_fields)
"""The settings that an ensemble decides for its members."""


class Member(Settings):
    """One detector of an ensemble, before it is fitted."""

    method: str
    """Name or alias of its method."""
    name: str = ""
    """What it is called; its method if not given."""
    preset: str | None = None
    """A named set of the method's settings."""
    settings: dict[str, Any] = {}
    """Settings of the method, except how scans are prepared, which is the ensemble's."""

    @model_validator(mode="before")
    @classmethod
    def _named_by_method(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("name") and "method" in values:
            return values | {"name": values["method"]}
        return values

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        name = method_named(method)
        if name == METHOD:
            raise SettingsError(
                "members", "an ensemble cannot hold another one", "Name its members themselves"
            )
        return name

    @field_validator("settings")
    @classmethod
    def _without_preparation(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(set(settings) & PREPARATION):
            problem = f"prepares scans as the ensemble does, and cannot be told {', '.join(taken)}"
            raise SettingsError("a member", problem, "Give these settings to the ensemble")
        return settings


class EnsembleSettings(DetectorSettings):
    """Settings of `Ensemble`."""

    presets = {
        "tiny": {
            "spacing_mm": 6.0,
            "align": "none",
            "members": [
                {"method": m, "preset": "tiny"} for m in ("memory_bank", "padim", "zscore")
            ],
        },
    }

    members: tuple[Member, ...] = Field(
        (Member(method="memory_bank"), Member(method="padim"), Member(method="zscore")),
        min_length=2,
    )
    """The detectors: method, and if wanted name, preset and settings of each."""
    how: Literal["mean", "max", "geometric", "voting"] = "mean"
    """How the shares of healthy scores that the members' scores reach become one: their arithmetic
    mean, the largest, their geometric mean, or the share of the members that vote."""
    rate: float = Field(0.05, gt=0, lt=1)
    """A member votes where its score is above that of all but this share of healthy voxels."""
    held_out_share: float = Field(0.2, gt=0, lt=1)
    """Share of the training scans whose people are kept from the members, to learn what healthy
    scans score."""

    @field_validator("members")
    @classmethod
    def _differ(cls, members: tuple[Member, ...]) -> tuple[Member, ...]:
        names = [member.name for member in members]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} stands there twice; give each a name of its own")
        return members


def shared_plan(members: Mapping[str, Detector]) -> tuple[Plan, str]:
    """Give plan and modality of fitted members.

    Raises
    ------
    NotFittedError
        A member has not been fitted.
    SettingsError
        They are not two at least, differ in plan or modality, or one is an ensemble.
    """
    plan: Plan | None = None
    modality = first = ""
    for name, member in members.items():
        if member.method == METHOD:
            problem = "is an ensemble, and cannot be a member of another one"
            raise SettingsError(name, problem, "Combine its members themselves")
        theirs, told = member._fitted_plan(), str(member.trained_on["modality"])
        if plan is None:
            first, plan, modality = name, theirs, told
        if told != modality:
            problem = f"was fitted on {told}, {first} on {modality}"
            raise SettingsError(name, problem, "Combine models of one modality")
        if theirs.digest() != plan.digest():
            raise SettingsError(
                name,
                f"prepares scans otherwise than {first}: {_difference(theirs, plan)}",
                "Fit both on the same scans with the same settings of preprocessing, or with one "
                "plan: --preprocessing PLAN.json",
            )
    if plan is None or len(members) < 2:
        problem = f"has {len(members)} members"
        raise SettingsError(METHOD, problem, "Give two at least")
    return plan, modality


def _difference(plan: Plan, other: Plan) -> str:
    """Name where two plans differ."""
    steps, others = plan.to_json()["steps"], other.to_json()["steps"]
    names, other_names = ([step["step"] for step in one] for one in (steps, others))
    if names != other_names:
        return f"its steps are {', '.join(names)}, not {', '.join(other_names)}"
    parts = [
        f"{step['step']}.{key} is {_short(step[key])}, not {_short(its[key])}"
        for step, its in zip(steps, others, strict=True)
        for key in step
        if step[key] != its[key]
    ]
    return "; ".join(parts[:3])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def settings_of(members: Mapping[str, Detector], others: Mapping[str, Any]) -> EnsembleSettings:
    """Write down members that were fitted before, as settings of an ensemble.

    Parameters
    ----------
    members
        Name -> fitted detector.
    others
        Settings of the ensemble itself.

    Raises
    ------
    SettingsError
        A name or setting does not fit, or what the members have decided is among `others`.
    """
    if fixed := sorted(set(others) & {*PREPARATION, "members", "held_out_share"}):
        problem = f"{', '.join(fixed)} cannot be told to an ensemble of fitted members"
        raise SettingsError(METHOD, problem, "Leave it out")
    recorded = []
    for name, member in members.items():
        told = {k: v for k, v in member.settings.to_json().items() if k not in PREPARATION}
        recorded.append({"method": member.method, "name": name, "settings": told})
    first = next(iter(members.values()))
    shared = {name: getattr(first.settings, name) for name in PREPARATION}
    return EnsembleSettings.make({**shared, **others, "members": recorded})
