"""Scans to learn from: how they are prepared, what identifies a run on them, who is held out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from atypia import __version__, files
from atypia.cohort.scan import Cohort
from atypia.errors import CohortError, ModelError
from atypia.preprocessing import Failure, Plan, Prepared, make_plan
from atypia.preprocessing.presets import Alignment
from atypia.settings import Settings
from atypia.simulation.contrast import ANY

PEOPLE = "people.json"
"""In a training folder and beside snapshots: who was learnt from."""


class PreparationSettings(Settings):
    """What the plan of a cohort can be told."""

    modality: str | None = None
    """Which images of a scan; needed only when scans have several. "any": the only image of each
    scan, whatever its contrast, here and when the model is used."""
    preprocessing: str = "atypia"
    """Name of a preset (atypia, ifl, itermask3d, mhd, patches), or path of a plan's JSON."""
    spacing_mm: float | None = Field(None, ge=0.5, le=16)
    """Voxel size of the working grid; none: the preset's, which is 2 mm for atypia."""
    align: Alignment | None = None
    """Registration to the MNI152 template: affine, rigid, centre (a shift only), or none when all
    scans share one space already; not given: the preset's, which is affine for atypia."""

    def plan_for(self, cohort: Cohort, modality: str) -> Plan:
        """Plan the preprocessing of a cohort."""
        return make_plan(
            cohort,
            preset=self.preprocessing,
            spacing_mm=self.spacing_mm,
            align=self.align,
            modality=modality,
        )


def identified_plan(
    cohort: Cohort, settings: PreparationSettings, *parts: str
) -> tuple[Plan, str, str]:
    """Decide how a cohort is prepared, and what identifies a run that learns from it.

    Parameters
    ----------
    parts
        What else the run depends on, such as the name of its method.

    Returns
    -------
    tuple
        Plan, modality, and a digest of version, `parts`, settings, plan and scans.

    Raises
    ------
    CohortError
        The cohort has no scans.
    """
    if not len(cohort):
        raise CohortError(cohort.name, "has no scans", "Give at least one healthy scan")
    # A model of any contrast learns from scans of all of them, and remembers that.
    modality = ANY if settings.modality == ANY else cohort[0].modality(settings.modality)
    plan = settings.plan_for(cohort, modality)
    prints = [scan.fingerprint(modality) for scan in cohort]
    identity = files.digest(__version__, *parts, settings.digest(), plan.digest(), *prints)
    return plan, modality, identity


def all_prepared(results: Sequence[Prepared | Failure], cohort: Cohort) -> list[Prepared]:
    """Give the prepared scans of a cohort.

    Raises
    ------
    CohortError
        Some cannot be used; the first five are named.
    """
    failures = [r for r in results if isinstance(r, Failure)]
    if failures:
        shown = "; ".join(f"{f.error.where}: {f.error.problem}" for f in failures[:5])
        raise CohortError(
            cohort.name,
            f"{len(failures)} of {len(cohort)} scans cannot be used ({shown})",
            "Mend them or leave them out; prepared scans are kept",
        )
    return [r for r in results if isinstance(r, Prepared)]


def divided(
    scans: Sequence[Prepared], share: float, seed: int
) -> tuple[list[Prepared], list[Prepared]]:
    """Divide scans by chance into those to learn from and those kept for validation.

    The same scans, share and seed give the same division to every method, so that what one method
    starts from another has not seen the second one's validation scans either.

    Parameters
    ----------
    share
        Kept for validation: at least one scan unless it is 0. A single scan serves for both.
    """
    order = np.random.default_rng([seed, 7]).permutation(len(scans))
    kept = round(share * len(order))
    if share:
        kept = max(1, kept)
    held_out = [scans[i] for i in order[:kept]]
    return [scans[i] for i in order[kept:]] or held_out, held_out


def begin(folder: Path, identity: str, start: Path | None, people: Iterable[str]) -> set[str]:
    """Note in a training folder who is learnt from, and begin where another run stands.

    Parameters
    ----------
    folder
        Of the unfinished run.
    start
        A snapshot or checkpoint of another run, or None.
    people
        Learnt from in this run.

    Returns
    -------
    set of str
        Those behind the start.

    Raises
    ------
    ModelError
        The start cannot be read, or nothing beside it tells whom it has learnt from.
    OutputError
        The folder holds the checkpoint of another run.
    """
    before: set[str] = set()
    if start is not None:
        known = [place / PEOPLE for place in (start.parent, start.parent.parent)]
        told = next((place for place in known if place.exists()), None)
        if told is None:
            problem = f"has no {PEOPLE} beside it, which tells whom it has learnt from"
            raise ModelError(start, problem, "Leave snapshots in the folder of their model")
        before = set(files.read_json(told))
    if start is not None or (folder / PEOPLE).exists():
        # Only where training is asked for: it costs torch.
        from atypia.training.checkpoint import require_same_run, start_from

        # Before anything is written: a folder of another run must keep telling of its own people.
        require_same_run(folder, identity)
        if start is not None:
            start_from(start, folder, identity)
    files.write_json(folder / PEOPLE, sorted(before | set(people)))
    return before


def digest_of_start(start: Path) -> str:
    """Give the digest of a snapshot or checkpoint.

    Raises
    ------
    ModelError
        It cannot be read.
    """
    try:
        return files.sha256(start)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(start, f"cannot be read ({reason})", "Check the path") from error
