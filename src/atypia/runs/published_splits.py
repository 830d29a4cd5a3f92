"""The parts of the published folds, read from their split tables, and what to do where they leak.

The tables that were published put people of the test sets into training folds, and people of
training folds into their validation sets. By default such folds are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from atypia.cohort import Cohort, Scan, open_cohort
from atypia.cohort.leakage import Overlap, Part, overlaps, people_in
from atypia.errors import CohortError, LeakageError, unknown_name

Leaking = Literal["refuse", "drop", "keep"]
"""Refuse folds that leak; drop from each part who is tested later; or keep them as published."""

HEALTHY = "IXI"
TEST_SETS: Mapping[str, tuple[str, ...]] = {
    "T2w": ("Brats21", "MSLUB", HEALTHY),
    "T1w": ("Brats21", "MSLUB", HEALTHY, "ATLAS_v2", "WMH"),
}
"""Modality -> the sets that its models are tested on."""

SAMPLE = {"train": 50, "val": 8, "test": 4}
"""Scans of each part in a trial, as published."""
MOST_NAMES = 10


@dataclass(frozen=True, eq=False)
class FoldParts:
    """Who is trained, calibrated and tested on in one fold.

    Parameters
    ----------
    fold
        Its number.
    train, healthy
        Healthy scans to learn from, and others to set the threshold by.
    labelled
        Test set -> its labelled validation scans, as far as there are any.
    tests
        Test set -> its scans; ill ones have the name of the set as their condition.
    shared
        Who stood in two parts of the published fold: left out of the earlier one, or kept.
    """

    fold: int
    train: Cohort
    healthy: Cohort
    labelled: Mapping[str, Cohort]
    tests: Mapping[str, Cohort]
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedData:
    """The data of the published experiments.

    Parameters
    ----------
    data_dir
        With `splits/`, `Train/` and `Test/`, or with `Data/` above them.
    modality
        ``"T1w"`` or ``"T2w"``.
    folds
        Numbers of the folds.
    leaking
        What to do with people who stand in two parts of a fold.
    test_sets
        Names of test sets; None for those of the modality.
    sample
        Take a few scans of each part only, to see that everything runs.
    """

    data_dir: Path
    modality: str
    folds: tuple[int, ...]
    leaking: Leaking = "refuse"
    test_sets: tuple[str, ...] | None = None
    sample: bool = False

    @property
    def wanted(self) -> tuple[str, ...]:
        """The test sets that were asked for."""
        usual = TEST_SETS[self.modality]
        names = {name.lower(): name for name in usual}
        for name in self.test_sets or ():
            if name.lower() not in names:
                raise unknown_name(f"{self.modality} test set", name, usual)
        return tuple(names[name.lower()] for name in self.test_sets or usual)

    def read(self) -> tuple[list[FoldParts], tuple[str, ...]]:
        """Read the tables.

        Returns
        -------
        list of FoldParts
            One a fold.
        tuple of str
            The test sets of which there is no table, or no scan of the modality.

        Raises
        ------
        CohortError
            A fold has no table.
        LeakageError
            Somebody stands in two parts of a fold, and `leaking` is ``"refuse"``.
        """
        tables = self._tables()
        there = [name for name in self.wanted if f"{name}_test".lower() in tables]
        missing = tuple(name for name in self.wanted if name not in there)
        if not there:
            raise CohortError(
                self.data_dir, f"has no test set of {self.modality}", "Check its splits"
            )
        folds = [self._fold(number, tables, there) for number in self.folds]
        if self.leaking != "refuse":
            return [self._without(fold) for fold in folds], missing
        leaks = {fold.fold: found for fold in folds if (found := _leaks(fold))}
        if leaks:
            shown = "; ".join(
                f"fold {number}: {_told(found)}"
                for number, all_of in leaks.items()
                for found in all_of
            )
            raise LeakageError(
                self.data_dir,
                f"people stand in two parts of a fold ({shown})",
                "Add --leaking drop, which leaves them out of training and calibration, or "
                "--leaking keep for the published folds as they are",
            )
        return folds, missing

    def _tables(self) -> dict[str, Cohort]:
        cohort = open_cohort(self.data_dir, "split_csv", self.modality)
        names = dict.fromkeys(scan.split for scan in cohort)
        return {name.lower(): cohort.where(split=name) for name in names}

    def _fold(self, fold: int, tables: Mapping[str, Cohort], there: Sequence[str]) -> FoldParts:
        needed = [f"{HEALTHY}_{part}_fold{fold}" for part in ("train", "val")]
        for name in needed:
            if name.lower() not in tables:
                raise CohortError(
                    self.data_dir,
                    f"has no table {name}.csv with {self.modality} scans",
                    "Check --folds and --modality",
                )
        train, healthy = (tables[name.lower()] for name in needed)
        labelled = {
            name: _named(tables[table], name)
            for name in there
            if name != HEALTHY and (table := f"{name}_val".lower()) in tables
        }
        return FoldParts(
            fold,
            self._some(replace(train, name=needed[0]), "train"),
            self._some(replace(healthy, name=needed[1]), "val"),
            {name: self._some(cohort, "val") for name, cohort in labelled.items()},
            {
                name: self._some(_named(tables[f"{name}_test".lower()], name), "test")
                for name in there
            },
        )

    def _some(self, cohort: Cohort, part: str) -> Cohort:
        return cohort.take(range(min(SAMPLE[part], len(cohort)))) if self.sample else cohort

    def _without(self, fold: FoldParts) -> FoldParts:
        """Leave whoever is in a later part out of the earlier ones, or tell only who they are."""
        told = tuple(f"fold {fold.fold}: {_told(found)}" for found in _leaks(fold))
        if self.leaking == "keep":
            return replace(fold, shared=told)
        tested = [scan for cohort in fold.tests.values() for scan in cohort]
        labelled = {name: _but(cohort, tested) for name, cohort in fold.labelled.items()}
        judged = [*tested, *(scan for cohort in labelled.values() for scan in cohort)]
        healthy = _but(fold.healthy, judged)
        train = _but(fold.train, [*judged, *healthy])
        for cohort, was in ((train, fold.train), (healthy, fold.healthy)):
            if not len(cohort):
                problem = "has nobody who stands in no later part"
                raise CohortError(was.name, problem, "Mend the split")
        labelled = {name: cohort for name, cohort in labelled.items() if len(cohort)}
        return replace(fold, train=train, healthy=healthy, labelled=labelled, shared=told)


def _leaks(fold: FoldParts) -> list[Overlap]:
    cohorts = [fold.train, fold.healthy, *fold.labelled.values(), *fold.tests.values()]
    # A part is named after its table; without a fold in it, it is of all folds.
    return overlaps([Part(cohort[0].split, cohort.scans) for cohort in cohorts if len(cohort)])


def _told(found: Overlap) -> str:
    names = ", ".join(found.subjects[:MOST_NAMES])
    more = len(found.subjects) - MOST_NAMES
    rest = f" and {more} more" if more > 0 else ""
    return f"{found.first} and {found.second} share {names}{rest}"


def _named(cohort: Cohort, name: str) -> Cohort:
    """Give ill scans the name of their set as their condition."""
    scans = tuple(
        scan if scan.condition == "healthy" else replace(scan, condition=name) for scan in cohort
    )
    return Cohort(scans, cohort[0].split)


def _but(cohort: Cohort, others: Iterable[Scan]) -> Cohort:
    taken = people_in(others).keys()
    kept = tuple(scan for scan in cohort if not people_in([scan]).keys() & taken)
    return Cohort(kept, cohort.name)
