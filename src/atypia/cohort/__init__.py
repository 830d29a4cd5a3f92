"""Cohorts: from BIDS trees, manifests, known data sets, folders of images, or the simulator.

`open_cohort(path)` recognises the layout; each layout is one file with a function that reads it
and one line in `LAYOUTS`, or one entry in the table of `datasets`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from atypia import io
from atypia.cohort.bids import read_bids
from atypia.cohort.datasets import DATASETS, FLAT
from atypia.cohort.dicom import holds_dicom, read_dicom
from atypia.cohort.folder import read_folder
from atypia.cohort.manifest import read_manifest
from atypia.cohort.scan import MODALITIES, Cohort, Scan, joined, modality_named
from atypia.cohort.split_csv import is_split_csv, read_split_csv, tables_in
from atypia.cohort.splits import folds, require_disjoint, split
from atypia.cohort.trees import recognised
from atypia.errors import CohortError, InputError, unknown_name

__all__ = [
    "LAYOUTS",
    "MODALITIES",
    "Cohort",
    "Scan",
    "folds",
    "joined",
    "modality_named",
    "open_cohort",
    "read_names",
    "require_disjoint",
    "split",
]

LAYOUTS: dict[str, Callable[[Path, str | None], Cohort]] = {
    "manifest": read_manifest,
    "split_csv": read_split_csv,
    "bids": read_bids,
    **DATASETS,
    "flat": FLAT,
    "folder": read_folder,
    "dicom": read_dicom,
}
"""Layout -> the function that reads it: `(path, modality) -> Cohort`."""

OF_FILES = ("manifest", "split_csv")
"""Layouts that may be one file."""


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
    if not io.exists(path):
        raise InputError(path, "no such file or folder", "Check the path of the cohort")
    modality = modality_named(modality) if modality else None
    if layout is None and not path.is_dir() and io.is_image(path):
        dataset = path.resolve().parent.name
        scan = Scan(io.stem_of(path), {modality or "image": path}, dataset=dataset)
        return Cohort((scan,), scan.id)
    layout = layout or _recognised(path)
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if layout not in OF_FILES and not path.is_dir():
        raise CohortError(path, f"is no folder, as layout {layout} needs", "Name the folder")
    cohort = LAYOUTS[layout](path, modality)
    if not len(cohort):
        wanted = f" of modality {modality}" if modality else ""
        raise CohortError(path, f"has no scan{wanted} in layout {layout}", "Check path and layout")
    return cohort


def read_names(path: str | Path) -> list[str]:
    """Read a text file with the name of one scan a line, for `Cohort.listed`.

    Raises
    ------
    CohortError
        It cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CohortError(path, f"cannot be read ({error})", "Save it as UTF-8 text") from error


def _recognised(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() in (".csv", ".tsv"):
            return "split_csv" if is_split_csv(path) else "manifest"
        raise CohortError(path, "is neither an image nor a CSV/TSV manifest", "Name one of these")
    if (path / "manifest.tsv").exists() or (path / "manifest.csv").exists():
        return "manifest"
    if tables_in(path):
        return "split_csv"
    if dataset := recognised(path, DATASETS):
        return dataset
    if (path / "dataset_description.json").exists() or any(path.glob("sub-*/**/anat")):
        return "bids"
    images_here = any(io.suffix_of(file) for file in path.iterdir() if file.is_file())
    if images_here:
        return "folder"
    if recognised(path, {"flat": FLAT}):
        return "flat"
    return "dicom" if holds_dicom(path) else "folder"
