"""Commands that make and check cohorts: `atypia simulate`, `atypia split`, `atypia leakage`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from atypia.cli.shared import CohortOptions, Output, Workers, progress_bar
from atypia.cohort import Cohort, open_cohort
from atypia.cohort import folds as make_folds
from atypia.cohort import split as split_cohort
from atypia.cohort.leakage import overlaps, parts_of
from atypia.cohort.manifest import write_manifest
from atypia.cohort.simulated import write_simulated
from atypia.cohort.strata import STRATA, Strata
from atypia.errors import OutputError, SettingsError
from atypia.simulation import SimulationSettings
from atypia.simulation.contrast import Modality


def simulate(
    output: Path,
    *,
    n: int = 10,
    seed: int = 0,
    modality: Modality = "T2w",
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
        T1w, T2w, FLAIR, or any: a random contrast, resolution and field of view for each scan.
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
    folds: int | None = None,
    stratify: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = STRATA,
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
    folds
        Write so many manifests, NAME_fold0.tsv and so on: each tests other subjects (part test),
        and divides the rest into the parts.
    stratify
        Every part gets its share of these: site, sex, age (in four bins). With --empty-stratify,
        chance alone decides.
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
    scans = (options or CohortOptions()).open(cohort, modality)
    if folds is None:
        divided = {output: split_cohort(scans, shares, seed, stratify)}
    else:
        made = make_folds(scans, folds, shares, seed, stratify)
        divided = {
            output.with_name(f"{output.stem}_fold{i}{output.suffix}"): one
            for i, one in enumerate(made)
        }
    for path, of_name in divided.items():
        everyone = tuple(scan for part in of_name.values() for scan in part)
        write_manifest(Cohort(everyone, scans.name), path)
        told = ", ".join(f"{name}: {len(part)} scans" for name, part in of_name.items())
        print(told, f"in {path}")
    if stratify:
        strata = Strata.of(scans, stratify)
        _tell(strata, next(iter(divided.values())), folds or len(shares))
    return 0


def leakage(
    files: Annotated[tuple[Path, ...], Parameter(negative="")],
    /,
    *,
    any_dataset: Annotated[bool, Parameter(negative="")] = False,
    names: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Find people who stand in several parts of a split; exit code 1 if there are any.

    Parameters
    ----------
    files
        Manifests, published split tables (.csv), or folders. A column `split` names parts, and
        foldN in a name the fold: other folds may train on what one tests.
    any_dataset
        The same subject in two data sets is one person too.
    names
        Name all subjects, not how many.
    """
    parts = [part for path in files for part in parts_of(path, open_cohort(path))]
    found = overlaps(parts, any_dataset)
    for overlap in found:
        told = f": {', '.join(overlap.subjects)}" if names else ""
        people = f"{len(overlap.subjects)} subject{'s' if len(overlap.subjects) > 1 else ''}"
        print(f"{overlap.first} and {overlap.second} share {people}{told}")
    scans = sum(len(part.scans) for part in parts)
    print(f"{len(parts)} parts with {scans} scans: {len(found)} overlaps")
    return 1 if found else 0


def _tell(strata: Strata, parts: dict[str, Cohort], number: int) -> None:
    """Print how many people of each kind each part has, and which strata were too small."""
    table = strata.table(parts)
    width = max(map(len, table))
    columns = [max(6, len(name)) for name in parts]
    heads = (f"{name:>{w}}" for name, w in zip(parts, columns, strict=True))
    print(f"{'people':<{width}}", *heads)
    for what, row in table.items():
        counts = (f"{n:>{w}}" for n, w in zip(row.values(), columns, strict=True))
        print(f"{what:<{width}}", *counts)
    if small := strata.small(number):
        shown = "; ".join(f"{', '.join(label)}: {n}" for label, n in list(small.items())[:5])
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        print(
            f"{len(small)} strata have fewer people than parts and share with the next: "
            f"{shown}{more}"
        )
