"""Cohorts with planted lesions: the same scans, with lesions of one size and contrast in them.

The counterpart of `atypia.cohort.corrupted` for lesions; the images are made when they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from atypia import files
from atypia.cohort.scan import Cohort, Scan
from atypia.errors import InputError
from atypia.simulation.planting import (
    PlantedParameters,
    apply_planted,
    check_lesion,
    planted_mask,
    sample_planted,
)
from atypia.volume import Volume

PER_SCAN = 3
"""Lesions that are planted into one scan, if they fit."""

BrainOf = Callable[[Scan], Volume | None]


def with_planted(
    cohort: Cohort,
    diameter_mm: float,
    contrast: float,
    per_scan: int = PER_SCAN,
    seed: int = 0,
    brain: BrainOf = Scan.brain,
) -> Cohort:
    """Plant lesions into every scan of a cohort.

    Parameters
    ----------
    cohort
        Healthy scans. The copies keep their brain mask, or have none as they had none.
    diameter_mm, contrast
        See `atypia.simulation.planting.PlantedParameters`.
    per_scan
        Lesions in one scan; fewer where no more fit, which the lesion mask tells.
    seed
        With the scan's name and the diameter it decides on places and forms: at another contrast
        they are the same lesions, only stronger or weaker.
    brain
        Gives the brain of a scan, on the grid of its images: the lesions lie in it. By default the
        scan's own mask.

    Raises
    ------
    SettingsError
        The diameter or the contrast is impossible.
    """
    check_lesion(diameter_mm, contrast)
    name = f"{diameter_mm:g}mm-{'darker' if contrast < 0 else 'brighter'}-{abs(contrast):g}"
    draw = partial(_drawn, diameter_mm=diameter_mm, contrast=contrast, count=per_scan, seed=seed)
    scans = tuple(_copy(scan, name, brain, draw) for scan in cohort)
    return Cohort(scans, f"{cohort.name} with lesions of {diameter_mm:g} mm at {contrast:+g}")


Draw = Callable[[Scan, Volume], tuple[PlantedParameters, ...]]


def _copy(scan: Scan, name: str, brain: BrainOf, draw: Draw) -> Scan:
    return replace(
        scan,
        images={modality: partial(_image, scan, modality, brain, draw) for modality in scan.images},
        lesion_mask=partial(_mask, scan, brain, draw),
        run="_".join(part for part in (scan.run, f"planted-{name}") if part),
        condition="planted",
    )


def _drawn(
    scan: Scan, brain: Volume, *, diameter_mm: float, contrast: float, count: int, seed: int
) -> tuple[PlantedParameters, ...]:
    number = int(files.digest(scan.dataset, scan.id, str(seed), f"{diameter_mm:g}"), 16)
    return sample_planted(brain, diameter_mm, contrast, count, np.random.default_rng(number))


def _image(scan: Scan, modality: str, brain: BrainOf, draw: Draw) -> Volume:
    inside = _brain(scan, brain)
    return apply_planted(scan.image(modality), inside, draw(scan, inside))


def _mask(scan: Scan, brain: BrainOf, draw: Draw) -> Volume:
    inside = _brain(scan, brain)
    return planted_mask(inside, draw(scan, inside))


def _brain(scan: Scan, brain: BrainOf) -> Volume:
    found = brain(scan)
    if found is None:
        raise InputError(
            f"scan {scan.id}",
            "has no brain mask, within which lesions could be planted",
            "Give one, e.g. the brain of a prediction",
        )
    return found
