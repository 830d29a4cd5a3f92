"""Running a power report: lesions planted into healthy scans, and a detector that looks for them.

Every scan is predicted clean, and once a cell (diameter and contrast) with lesions in it, each time
through the detector's whole path, preprocessing included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from atypia import files
from atypia.cohort.planted import PER_SCAN, with_planted
from atypia.cohort.scan import Cohort, Scan
from atypia.cohort.splits import require_disjoint
from atypia.detectors.base import Detector
from atypia.detectors.prediction import Prediction, apply_calibration
from atypia.errors import AtypiaError, CohortError, InputError, ModelError, SettingsError
from atypia.evaluation.lesion_figures import components, needed_voxels
from atypia.evaluation.power import CONTRASTS, DIAMETERS_MM, Cell, Design, Power
from atypia.progress import Progress, silent
from atypia.volume import Array, Volume

FORMAT = "2"
"""Grows when work that an older atypia has kept cannot be used any more."""


@dataclass(frozen=True, eq=False)
class Example:
    """One scan as it is and with lesions planted.

    Parameters
    ----------
    diameter_mm, contrast
        Of the lesions.
    clean, planted
        The image is read when it is asked for; the planted scan has the true lesion mask.
    modality
        Of the image that the detector looks at.
    brain
        In which the lesions lie.
    """

    diameter_mm: float
    contrast: float
    clean: Scan
    planted: Scan
    modality: str
    brain: Volume


def power_of(
    detector: Detector,
    healthy: Cohort,
    *,
    diameters_mm: Sequence[float] = DIAMETERS_MM,
    contrasts: Sequence[float] = CONTRASTS,
    lesions_per_scan: int = PER_SCAN,
    least_overlap: float = 0.0,
    most_scans: int | None = None,
    seed: int = 0,
    work: Path | None = None,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Power:
    """Plant lesions into healthy scans, and count which of them a detector finds.

    Parameters
    ----------
    detector
        Fitted and calibrated.
    healthy
        Scans of nobody whom the detector was trained on. People of its calibration may be among
        them, and are counted.
    diameters_mm, contrasts
        See `atypia.simulation.planting.PlantedParameters`; every pair of them is a cell.
    lesions_per_scan
        Planted into one scan at once, if they fit. Their places are the same for every contrast.
    least_overlap
        See `atypia.evaluation.lesion_figures.lesion_figures`.
    most_scans
        So many scans, drawn by the seed; all of them if unset.
    seed
        Of places, forms, and the scans that are drawn.
    work
        Folder with one file a scan: what is done there already, with the same detector,
        calibration and scan, is kept. None to keep nothing.
    cache
        Folder of prepared scans, for the clean ones.

    Returns
    -------
    Power
        A scan that failed stands in `failed` and counts in no cell.

    Raises
    ------
    ModelError
        There is no calibration.
    LeakageError
        A subject was used for training.
    CohortError
        There is no scan, or one is labelled abnormal.
    SettingsError
        A lesion, number or share that cannot be.
    """
    calibration = detector.calibration
    if calibration is None:
        raise ModelError(detector.method, "is not calibrated", "Run `atypia calibrate` first")
    design = Design(tuple(diameters_mm), tuple(contrasts), lesions_per_scan, least_overlap, seed)
    chosen = _chosen(healthy, most_scans, seed)
    chosen.require_healthy("a power report")
    require_disjoint(chosen, detector.trained_on["people"], "power", "training")
    totals = design.cells
    clean: list[int] = []
    done: list[Scan] = []
    failed: dict[str, str] = {}
    steps = len(totals)
    progress("power", 0, steps * len(chosen))
    for number, scan in enumerate(chosen):
        tell = partial(_told, progress, scan.id, number * steps, steps * len(chosen))
        try:
            flagged, cells = _of_scan(detector, scan, design, work, cache, tell)
        except AtypiaError as error:
            failed[scan.id] = str(error)
        else:
            totals = tuple(t.plus(cell) for t, cell in zip(totals, cells, strict=True))
            clean.append(flagged)
            done.append(scan)
        tell(steps)
    return Power(
        method=detector.method,
        modality=detector.trained_on["modality"],
        cohort=healthy.name,
        threshold=calibration.threshold,
        scans=tuple(scan.id for scan in done),
        calibrated=sum(scan.person in calibration.people for scan in done),
        clean_components=tuple(clean),
        cells=totals,
        design=design,
        failed=failed,
    )


def examples(
    detector: Detector, healthy: Cohort, power: Power, cache: Path | None = None
) -> Iterator[Example]:
    """Give one scan with planted lesions for every diameter, at the strongest contrast."""
    scan = next((scan for scan in healthy if scan.id in power.scans), None)
    if scan is None:
        return
    brain = detector._prepared(scan, cache)[1].native_brain
    modality = scan.modality(detector.trained_on["modality"])
    contrast = max(power.design.contrasts, key=abs)
    for diameter in power.design.diameters_mm:
        planted = _planted(scan, brain, Cell(diameter, contrast), power.design)
        yield Example(diameter, contrast, scan, planted, modality, brain)


def _told(progress: Progress, name: str, before: int, total: int, cells: int) -> None:
    progress("power", before + cells, total, name)


def _chosen(healthy: Cohort, most: int | None, seed: int) -> Cohort:
    """Draw so many scans; a scan's luck does not depend on which others there are."""
    if most is not None and most < 1:
        raise SettingsError("most_scans", f"{most}", "Give 1 or more, or leave it out")
    if not len(healthy):
        raise CohortError(healthy.name, "has no scans", "Give at least one healthy scan")

    def luck(number: int) -> str:
        return files.digest(healthy[number].dataset, healthy[number].id, str(seed), "power")

    numbers = sorted(range(len(healthy)), key=luck)[:most]
    return healthy.take(sorted(numbers))


