"""The scans on which the shipped weights are judged: real ones by contrast, and simulated ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from atypia import io
from atypia.cohort import Cohort, Scan
from atypia.cohort.simulated import write_simulated
from atypia.resampling import resample
from atypia.simulation import SimulationSettings
from atypia.volume import Volume
from benchmarks.weights import real_healthy

CONTRASTS = ("T1w", "T2w", "FLAIR")
LESIONS = ("tumour", "stroke", "white_matter_lesions")
VISITS = ("P14_T1", "P14_T2", "P18_T1")
CASES = ("TCGA-DU-7294", "OtherEXampleFromTCIA")
_MSLESSEG = {"T1w": "T1", "T2w": "T2", "FLAIR": "FLAIR"}
_TCGA = {"T1w": "t1", "T2w": "t2", "FLAIR": "fla"}
_CSTAR = {"T1w": "T1", "T2w": "T2", "FLAIR": "FLAIR"}


def real_scans(data: Path, contrast: str) -> Cohort:
    """List the real scans of a contrast: healthy hold-outs, raw heads, and those with lesions."""
    scans = [*_healthy(data, contrast), *_multiple_sclerosis(data, contrast)]
    for case in CASES:
        place = data / "tcga" / case
        image = place / f"{case}_{_TCGA[contrast]}_bet.nii.gz"
        mask = place / f"{case}_autoseg_SIMPLE.nii.gz"
        scans.append(_scan(case, contrast, image, mask, "glioma (automatic mask)", "TCGA"))
    stroke = data / "stroke"
    if contrast == "T2w":
        image = stroke / "clinical_T2.nii.gz"
        mask = stroke / "clinical_T2_lesion.nii.gz"
        scans.append(_scan("clinical", contrast, image, mask, "stroke (raw head)", "clinical"))
    if contrast == "FLAIR":
        name = "isles22_sub-strokecase0009_ses-0001"
        image = stroke / f"{name}_flair.nii.gz"
        drawn = partial(_on_grid_of, stroke / f"{name}_msk.nii.gz", image)
        scans.append(_scan("isles22", contrast, image, drawn, "stroke (acute)", "ISLES22"))
    image = stroke / f"cstar_{_CSTAR[contrast]}.nii.gz"
    scans.append(_scan("cstar", contrast, image, None, "chronic stroke (no mask)", "C-STAR"))
    return Cohort(tuple(scans), f"real {contrast}")


def simulated_scans(folder: Path, contrast: str, each: int, spacing: float) -> Cohort:
    """Simulate healthy brains and lesions of generators that nothing was learnt from."""
    settings = SimulationSettings(modality=contrast, spacing_mm=spacing)
    wanted = [(settings, range(345_000, 345_000 + 2 * each))]
    for number, lesion in enumerate(LESIONS):
        first = 340_000 + 1000 * number
        wanted.append((settings.but(lesion=lesion), range(first, first + each)))
    return write_simulated(wanted, folder / contrast, workers=2)


def _healthy(data: Path, contrast: str) -> list[Scan]:
    scans = []
    if contrast == "T1w":
        divided = real_healthy(data)
        held_out = [] if divided is None else list(divided[1])
        scans += [replace(scan, condition="healthy", site="ds002748") for scan in held_out]
        for image in sorted((data / "raw" / "ds002748").glob("*_T1w.nii.gz")):
            subject = image.name.split("_")[0]
            raw = _scan(subject, contrast, image, None, "healthy", "ds002748, full resolution")
            scans.append(replace(raw, session="raw", dataset="ds002748"))
    names = {"T1w": "T1w", "T2w": "inplaneT2"}
    if contrast in names:
        for image in sorted((data / "raw" / "ds011").glob(f"*_{names[contrast]}.nii.gz")):
            subject = f"ds000011-{image.name.split('_')[0]}"
            scans.append(_scan(subject, contrast, image, None, "healthy", "ds000011, raw heads"))
    return scans


def _multiple_sclerosis(data: Path, contrast: str) -> list[Scan]:
    scans = []
    for visit in VISITS:
        image = data / "mslesseg" / f"{visit}_{_MSLESSEG[contrast]}.nii.gz"
        if not image.exists():
            continue
        subject, session = visit.split("_")
        mask = data / "mslesseg" / f"{visit}_MASK.nii.gz"
        scan = _scan(subject, contrast, image, mask, "multiple sclerosis", "MSLesSeg")
        # P14_T2's T1 was stripped badly (2.6 litres are left); its FLAIR on the same grid well.
        brain = data / "mslesseg" / f"{visit}_FLAIR.nii.gz"
        scans.append(replace(scan, session=session, brain_mask=brain))
    return scans


def _scan(subject: str, contrast: str, image: Path, mask: Any, condition: str, source: str) -> Scan:
    return Scan(
        subject,
        {contrast: image},
        dataset=source,
        lesion_mask=mask,
        condition=condition,
        site=source,
    )


def _on_grid_of(mask: Path, image: Path) -> Volume:
    """Bring a mask that was drawn on another image of the visit onto the grid of this one."""
    return resample(io.read(mask, "mask"), io.read(image).geometry)
