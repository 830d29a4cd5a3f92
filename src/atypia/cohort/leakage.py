"""Leakage: people who stand in several parts of a split, looked for in manifests and split tables.

Two scans are of one person if data set and subject are the same, or if they are the same file.
The name of a part tells its role and, with `foldN` in it, its fold. What one fold trains on,
another may test; but two parts of one fold must not share a person, nor may the parts that two
folds test: they would be no partition.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from atypia import io
from atypia.cohort.scan import Cohort, Scan
from atypia.cohort.split_csv import is_split_csv

TRAINING = re.compile(r"(?<![a-z])(train|calib)", re.IGNORECASE)
FOLD = re.compile(r"fold[-_ ]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a split.

    Parameters
    ----------
    name
        Of its file, and of the part where the file names several.
    scans
        Whoever is in it.
    """

    name: str
    scans: tuple[Scan, ...]

    @property
    def fold(self) -> str | None:
        """The fold that its name tells; None for one that all folds share."""
        found = FOLD.search(self.name)
        return found.group(1) if found else None

    @property
    def is_held_out(self) -> bool:
        """Tell whether scores are reported on it: it is neither for training nor calibration."""
        return TRAINING.search(self.name.rpartition("/")[2]) is None


@dataclass(frozen=True)
class Overlap:
    """People who stand in two parts.

    Parameters
    ----------
    first, second
        Names of the parts.
    subjects
        Their pseudonyms, as the first part spells them.
    """

    first: str
    second: str
    subjects: tuple[str, ...]


def parts_of(path: Path, cohort: Cohort) -> list[Part]:
    """Give the parts that a cohort from a file consists of: one for each value of `split`."""
    groups: dict[str, list[Scan]] = defaultdict(list)
    for scan in cohort:
        groups[scan.split].append(scan)
    own_names = path.is_dir() or is_split_csv(path)  # tables are named after their files already
    stem = path.name if path.is_dir() else path.stem
    parts = []
    for split, scans in groups.items():
        name = split if own_names and split else f"{stem}/{split}" if split else stem
        parts.append(Part(name, tuple(scans)))
    return parts


def overlaps(parts: Sequence[Part], any_dataset: bool = False) -> list[Overlap]:
    """Find the people who stand in two parts that must not share any.

    Parameters
    ----------
    parts
        From `parts_of`, of one or several files.
    any_dataset
        The same subject in two data sets is one person too.
    """
    known = [people_in(part.scans, any_dataset) for part in parts]
    found = []
    for (one, here), (other, there) in combinations(zip(parts, known, strict=True), 2):
        if not _may_not_share(one, other):
            continue
        both = sorted({here[key] for key in here.keys() & there.keys()})
        if both:
            found.append(Overlap(one.name, other.name, tuple(both)))
    return found


def people_in(scans: Iterable[Scan], any_dataset: bool = False) -> dict[str, str]:
    """Map all that tells a person (who they are, and the files) to the pseudonym.

    Parameters
    ----------
    scans
        Whose people.
    any_dataset
        The same subject in two data sets is one person too.
    """
    people = {}
    for scan in scans:
        people[scan.person] = scan.subject
        if any_dataset:
            people[f"subject {scan.subject}"] = scan.subject
        for image in scan.images.values():
            if isinstance(image, Path) and io.exists(image):
                people[f"file {image.resolve()}"] = scan.subject
    return people


def _may_not_share(one: Part, other: Part) -> bool:
    if one.fold == other.fold or None in (one.fold, other.fold):
        return True
    return one.is_held_out and other.is_held_out
