"""Cohorts of simulated subjects, made when they are asked for or written as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from atypia import io
from atypia.cohort.manifest import write_manifest
from atypia.cohort.scan import Cohort, Scan
from atypia.parallel import map_in_processes
from atypia.progress import Progress, silent
from atypia.simulation import SimulatedSubject, SimulationSettings, simulate_subject
from atypia.volume import Volume


def simulated_cohort(settings: SimulationSettings, seeds: Sequence[int]) -> Cohort:
    """Describe simulated scans, one a seed; a volume is simulated anew each time it is loaded.

    The seed is the subject: the same seed with another lesion or artefact is the same person, so
    the leakage check sees it.
    """
    scans = []
    for seed in seeds:
        subject = partial(simulate_subject, settings, seed)
        scans.append(
            Scan(
                subject=f"sim-{seed:05d}",
                run=condition_of(settings),
                images={settings.modality: partial(_image, subject)},
                dataset="atypia-simulation",
                brain_mask=partial(_brain, subject),
                lesion_mask=partial(_lesion, subject) if settings.lesion else None,
                condition=condition_of(settings),
                site=site_of(settings),
            )
        )
    return Cohort(tuple(scans), f"simulated {settings.modality}")


def condition_of(settings: SimulationSettings) -> str:
    """Name what is wrong with a simulated scan: lesion, artefact, both, or healthy."""
    return "+".join(n for n in (settings.lesion, settings.artefact) if n) or "healthy"


def site_of(settings: SimulationSettings) -> str:
    """Name where a simulated scan comes from: strata tell the two generators of anatomy apart."""
    return "simulated" if settings.anatomy == "usual" else f"simulated, {settings.anatomy} anatomy"


def write_simulated(
    cohort_settings: Sequence[tuple[SimulationSettings, Sequence[int]]],
    folder: str | Path,
    *,
    workers: int | None = 1,
    progress: Progress = silent,
) -> Cohort:
    """Simulate scans into a folder with a manifest; scans that are there already are kept.

    Parameters
    ----------
    cohort_settings
        Settings, and the seeds to simulate with them.
    folder
        Gets `manifest.tsv` and one folder a scan.
    workers
        Number of processes; None for one a core.

    Returns
    -------
    Cohort
        Of the files.
    """
    folder = Path(folder)
    jobs = [(settings, seed) for settings, seeds in cohort_settings for seed in seeds]
    work = partial(_written, folder)
    scans = tuple(map_in_processes(work, jobs, workers, "simulate", progress))
    cohort = Cohort(scans, folder.name)
    write_manifest(cohort, folder / "manifest.tsv")
    return cohort


def _written(folder: Path, job: tuple[SimulationSettings, int]) -> Scan:
    settings, seed = job
    condition = condition_of(settings)
    # The digest tells scans of other settings apart, so that a resumed run never mixes them.
    place = folder / f"sim-{seed:05d}_{condition}_{settings.digest()[:6]}"
    paths = {
        "image": place / f"{settings.modality}.nii.gz",
        "brain": place / "brain_mask.nii.gz",
        "lesion": place / "lesion_mask.nii.gz",
    }
    if not all(path.exists() for path in paths.values()):
        subject = simulate_subject(settings, seed)
        io.write(subject.brain, paths["brain"])
        io.write(subject.lesion, paths["lesion"])
        io.write(subject.image, paths["image"])
    return Scan(
        subject=f"sim-{seed:05d}",
        run=condition,
        images={settings.modality: paths["image"]},
        dataset="atypia-simulation",
        brain_mask=paths["brain"],
        lesion_mask=paths["lesion"],
        condition=condition,
        site=site_of(settings),
    )


def _image(subject: Callable[[], SimulatedSubject]) -> Volume:
    return subject().image


def _brain(subject: Callable[[], SimulatedSubject]) -> Volume:
    return subject().brain


def _lesion(subject: Callable[[], SimulatedSubject]) -> Volume:
    return subject().lesion
