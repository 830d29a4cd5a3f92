"""Commands that make cohorts: `atypia simulate` and `atypia split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from atypia.cli.shared import CohortOptions, Output, Workers, progress_bar
from atypia.cohort import Cohort
from atypia.cohort import split as split_cohort
from atypia.cohort.manifest import write_manifest
from atypia.cohort.simulated import write_simulated
from atypia.errors import OutputError, SettingsError
from atypia.simulation import SimulationSettings


def simulate(
    output: Path,
    *,
    n: int = 10,
    seed: int = 0,
    modality: Literal["T1w", "T2w", "FLAIR"] = "T2w",
    spacing_mm: float = 1.0,
    lesion: str | None = None,
    artefact: str | None = None,
    severity: float = 3.0,
    workers: Workers = None,
) -> int:
    """Write a cohort of simulated brains with a manifest; a lesion's truth is its lesion mask.

    Parameters
    ----------
    output
        A folder. Scans of these settings that are there already are kept.
    n
        Number of subjects.
    seed
        Subjects are numbered from here; the same number is the same anatomy, so give test
        cohorts other numbers than training cohorts.
    modality
        T1w, T2w or FLAIR.
    spacing_mm
        Voxel size.
    lesion
        tumour, stroke, white_matter_lesions or cavity; healthy if unset.
    artefact
        gaussian_noise, spike, periodic_line, ring, zipper, ghosting, motion, bias_field, top_chunk,
        middle_chunk, smoothing, gibbs, folding, bad_line, bad_point, empty_line, line_shift or
        susceptibility; none if unset.
    severity
        Of the artefact, 1 (barely visible) to 5 (gross).
    """
    if n < 1 or seed < 0:
        raise SettingsError("--n / --seed", f"{n} and {seed}", "Give n >= 1 and seed >= 0")
    if output.exists() and not output.is_dir():
        raise OutputError(output, "is a file", "Name a folder")
    settings = SimulationSettings.make(
        {
            "modality": modality,
            "spacing_mm": spacing_mm,
            "lesion": lesion,
            "artefact": artefact,
            "severity": severity,
        }
    )
    with progress_bar() as progress:
        jobs = [(settings, range(seed, seed + n))]
        cohort = write_simulated(jobs, output, workers=workers, progress=progress)
    print(f"{len(cohort)} simulated {modality} scans: {output / 'manifest.tsv'}")
    return 0


def split(
    cohort: Path,
    *,
    output: Output,
    parts: Annotated[tuple[str, ...], Parameter(negative="")] = ("train=0.75", "calibration=0.25"),
    seed: int = 0,
    modality: str | None = None,
    options: CohortOptions | None = None,
) -> int:
    """Divide a cohort by subject at random and write it as a manifest with a column `split`.

    Parameters
    ----------
    cohort
        A folder or manifest.
    output
        The manifest to write, .tsv or .csv.
    parts
        NAME=SHARE for each part; the shares sum to 1.
    seed
        Same seed, same parts.
    modality
        Keep only this one.
    """
    shares = {}
    for part in parts:
        name, _, share = part.partition("=")
        try:
            shares[name] = float(share)
        except ValueError as error:
            raise SettingsError(
                f"--parts {part}", "is not NAME=SHARE", "Write e.g. train=0.7"
            ) from error
    divided = split_cohort((options or CohortOptions()).open(cohort, modality), shares, seed)
    scans = [scan for part in divided.values() for scan in part]
    write_manifest(Cohort(tuple(scans), cohort.name), output)
    print(", ".join(f"{name}: {len(part)} scans" for name, part in divided.items()), f"in {output}")
    return 0
