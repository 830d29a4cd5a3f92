"""Preparing scans by a plan, in parallel, with a cache on disk that resumes and memory-maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atypia import files
from atypia.cohort.scan import Cohort, Scan
from atypia.errors import AtypiaError, InputError
from atypia.parallel import map_in_processes
from atypia.preprocessing.plan import Plan, Prepared
from atypia.progress import Progress, silent
from atypia.volume import Volume

CACHE_FORMAT = "2"


@dataclass(frozen=True)
class Failure:
    """A scan that could not be used, and the error that says why."""

    scan: Scan
    error: AtypiaError


def prepare(
    scan: Scan, plan: Plan, modality: str | None = None, cache: Path | None = None
) -> Prepared:
    """Prepare one scan, or take it from the cache.

    Parameters
    ----------
    scan
        Its image of `modality` and its brain mask are read.
    plan
        What to do.
    cache
        Folder of prepared scans, keyed by the plan and the scan's fingerprint.
    """
    if cache is None:
        return plan.apply(scan.image(modality), scan.brain())
    folder = place_in_cache(scan, plan, modality, cache)
    if not is_prepared(folder):
        prepared = plan.apply(scan.image(modality), scan.brain())
        _store(prepared, folder)
    return load_prepared(folder)


def place_in_cache(scan: Scan, plan: Plan, modality: str | None, cache: Path) -> Path:
    """Give the folder of a prepared scan in a cache, whether it is there yet or not."""
    return Path(cache) / files.digest(CACHE_FORMAT, plan.digest(), scan.fingerprint(modality))


def is_prepared(folder: Path) -> bool:
    """Tell whether a folder of a cache holds a prepared scan."""
    return (folder / "prepared.json").exists()


def load_prepared(folder: Path) -> Prepared:
    """Read a prepared scan from its folder in a cache; its image is memory-mapped.

    Raises
    ------
    InputError
        A file is missing or damaged.
    """
    try:
        return _load(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            folder, f"is a damaged prepared scan ({error})", "Delete it and prepare it again"
        ) from error


def prepare_all(
    cohort: Cohort,
    plan: Plan,
    modality: str | None = None,
    *,
    cache: Path | None = None,
    workers: int | None = 1,
    progress: Progress = silent,
) -> Iterator[Prepared | Failure]:
    """Prepare every scan of a cohort, in order, going on past bad ones.

    Parameters
    ----------
    workers
        Number of processes; None for one a core.

    Yields
    ------
    Prepared or Failure
        One a scan, in the order of the cohort.
    """
    jobs = [(scan, plan, modality, cache) for scan in cohort]
    results = map_in_processes(_attempt, jobs, workers, "prepare", progress)
    for job, result in zip(jobs, results, strict=True):
        # What lies in the cache is memory-mapped here instead of being sent between processes.
        yield prepare(*job) if result is None else result


def _attempt(job: tuple[Scan, Plan, str | None, Path | None]) -> Prepared | Failure | None:
    """Prepare one scan; give None when the result lies in the cache."""
    try:
        prepared = prepare(*job)
    except AtypiaError as error:
        return Failure(job[0], error)
    return prepared if job[3] is None else None


def _store(prepared: Prepared, folder: Path) -> None:
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        np.save(temporary / "image.npy", prepared.image.data)
        np.save(temporary / "brain.npy", prepared.brain.data)
        np.save(temporary / "native_brain.npy", np.packbits(prepared.native_brain.data))
        record = {
            "grid": prepared.image.geometry.to_json(),
            "native": prepared.native_brain.geometry.to_json(),
            "space": prepared.image.space,
            "native_space": prepared.native_brain.space,
            "source": prepared.image.source,
            "parameters": list(prepared.parameters),
        }
        files.write_json(temporary / "prepared.json", record)


def _load(folder: Path) -> Prepared:
    record: dict[str, Any] = files.read_json(folder / "prepared.json")
    affine, source = np.array(record["grid"]["affine"]), record["source"]
    space = record["space"]
    shape = tuple(record["native"]["shape"])
    bits = np.unpackbits(np.load(folder / "native_brain.npy"), count=int(np.prod(shape)))
    return Prepared(
        Volume(np.load(folder / "image.npy", mmap_mode="r"), affine, "image", source, space),
        Volume(np.load(folder / "brain.npy"), affine, "mask", source, space),
        Volume(
            bits.reshape(shape).view(bool),
            np.array(record["native"]["affine"]),
            "mask",
            source,
            record["native_space"],
        ),
        tuple(record["parameters"]),
    )
