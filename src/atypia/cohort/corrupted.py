"""Cohorts with a simulated artefact: the same scans, falsified when they are read.

IterMask3D's test of artefact detection: label 1 is the falsified copy, label 0 the same scan as it
is. The brain mask is the clean scan's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from atypia import files
from atypia.cohort.scan import Cohort, Scan, joined
from atypia.simulation import ARTEFACTS, add_artefact
from atypia.simulation.artefacts import canonical_name
from atypia.volume import Volume


def with_artefact(cohort: Cohort, name: str, severity: float, seed: int = 0) -> Cohort:
    """Falsify every scan of a cohort with one kind of artefact.

    Parameters
    ----------
    cohort
        Clean scans. Where they have no brain mask, the brain is looked for in the falsified scan.
    name
        See `atypia.simulation.ARTEFACTS`.
    severity
        1 barely visible, 3 clear, 5 gross.
    seed
        With the scan's name it decides what is random in the artefact: the same seed at a higher
        severity is the same artefact, only stronger.

    Raises
    ------
    SettingsError
        The artefact is unknown.
    """
    known = canonical_name(name)
    scans = tuple(_falsified(scan, known, severity, seed) for scan in cohort)
    return Cohort(scans, f"{cohort.name} with {known} {severity:g}")


def falsified(cohort: Cohort, names: Sequence[str], severity: float) -> Cohort:
    """Falsify every scan of a cohort in several ways, one copy a way; "all" for every artefact.

    Raises
    ------
    SettingsError
        An artefact is unknown.
    """
    chosen = list(ARTEFACTS) if "all" in names else list(dict.fromkeys(names))
    return joined(*(with_artefact(cohort, name, severity) for name in chosen))


def _falsified(scan: Scan, name: str, severity: float, seed: int) -> Scan:
    number = int(files.digest(scan.dataset, scan.id, str(seed)), 16) % 2**31
    images = {
        modality: partial(_image, partial(scan.image, modality), scan.brain, name, severity, number)
        for modality in scan.images
    }
    run = "_".join(part for part in (scan.run, f"{name}-{severity:g}") if part)
    return replace(scan, images=images, run=run, condition=name)


def _image(
    image: Callable[[], Volume],
    brain: Callable[[], Volume | None],
    name: str,
    severity: float,
    seed: int,
) -> Volume:
    return add_artefact(image(), name, severity, seed, brain())
