"""Folder trees that are told by patterns of where their files lie.

A pattern is a regular expression of the whole path below the root, without the suffix of the file,
capitals or not; a folder of DICOM slices is a path that ends with `/`. Its named groups say what
the path tells: `subject`, `session`, `run`, `site`, and `modality` (any spelling) or `description`
(free text from which the modality is told).
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from atypia import io
from atypia.cohort.folder import BRAIN_ENDINGS
from atypia.cohort.scan import SPELLINGS, Cohort, Labels, Scan, modality_in
from atypia.errors import CohortError

LOOKED_AT = 5000
"""Files by which a layout is recognised."""

Key = tuple[str, str, str]
"""Subject, session, run."""

Match = tuple[str, dict[str, str | None]]
"""A path below the root without suffix, and what it tells."""


@dataclass(frozen=True)
class Tree:
    """Where the images of a data set lie, and the masks that are on their grid.

    Parameters
    ----------
    image, brain, lesion
        Patterns; empty for none. Masks belong to the image whose subject, session and run they
        have. A brain mask beside its image (`NAME_brain_mask`) is found without a pattern.
    """

    image: str
    brain: str = ""
    lesion: str = ""


@dataclass(frozen=True)
class People:
    """A table about the subjects, which may lie in the root as any `.csv`.

    Parameters
    ----------
    column
        Names the scans; a file without it is another table.
    row, scan
        Formats that make the same text of a cell of that column and of a scan.
    fields
        Property of the scan -> column.
    meanings
        Cell -> what it means.
    """

    column: str
    row: str
    scan: str
    fields: Mapping[str, str]
    meanings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk; call it to read one.

    Parameters
    ----------
    name
        Of the data set, part of who a subject is; the folder's name when empty.
    trees
        In order of preference: of one visit, the images of the first that has any are taken.
    labels
        Values of the lesion image that are the lesion; every value but 0 when empty.
    condition
        Of every scan; empty for unknown.
    people
        What is known about the subjects.
    """

    name: str
    trees: tuple[Tree, ...]
    labels: tuple[int, ...] = ()
    condition: str = ""
    people: People | None = None

    def __call__(self, path: Path, modality: str | None = None) -> Cohort:
        """Read the data set; see `atypia.cohort.open_cohort`."""
        files: dict[str, Path] = {}
        for stem, file in _walk(path):
            if stem in files:
                raise CohortError(file, "stands beside a twin of the same name", "Keep one of both")
            files[stem] = file
        scans: dict[Key, Scan] = {}
        for tree in self.trees:
            wanted = [
                (stem, groups)
                for stem, groups in _matches(tree.image, files)
                if (shows := _modality(groups))
                and modality in (None, shows)
                and _key(groups) not in scans
            ]
            scans |= self._scans(tree, files, wanted, self.name or path.resolve().name)
        people = _people(path, self.people) if self.people else {}
        described = (self._described(scan, people) for scan in scans.values())
        return Cohort(tuple(sorted(described, key=lambda scan: scan.id)), path.resolve().name)

    def _scans(
        self, tree: Tree, files: Mapping[str, Path], wanted: Sequence[Match], dataset: str
    ) -> dict[Key, Scan]:
        images: dict[Key, dict[str, Path]] = defaultdict(dict)
        sites: dict[Key, str] = {}
        beside: dict[Key, Path] = {}
        for stem, groups in wanted:
            key, shows = _key(groups), _modality(groups) or ""
            if shows in images[key]:
                raise CohortError(files[stem], f"is a second {shows} of one scan", "Keep one")
            images[key][shows] = files[stem]
            sites[key] = groups.get("site") or ""
            for ending in BRAIN_ENDINGS:
                if stem + ending in files:
                    beside[key] = files[stem + ending]
        brains = beside | _masks(tree.brain, files, images)
        lesions = _masks(tree.lesion, files, images)
        scans = {}
        for key, of_modality in images.items():
            lesion = lesions.get(key)
            scans[key] = Scan(
                subject=key[0],
                session=key[1],
                run=key[2],
                images=of_modality,
                dataset=dataset,
                brain_mask=brains.get(key),
                lesion_mask=Labels(lesion, self.labels) if lesion and self.labels else lesion,
                condition=self.condition,
                site=sites[key],
            )
        return scans

    def _described(self, scan: Scan, people: Mapping[str, Mapping[str, str]]) -> Scan:
        about = dict(people.get(self.people.scan.format(**vars(scan)), {})) if self.people else {}
        age = about.pop("age", "")
        years = float(age) if re.fullmatch(r"\d+(\.\d+)?", age) else None
        return replace(scan, age=years, **{k: v for k, v in about.items() if v})  # type: ignore[arg-type]


def recognised(path: Path, layouts: Mapping[str, Layout]) -> str | None:
    """Tell by its first files which of the layouts a folder has; None for none of them."""
    for stem, _ in islice(_walk(path), LOOKED_AT):
        for name, layout in layouts.items():
            for tree in layout.trees:
                if any(_modality(groups) for _, groups in _matches(tree.image, (stem,))):
                    return name
    return None


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Give images by their path below the root without suffix; `FOLDER/` for DICOM slices."""
    for place, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        below = Path(place).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for name in sorted(names):
            if io.suffix_of(name) and not name.startswith("."):
                yield prefix + io.stem_of(name), Path(place, name)
        if any(name.lower().endswith(".dcm") for name in names):
            yield prefix, Path(place)


def _matches(pattern: str, stems: Iterable[str]) -> list[Match]:
    if not pattern:
        return []
    whole = re.compile(pattern, re.IGNORECASE)
    found = ((stem, whole.fullmatch(stem)) for stem in stems)
    return [(stem, match.groupdict()) for stem, match in found if match]


def _masks(pattern: str, files: Mapping[str, Path], keys: Collection[Key]) -> dict[Key, Path]:
    found: dict[Key, Path] = {}
    for stem, groups in _matches(pattern, files):
        if _key(groups) in found:
            raise CohortError(files[stem], "is a second mask of one scan", "Keep one")
        if _key(groups) in keys:
            found[_key(groups)] = files[stem]
    return found


def _modality(groups: Mapping[str, str | None]) -> str | None:
    if description := groups.get("description"):
        return modality_in(description)
    return SPELLINGS.get((groups.get("modality") or "").lower())


def _key(groups: Mapping[str, str | None]) -> Key:
    subject, session, run = ((groups.get(g) or "") for g in ("subject", "session", "run"))
    return subject.replace("/", "-"), session, run


def _people(root: Path, people: People) -> dict[str, dict[str, str]]:
    found = {}
    for file in sorted(root.glob("*.csv")):
        try:
            with file.open(encoding="utf-8-sig", newline="") as text:
                rows = list(csv.DictReader(text))
        except (OSError, UnicodeDecodeError) as error:
            raise CohortError(file, f"cannot be read ({error})", "Save it as UTF-8 text") from error
        for row in rows:
            if row.get(people.column):
                cells = {key: (row.get(name) or "").strip() for key, name in people.fields.items()}
                found[people.row.format(row[people.column])] = {
                    key: people.meanings.get(cell, cell) for key, cell in cells.items()
                }
    return found
