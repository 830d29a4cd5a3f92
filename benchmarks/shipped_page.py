"""The page on which the shipped weights are judged: tables, and a picture of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atypia import files
from benchmarks import timing
from benchmarks.tables import table

Row = Mapping[str, Any]

PICTURE = Path("docs/images/shipped.png")
MARKS = {
    "ensemble": ("o", "#0b62b8", "shipped ensemble"),
    "zscore *": ("s", "#8a939c", "zscore"),
    "intensity *": ("^", "#c9a227", "intensity"),
}
"""Method -> mark, colour and name in the picture."""


def write_page(path: Path, intro: str, figures: dict[str, Any]) -> None:
    """Write the page, and its picture."""
    _draw(figures["rows"])
    picture = Path("..") / PICTURE.relative_to(path.parent.parent)
    parts = [
        "# The shipped weights, judged",
        f"{intro} On {_hardware()}.",
        f"![Average precision of the shipped ensemble and both baselines]({picture})",
        "Baselines are marked with *. AP, AUROC and oracle Dice look at the score map (the oracle "
        "threshold is chosen on the labels it is judged by); Dice is that of the calibrated mask. "
        "`p <= 0.05` counts scans; the 12 to 14 scans that calibrate a baseline allow no p-value "
        "as low.",
    ]
    for name in dict.fromkeys(row["scans"] for row in figures["rows"]):
        own = [row for row in figures["rows"] if row["scans"] == name]
        parts += [f"## {name}", table([_without(row, "scans") for row in own])]
    parts += [
        "## Healthy scans",
        "Of healthy scans like those of the calibration 5 % would have p <= 0.05. T1w calibrations "
        "are of ds002748; those of T2w and FLAIR are of simulated brains, and real heads differ.",
        table(figures["healthy"]),
        "## Lesions by size",
        "Share of true lesions that the calibrated mask touches.",
        table(_wide(figures["sizes"])),
    ]
    if figures["failed"]:
        parts += ["## Scans that could not be judged", *figures["failed"]]
    files.write_text(path, "\n\n".join(parts) + "\n")


def _draw(rows: Sequence[Row]) -> None:
    """Draw a line for every kind of scans (how many), with average precisions on it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys((row["scans"], row["condition"], row["n"]) for row in rows))
    kinds.sort(key=lambda kind: "simulated" in kind[0])
    figure, axis = pyplot.subplots(figsize=(8.5, 0.27 * len(kinds) + 1.1))
    for depth, (method, (mark, colour, name)) in enumerate(MARKS.items()):
        found = {(r["scans"], r["condition"]): r["AP"] for r in rows if r["method"] == method}
        values = [found[kind[:2]] for kind in kinds]
        places = range(len(kinds))
        axis.scatter(values, places, marker=mark, color=colour, label=name, s=42, zorder=9 - depth)
    labels = [f"{scans}: {what.replace('_', ' ')} ({n})" for scans, what, n in kinds]
    axis.set(yticks=range(len(kinds)), xlim=(-0.02, 1), xlabel="average precision")
    axis.set_yticklabels(labels, fontsize=8)
    axis.invert_yaxis()
    axis.grid(color="#e3e7ea", zorder=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0)
    figure.legend(loc="upper center", ncols=3, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.savefig(PICTURE, dpi=110)
    pyplot.close(figure)


def _wide(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Lay the shares of lesions found out with a column a method."""
    wide: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = {name: row[name] for name in ("scans", "condition", "size", "lesions")}
        wide.setdefault(tuple(key.values()), key)[row["method"]] = row["found"]
    return list(wide.values())


def _without(row: Row, name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def _hardware() -> str:
    told = timing.hardware()
    return f"{told['cpu']}, {told['cores']} cores, torch {told['torch']}"
