"""Power report: the same figures as JSON, CSV, Markdown and a page that needs no network."""

from __future__ import annotations

import base64
import csv
import io as memory
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atypia import __version__, files
from atypia.errors import AtypiaError
from atypia.evaluation.power import POWER_COLUMNS, Power, percent
from atypia.evaluation.table import Column, markdown
from atypia.report.privacy import without_folders
from atypia.report.rendering import template
from atypia.runs.power import Example
from atypia.volume import Array

CSV_COLUMNS = (
    "diameter_mm", "contrast", "asked", "planted", "found_before", "judged", "found", "share",
    "low", "high",
)  # fmt: skip
PIXELS = 220
"""Across one picture."""


@dataclass(frozen=True)
class Square:
    """One cell of the heat map: its counts, its interval, and the share that colours it."""

    counts: str
    interval: str
    share: float
    meaning: str


@dataclass(frozen=True)
class Picture:
    """A clean slice beside the same one with a lesion."""

    title: str
    alt: str
    uri: str
    width: int
    height: int


def write_power(power: Power, folder: Path, examples: Iterable[Example] = ()) -> Path:
    """Write `power.json`, `power.csv`, `power.md` and `power.html` into a folder.

    Parameters
    ----------
    power
        What was found.
    folder
        Made if it is not there.
    examples
        Scans whose planted lesions are shown.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    page = folder / "power.html"
    files.write_json(folder / "power.json", {"atypia": __version__, **power.to_json()})
    files.write_text(folder / "power.csv", _csv(power))
    files.write_text(folder / "power.md", power_markdown(power))
    text = template("power.html.j2").render(
        power=power,
        failed={scan: without_folders(why) for scan, why in power.failed.items()},
        version=__version__,
        contrasts=[percent(c) for c in power.design.contrasts],
        rows=[
            (f"{d:g}", [_square(power, d, c) for c in power.design.contrasts])
            for d in power.design.diameters_mm
        ],
        table=power.rows(),
        columns=POWER_COLUMNS,
        pictures=[picture for one in examples if (picture := _picture(one)) is not None],
    )
    files.write_text(page, text)
    return page


def power_markdown(power: Power) -> str:
    """Give the report as Markdown: what it rests on, found lesions by size and contrast, counts."""
    columns = [
        Column("diameter", "diameter mm", POWER_COLUMNS[0].meaning),
        *(Column(percent(c), percent(c), POWER_COLUMNS[1].meaning) for c in power.design.contrasts),
    ]
    grid = [
        {"diameter": f"{d:g}"}
        | {percent(c): _square(power, d, c).counts for c in power.design.contrasts}
        for d in power.design.diameters_mm
    ]
    parts = [
        *power.sentences,
        "Lesions found, by diameter and by contrast in per cent of the brain's median intensity:",
        markdown(grid, columns),
        markdown(power.rows(), POWER_COLUMNS),
    ]
    if power.failed:
        parts += ["Failed, and counted nowhere:", "\n".join(f"- {i}" for i in power.failed)]
    return "\n\n".join(parts) + "\n"


def _csv(power: Power) -> str:
    stream = memory.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(CSV_COLUMNS)
    asked = power.design.lesions_per_scan * len(power.scans)
    for cell in power.cells:
        low, high = cell.interval or ("", "")
        share = "" if cell.share is None else cell.share
        table.writerow(
            (cell.diameter_mm, cell.contrast, asked, cell.planted, cell.found_before, cell.judged,
             cell.found, share, low, high)
        )  # fmt: skip
    return stream.getvalue()


def _square(power: Power, diameter_mm: float, contrast: float) -> Square:
    cell = power.cell(diameter_mm, contrast)
    where = f"{diameter_mm:g} mm at {percent(contrast)}"
    if cell.interval is None or cell.share is None:
        return Square("-", "", 0.0, f"{where}: no lesion that counts")
    low, high = cell.interval
    return Square(
        f"{cell.found}/{cell.judged}",
        f"{low:.0%} to {high:.0%}",
        round(cell.share, 3),
        f"{where}: {cell.found} of {cell.judged} lesions found",
    )


def _picture(example: Example) -> Picture | None:
    """Draw the axial slice that holds most of the lesions; None where there is none to see."""
    from PIL import Image

    try:
        lesion = example.planted.lesion()
        pair = [
            scan.image(example.modality).canonical() for scan in (example.clean, example.planted)
        ]
    except AtypiaError:
        return None
    if lesion is None or not lesion.data.any():
        return None
    lesion, brain = lesion.canonical(), example.brain.canonical()
    height = int(lesion.data.sum((0, 1)).argmax())
    inside = pair[0].data[brain.data]
    low, high = np.percentile(inside, (0.5, 99.7))
    box = [np.flatnonzero(brain.data.any(axis=(1 - axis, 2))) for axis in (0, 1)]
    x, y = (slice(int(b[0]), int(b[-1]) + 1) for b in box)
    slices = [_grey(volume.data[x, y, height], float(low), float(high)) for volume in pair]
    across, up = slices[0].shape[1] * brain.spacing_mm[0], slices[0].shape[0] * brain.spacing_mm[1]
    size = (PIXELS, max(1, round(PIXELS * up / across)))
    shown = [np.asarray(Image.fromarray(s).resize(size, Image.Resampling.BICUBIC)) for s in slices]
    gap = np.zeros((size[1], 6), dtype=np.uint8)
    stream = memory.BytesIO()
    both = np.ascontiguousarray(np.hstack([shown[0], gap, shown[1]]))
    Image.fromarray(both).save(stream, "WEBP", quality=80)
    title = f"{example.diameter_mm:g} mm, {percent(example.contrast)}"
    return Picture(
        title,
        f"Axial slice of {example.clean.id}, clean and with lesions of {title}",
        "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode(),
        both.shape[1],
        both.shape[0],
    )


def _grey(data: Array, low: float, high: float) -> Array:
    """Give a slice `(up, across)` as bytes, its front at the top."""
    shown = np.clip((data.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    return np.ascontiguousarray((255 * shown).astype(np.uint8).T[::-1])
