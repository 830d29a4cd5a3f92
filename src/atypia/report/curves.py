"""Threshold curves of a results folder, as a picture and as JSON beside each scan's volumes."""

from __future__ import annotations

from pathlib import Path

from atypia import files
from atypia.report import charts
from atypia.report.results import read_results

STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#555}"
    ".told{fill:#111;font-weight:600}.grid{stroke:#ddd}"
    "polyline{fill:none;stroke-width:1.8}.curve{stroke:#2a6fb0}"
    ".fit{stroke:#888;stroke-dasharray:4 3}line.knee{stroke:#c0392b}circle.knee{fill:#c0392b}"
)


def write_curves(results: Path) -> int:
    """Write `threshold_curve.svg` and `threshold_curve.json` for every scan that has a curve.

    Parameters
    ----------
    results
        Folder that `atypia predict` wrote.

    Returns
    -------
    int
        How many scans have one.

    Raises
    ------
    InputError
        `results` holds no `run.json`.
    """
    count = 0
    for entry in read_results(Path(results)).done:
        curve = entry.description["details"].get("threshold_curve")
        if curve is None:
            continue
        picture = str(charts.threshold_curve(curve))
        opening, rest = picture.split(">", 1)
        opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        files.write_text(
            entry.place / "threshold_curve.svg", f"{opening}><style>{STYLE}</style>{rest}\n"
        )
        files.write_json(entry.place / "threshold_curve.json", curve)
        count += 1
    return count
