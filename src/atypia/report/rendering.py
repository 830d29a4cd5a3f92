"""What the pages share: their template environment, facts about scans, and how values are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2


@dataclass(frozen=True)
class Fact:
    """One thing that is known about a scan."""

    name: str
    value: str
    hint: str = ""


def template(name: str) -> jinja2.Template:
    """Give a page's template, which may include any other; styles and scripts go in as they are."""
    folder = resources.files("atypia.report") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda part: (folder / part).read_text("utf-8")),
        autoescape=lambda part: part is not None and not part.endswith((".css", ".js")),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = number
    environment.filters["p_value"] = p_value
    return environment.get_template(name)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """List nested settings as dotted names and texts."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            rows += flat(value, f"{key}.")
        elif _is_list(value) and any(isinstance(part, Mapping) for part in value):
            rows += flat({str(place): part for place, part in enumerate(value)}, f"{key}.")
        elif _is_list(value):
            rows.append((key, ", ".join(map(str, value))))
        else:
            rows.append((key, "-" if value is None else str(value)))
    return rows


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def number(value: Any) -> str:
    """Show a number with three digits, anything else as text."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def p_value(value: float, extrapolated: bool = False) -> str:
    """Show a p-value; a very small one is not shown as nothing, an estimated one is marked."""
    text = f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"
    return f"{text} (extrapolated)" if extrapolated else text
