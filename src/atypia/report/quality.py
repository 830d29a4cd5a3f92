"""Quality page: every prepared scan with its outlines and figures, outliers first, in one file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from atypia import files
from atypia.cohort.scan import Scan
from atypia.errors import AtypiaError, InputError
from atypia.parallel import map_in_processes
from atypia.progress import Progress, silent
from atypia.report import charts
from atypia.report.mosaic import write_mosaic
from atypia.report.pictures import FOUND, TRUE
from atypia.report.privacy import setting_without_folders, without_folders
from atypia.report.rendering import Fact, flat, template
from atypia.runs.preparing import open_prepared, read_quality, read_record
from atypia.runs.quality import (
    FEWEST,
    LEVELS,
    MEASURES,
    STRANGE,
    Quality,
    Verdict,
    compare,
)
from atypia.volume import Array

MOST_PICTURES = 200
"""Scans that are shown with pictures, outliers first; all are in the table."""
BINS = 48
USUAL = (5, 95)
"""Percentiles of the cohort between which a histogram is called usual."""


@dataclass(frozen=True, eq=False)
class Card:
    """What the page shows of one scan; `anchor` is empty for one that is only in the table."""

    id: str
    verdict: Verdict
    facts: tuple[tuple[Fact, bool], ...]
    anchor: str = ""
    picture: str = ""
    size: tuple[int, int] = (0, 0)
    histogram: Markup | None = None
    problem: str = ""


def write_quality_page(
    output: str | Path, *, workers: int | None = 1, progress: Progress = silent
) -> Path:
    """Write one HTML page about what `atypia prepare` wrote, offline and in one file.

    Mosaics that were drawn before are kept.

    Parameters
    ----------
    output
        Folder of the prepared scans; the page is `quality.html` in it.
    workers
        Number of processes; None for one a core.

    Raises
    ------
    InputError
        `output` was not written by `atypia prepare`, or not to its end, or scans are gone.
    """
    output = Path(output)
    record = read_record(output)
    done = [item for item in record["items"] if item["status"] == "done"]
    scans = list(open_prepared(output).cohort) if done else []
    places = [output / item["place"] for item in done]
    qualities = [q for place in places if (q := read_quality(place)) is not None]
    if len(qualities) < len(places):
        raise InputError(output, "has lost prepared scans", "Run `atypia prepare` again")
    verdicts = compare(qualities)
    order = sorted(range(len(scans)), key=lambda i: (-verdicts[i].largest_z, scans[i].id))
    pictured = order[:MOST_PICTURES]
    jobs = [(scans[i], record["modality"], places[i]) for i in pictured]
    problems = list(map_in_processes(_drawn, jobs, workers, "draw", progress))
    histograms = _histograms(qualities)
    cards = []
    for rank, i in enumerate(order):
        shown = rank < len(pictured)
        cards.append(
            _card(
                scans[i].id,
                verdicts[i],
                f"scan-{rank + 1}" if shown else "",
                places[i],
                histograms[i] if shown else None,
                problems[rank] if shown else "",
            )
        )
    page = output / "quality.html"
    text = template("quality.html.j2").render(**_contents(output, record, cards))
    files.write_text(page, text)
    return page


def _contents(output: Path, record: Mapping[str, Any], cards: Sequence[Card]) -> dict[str, Any]:
    """Give everything that the template shows."""
    steps = files.read_json(output / "plan.json")["steps"]
    groups = {
        "outliers": [card for card in cards if card.verdict.remarks],
        "others": [card for card in cards if not card.verdict.remarks],
    }
    return {
        "record": record,
        "cards": cards,
        "groups": {name: members for name, members in groups.items() if members},
        "failed": [
            (item["id"], without_folders(item["error"]))
            for item in record["items"]
            if item["status"] == "failed"
        ],
        "strips": _strips(cards),
        "steps": [
            (step["step"], [(key, setting_without_folders(value)) for key, value in flat(step)])
            for step in steps
        ],
        "measures": MEASURES,
        "colours": {"brain": FOUND, "template": TRUE},
        "strange": STRANGE,
        "fewest": FEWEST,
        "most": MOST_PICTURES if len(cards) > MOST_PICTURES else None,
    }


def _drawn(job: tuple[Scan, str, Path]) -> str:
    """Draw one scan, unless it was drawn before; give what went wrong."""
    if (job[2] / "mosaic.webp").exists():
        return ""
    try:
        write_mosaic(*job)
    except AtypiaError as error:
        return without_folders(str(error))
    return ""


def _card(
    name: str,
    verdict: Verdict,
    anchor: str,
    place: Path,
    histogram: Markup | None,
    problem: str,
) -> Card:
    facts = tuple(
        (
            _fact(measure, verdict),
            any(r.startswith(MEASURES[measure].title) for r in verdict.remarks),
        )
        for measure in verdict.values
    )
    if not anchor or problem:
        return Card(name, verdict, facts, anchor, histogram=histogram, problem=problem)
    from PIL import Image

    path = place / "mosaic.webp"
    with Image.open(path) as picture:
        size = picture.size
    uri = "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode()
    return Card(name, verdict, facts, anchor, uri, size, histogram)


def _fact(name: str, verdict: Verdict) -> Fact:
    measure = MEASURES[name]
    text = f"{verdict.values[name]:.4g}"
    if name in verdict.z:
        text += f" (z {verdict.z[name]:+.1f})"
    return Fact(measure.title, text, measure.meaning)


def _strips(cards: Sequence[Card]) -> list[Markup]:
    """Draw every figure of every scan."""
    found = []
    for name, measure in MEASURES.items():
        rows: dict[str, list[charts.Dot]] = {"outliers": [], "others": []}
        for card in cards:
            if name in card.verdict.values:
                group = "outliers" if card.verdict.remarks else "others"
                rows[group].append(charts.Dot(card.verdict.values[name], card.id, card.anchor))
        if any(rows.values()):
            label = f"{measure.title} of every scan"
            found.append(charts.strip(rows, (), measure.title, label))
    return found


def _histograms(qualities: Sequence[Quality]) -> list[Markup]:
    """Draw every scan's histogram over what is usual in the cohort."""
    if not qualities:
        return []
    quantiles = np.array([quality.quantiles for quality in qualities])
    # The last half percent at either end is mostly a long, empty tail.
    low, high = np.median(quantiles[:, 1]), np.median(quantiles[:, -2])
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    shares = np.array([_shares(row, edges) for row in quantiles])
    usual = np.percentile(shares, USUAL, axis=0)
    return [
        charts.histogram(edges, row, (usual[0], usual[1]), "normalised intensity") for row in shares
    ]


def _shares(quantiles: Array, edges: Array) -> Array:
    """Give the share of voxels in each bin, from their quantiles."""
    return np.diff(np.interp(edges, quantiles, LEVELS, left=0.0, right=1.0))
