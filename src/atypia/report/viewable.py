"""Viewable: what a folder holds of which there is a page."""

from __future__ import annotations

from pathlib import Path

from atypia.errors import InputError
from atypia.report.training_page import is_model
from atypia.runs.preparing import RECORD

DEPTH = 3
"""How far below a folder results and models are looked for."""
MOST_PLACES = 500


def kind_of(folder: Path) -> str | None:
    """Tell what a folder holds: results, comparison, prepared scans, model, or None of these."""
    if (folder / "benchmark.json").is_file():
        return "comparison"
    if (folder / "run.json").is_file():
        return "results"
    if (folder / RECORD).is_file():
        return "prepared scans"
    return "model" if is_model(folder) else None


def places_in(folder: Path) -> dict[str, str]:
    """Find what can be shown below a folder: path -> kind, sorted; links are not followed."""
    found: dict[str, str] = {}

    def look(at: Path, depth: int) -> None:
        try:
            inner = sorted(p for p in at.iterdir() if p.is_dir() and not p.is_symlink())
        except OSError:
            return  # not ours to read
        for one in inner:
            if one.name.startswith(".") or len(found) >= MOST_PLACES:
                continue
            kind = kind_of(one)
            if kind is not None:
                found[one.relative_to(folder).as_posix()] = kind
            elif depth > 1:
                look(one, depth - 1)

    look(folder, DEPTH)
    return found


def require_viewable(folder: Path) -> None:
    """Refuse a place of which nothing can be shown.

    Raises
    ------
    InputError
        It is no folder, or holds nothing that atypia wrote.
    """
    remedy = "Name a folder that `atypia predict`, `benchmark`, `prepare` or `fit` wrote"
    if not folder.is_dir():
        raise InputError(folder, "is no folder" if folder.exists() else "no such folder", remedy)
    if kind_of(folder) is None and not places_in(folder):
        problem = "holds no results, comparison, prepared scans or model"
        raise InputError(folder, problem, f"{remedy}, or one that holds such folders")
