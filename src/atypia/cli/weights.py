"""`atypia weights`: list the weights that come with atypia, and show their model cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atypia.detectors.shipped import DEFAULT, FOLDER, folder_of, shipped
from atypia.errors import InputError
from atypia.runs.predicting import finished_scans

SHOWN = 12
"""Scans of which a line is printed."""


def weights(name: str | None = None) -> int:
    """List the weights that come with atypia, or show the model card of one.

    Parameters
    ----------
    name
        Of a weight set; all are listed if unset.
    """
    there = shipped()
    if name is not None:
        folder_of(name)  # an unknown name is refused here, with those that are known
        if name not in there:
            raise InputError(name, "has no model card", "Name one that `atypia weights` lists")
        print(card_told(name, there[name].card))
        return 0
    if not there:
        raise InputError(FOLDER, "holds no weights", "Install atypia again, from its wheel")
    width = max(len(key) for key in there)
    for key, one in there.items():
        default = " (default)" if key == DEFAULT else ""
        print(f"{key:<{width}}  {one.size_mb:5.1f} MB  {one.card['summary']}{default}")
    print("\natypia weights NAME shows a model card: data, training, figures, known failures.")
    return 0


def card_told(name: str, card: Any) -> str:
    """Write a model card as text."""
    lines = [name, "=" * len(name)]
    for key, value in card.items():
        title = key.replace("_", " ").capitalize()
        if isinstance(value, list):
            lines += [f"{title}:", *(f"  - {one}" for one in value)]
        elif isinstance(value, dict):
            lines += [f"{title}:", *(f"  {part}: {one}" for part, one in value.items())]
        else:
            lines.append(f"{title}: {value}")
    return "\n".join(lines)


def summary_of(results: Path) -> str:
    """Say what was found, a line a scan, the most abnormal first."""
    told = [description for _, description in finished_scans(results)]
    told.sort(key=lambda one: (one["p_value"] is None, one["p_value"], -one["score"]))
    lines = [_line(one) for one in told[:SHOWN]]
    if len(told) > SHOWN:
        lines.append(f"... and {len(told) - SHOWN} more")
    return "\n".join(lines)


def _line(one: dict[str, Any]) -> str:
    p_value = one["p_value"]
    judged = "not calibrated" if p_value is None else f"p = {p_value:.3g}"
    verdict = f", {one['verdict']}" if one.get("verdict") else ""
    found = f"{len(one['lesions'])} regions, {one['mask_ml'] or 0:.3g} ml" if p_value else ""
    return f"{one['id']}: {judged} (score {one['score']:.3g}{verdict}); {found}"
