"""A plain folder: every image in it is a scan; masks are recognised by their endings."""

from __future__ import annotations

from pathlib import Path

from atypia import io
from atypia.cohort.scan import SPELLINGS, Cohort, Scan
from atypia.errors import CohortError

BRAIN_ENDINGS = ("_brain_mask", "_brainmask", "_brain-mask")
LESION_ENDINGS = ("_lesion_mask", "_lesion", "_seg", "_label", "_roi", "_mask")


def read_folder(path: Path, modality: str | None = None) -> Cohort:
    """Read a folder of images.

    `NAME.nii.gz` is the scan of subject NAME; `NAME_brain_mask.nii.gz` and
    `NAME_lesion_mask.nii.gz` (and the usual other endings) are its masks. An ending that is a
    modality (`NAME_T1w.nii.gz`) names the modality and is not part of the subject's name.

    Parameters
    ----------
    path
        The folder; subfolders are not searched.
    modality
        What images with no modality in their name show; keep only this one otherwise.
    """
    stems: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        # Hidden files are leftovers of other programs, e.g. the "._NAME" of macOS.
        if io.suffix_of(file) and file.is_file() and not file.name.startswith("."):
            if io.stem_of(file) in stems:
                raise CohortError(file, "stands beside a twin of the same name", "Keep one of both")
            stems[io.stem_of(file)] = file
    brains, lesions, images = {}, {}, {}
    for stem, file in stems.items():
        if brain := _without(stem, BRAIN_ENDINGS):
            brains[brain] = file
        elif lesion := _without(stem, LESION_ENDINGS):
            lesions[lesion] = file
        else:
            images[stem] = file
    scans: dict[str, dict[str, Path]] = {}
    for stem, file in images.items():
        subject, _, ending = stem.rpartition("_")
        shows = SPELLINGS.get(ending.lower()) if subject else None
        name = subject if shows else stem
        shows = shows or modality or "image"
        if modality in (None, shows):
            if shows in scans.setdefault(name, {}):
                raise CohortError(file, f"is a second {shows} of {name}", "Keep one of both")
            scans[name][shows] = file
    return Cohort(
        tuple(
            Scan(
                subject=name,
                images=files,
                dataset=path.resolve().name,
                brain_mask=_mask_of(name, files, brains),
                lesion_mask=_mask_of(name, files, lesions),
            )
            for name, files in scans.items()
        ),
        path.resolve().name,
    )


def _without(stem: str, endings: tuple[str, ...]) -> str | None:
    ending = next((e for e in endings if stem.lower().endswith(e)), None)
    return stem[: -len(ending)] if ending else None


def _mask_of(name: str, files: dict[str, Path], masks: dict[str, Path]) -> Path | None:
    stems = [name, *(io.stem_of(file) for file in files.values())]
    return next((masks[stem] for stem in stems if stem in masks), None)
