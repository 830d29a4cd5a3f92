"""Folders of DICOM series, one folder a subject; the folder's name is the subject's."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from pathlib import Path

from atypia.cohort.scan import Cohort, Scan, modality_in
from atypia.cohort.trees import LOOKED_AT
from atypia.errors import CohortError, InputError
from atypia.io.dicom import Series, find_series
from atypia.io.dicom_frames import is_dicom


def holds_dicom(path: Path) -> bool:
    """Tell whether DICOM is among the first files of a folder, at any depth."""
    return any(is_dicom(file) for file in islice(path.rglob("*"), LOOKED_AT))


def read_dicom(path: Path, modality: str | None = None) -> Cohort:
    """Read a folder with one folder for each subject, or the folder of one subject.

    Only headers are read. Which modality a series shows is told from its description; localisers
    show none. A folder whose files are damaged is a scan, so that the others can be done; reading
    it is the error.

    Parameters
    ----------
    path
        The folder; when slices lie directly in it, it is the one subject.
    modality
        Keep only this one. A subject's only series is taken to have it, unless its description
        names another.

    Raises
    ------
    CohortError
        A subject has several series, and their descriptions do not tell which is which.
    """
    children = sorted(path.iterdir())
    alone = any(is_dicom(file) for file in children if file.is_file())
    folders = [path] if alone else [c for c in children if c.is_dir() and c.name[0] != "."]
    scans = []
    for folder in folders:
        try:
            series = find_series(folder)
        except InputError:
            images = {modality or "image": folder}
        else:
            images = _images(folder, series, modality)
        if images:
            place = folder.resolve()
            scans.append(Scan(place.name, images, dataset=place.parent.name))
    return Cohort(tuple(scans), path.resolve().name)


def _images(folder: Path, series: list[Series], modality: str | None) -> dict[str, Path]:
    if len(series) == 1:
        shows = modality_in(series[0].description)
        fits = modality is None or shows in (modality, None)
        return {modality or shows or "image": series[0].path} if fits else {}
    shown: dict[str | None, list[Series]] = defaultdict(list)
    for one in series:
        if not one.localiser:
            shown[modality_in(one.description)].append(one)
    if modality is None:
        clear = None not in shown and all(len(several) == 1 for several in shown.values())
    else:
        clear = len(shown.get(modality, ())) <= 1
    if not clear:
        listed = "; ".join(map(str, series))
        remedy = "Name the modality, or list in a manifest which series to take"
        raise CohortError(folder, f"holds {len(series)} series: {listed}", remedy)
    return {m: several[0].path for m, several in shown.items() if m and modality in (None, m)}
