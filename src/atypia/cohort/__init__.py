"""Cohorts: from a BIDS tree, a CSV/TSV manifest, a folder of images, or the simulator.

`open_cohort(path)` recognises the layout; each layout is one file with a function that reads it
and one line in `LAYOUTS`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from atypia import io
from atypia.cohort.scan import MODALITIES, Cohort, Scan, modality_named
from atypia.cohort.splits import require_disjoint, split
from atypia.errors import CohortError, InputError, unknown_name

__all__ = [
    "LAYOUTS",
    "MODALITIES",
    "Cohort",
    "Scan",
    "modality_named",
    "open_cohort",
    "require_disjoint",
    "split",
]

LAYOUTS = {
    "manifest": "atypia.cohort.manifest:read_manifest",
    "bids": "atypia.cohort.bids:read_bids",
    "folder": "atypia.cohort.folder:read_folder",
}
"""Layout -> the function that reads it: `(path, modality) -> Cohort`."""


def open_cohort(
    path: str | Path,
    layout: str | None = None,
    modality: str | None = None,
) -> Cohort:
    """Open a cohort of scans; no image is read yet.

    Parameters
    ----------
    path
        A folder, a CSV/TSV manifest, or one image.
    layout
        A name from `LAYOUTS`; recognised from what is there when None.
    modality
        What the images of a plain folder show; a filter for the other layouts.

    Raises
    ------
    InputError
        There is nothing at `path`.
    CohortError
        The layout is not recognised, or no scan is found.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(path, "no such file or folder", "Check the path of the cohort")
    modality = modality_named(modality) if modality else None
    if layout is None and path.is_file() and io.suffix_of(path):
        dataset = path.resolve().parent.name
        scan = Scan(io.stem_of(path), {modality or "image": path}, dataset=dataset)
        return Cohort((scan,), path.name)
    layout = layout or _recognised(path)
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if layout != "manifest" and not path.is_dir():
        raise CohortError(path, f"is no folder, as layout {layout} needs", "Name the folder")
    module, function = LAYOUTS[layout].split(":")
    cohort: Cohort = getattr(importlib.import_module(module), function)(path, modality)
    if not len(cohort):
        wanted = f" of modality {modality}" if modality else ""
        raise CohortError(path, f"has no scan{wanted} in layout {layout}", "Check path and layout")
    return cohort


def _recognised(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() in (".csv", ".tsv"):
            return "manifest"
        raise CohortError(path, "is neither an image nor a CSV/TSV manifest", "Name one of these")
    if (path / "manifest.tsv").exists() or (path / "manifest.csv").exists():
        return "manifest"
    if (path / "dataset_description.json").exists() or any(path.glob("sub-*/**/anat")):
        return "bids"
    return "folder"