def _of_scan(
    detector: Detector,
    scan: Scan,
    design: Design,
    work: Path | None,
    cache: Path | None,
    tell: Callable[[int], None],
) -> tuple[int, tuple[Cell, ...]]:
    """Give the components that are found in the clean scan, and the lesions found in every cell."""
    place = None if work is None else work / f"{scan.id}.json"
    key = _key(detector, scan, design)
    record = _kept(place, key)
    if any(_name(cell) not in record["cells"] for cell in design.cells):
        clean, brain = _predicted(detector, scan, cache)
        record["clean_components"] = components(clean.data)[1]
        truths: dict[float, _Truth] = {}
        for number, cell in enumerate(design.cells, start=1):
            if _name(cell) not in record["cells"]:
                planted = _planted(scan, brain, cell, design)
                if cell.diameter_mm not in truths:
                    truths[cell.diameter_mm] = _Truth.of(planted)
                truth = truths[cell.diameter_mm]
                counted = _counted(detector, planted, cell, truth, clean, design.least_overlap)
                record["cells"][_name(cell)] = asdict(counted)
                # After every cell: a killed run goes on from here.
                if place is not None:
                    files.write_json(place, record)
            tell(number)
    cells = tuple(Cell(**record["cells"][_name(cell)]) for cell in design.cells)
    return record["clean_components"], cells


@dataclass(frozen=True, eq=False)
class _Truth:
    """The lesions of one scan and diameter: where, and which voxel belongs to which one."""

    mask: Array
    numbers: Array
    count: int

    @classmethod
    def of(cls, planted: Scan) -> _Truth:
        """Tell the lesions of a scan apart."""
        lesion = planted.lesion()
        assert lesion is not None
        labels, count = components(lesion.data)
        return cls(lesion.data, labels[lesion.data], count)

    def found_in(self, mask: Array, least_overlap: float) -> Array:
        """Tell which lesions a mask finds, as `lesion_figures` does: `(count,)` boolean."""
        sizes = np.bincount(self.numbers, minlength=self.count + 1)[1:]
        held = np.bincount(self.numbers[mask[self.mask]], minlength=self.count + 1)[1:]
        return np.asarray(held >= needed_voxels(sizes, least_overlap))


def _counted(
    detector: Detector, planted: Scan, cell: Cell, truth: _Truth, clean: Volume, least: float
) -> Cell:
    if not truth.count:
        return cell
    # Not into the cache of prepared scans: nobody asks for these again.
    mask, _ = _predicted(detector, planted, None)
    before = truth.found_in(clean.data, least)
    found = truth.found_in(mask.data, least) & ~before
    return replace(
        cell, planted=truth.count, found_before=int(before.sum()), found=int(found.sum())
    )


def _planted(scan: Scan, brain: Volume, cell: Cell, design: Design) -> Scan:
    one = Cohort((scan,), scan.id)
    return with_planted(
        one,
        cell.diameter_mm,
        cell.contrast,
        design.lesions_per_scan,
        design.seed,
        brain=lambda _: brain,
    )[0]


def _predicted(detector: Detector, scan: Scan, cache: Path | None) -> tuple[Volume, Volume]:
    """Give the calibrated mask and the brain mask on the scan's own grid."""
    score_map, score, brain = detector._scored(scan, cache)
    found = apply_calibration(Prediction(scan, score_map, brain, score), detector.calibration)
    assert found.mask is not None
    return found.mask, brain


def _key(detector: Detector, scan: Scan, design: Design) -> str:
    """Give a digest of all that the figures of a scan's cells depend on."""
    assert detector.calibration is not None
    return files.digest(
        FORMAT,
        detector.digest(),
        detector.calibration.digest(),
        scan.dataset,
        scan.fingerprint(detector.trained_on["modality"]),
        str((design.lesions_per_scan, design.least_overlap, design.seed)),
    )


def _kept(place: Path | None, key: str) -> dict[str, Any]:
    """Read what is kept of a scan; nothing where it belongs to other settings or is damaged."""
    if place is not None and place.exists():
        with suppress(InputError):
            record = files.read_json(place)
            if isinstance(record, dict) and record.get("key") == key:
                return record
    return {"key": key, "cells": {}}


def _name(cell: Cell) -> str:
    return f"{cell.diameter_mm:g} mm {cell.contrast:+g}"
