"""Scan and Cohort: who was scanned, where the images are, and what is known about them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from atypia import files, io
from atypia.errors import CohortError, unknown_name
from atypia.simulation.contrast import ANY
from atypia.volume import Kind, Volume

Source = Path | Volume | Callable[[], Volume]
"""A file, a volume in memory, or a function that makes the volume when it is needed."""

MODALITIES = {
    "T1w": ("t1w", "t1", "t1n", "mprage"),
    "T2w": ("t2w", "t2"),
    "FLAIR": ("flair", "fla", "t2f"),
    "PDw": ("pdw", "pd"),
    "T1c": ("t1c", "t1ce", "t1gd", "t1wks"),
    "T2starw": ("t2starw", "t2star"),
    "dwi": ("dwi",),
    "adc": ("adc",),
    "CT": ("ct",),
    ANY: (ANY,),
}
"""Modality -> the spellings of it that are understood, in lower case."""

SPELLINGS = {spelling: name for name, all_of in MODALITIES.items() for spelling in all_of}
"""Spelling in lower case -> modality."""

DESCRIPTIONS = {
    "adc": r"\badc\b|apparent",
    "dwi": r"\bdwi|diff|trace|\bdti",
    "FLAIR": r"^(?!.*t1).*(flair|dark.?fluid|tirm)",
    "T2starw": r"t2 ?\*|t2 ?star|\bswi|hemo",
    "T1c": r"(t1|mp.?rage|mpr\b|bravo|spgr).*(\bgd|gad|\+ ?c|\bpost|contrast|\bkm\b|\bce\b)",
    "T1w": r"t1|mp.?rage|mpr\b|bravo|spgr",
    "PDw": r"\bpd|proton",
    "T2w": r"t2",
}
"""Modality -> what free descriptions of it contain, in lower case; the first that fits counts."""


def modality_named(name: str) -> str:
    """Give the standard name of a modality, e.g. ``"T1w"`` for ``"t1"``.

    Raises
    ------
    SettingsError
        No modality is known by that name.
    """
    if name.lower() in SPELLINGS:
        return SPELLINGS[name.lower()]
    raise unknown_name("modality", name, MODALITIES)


def modality_in(description: str) -> str | None:
    """Tell the modality from a free description, e.g. ``"FLAIR"`` from ``"t2_tirm_dark-fl"``."""
    text = description.lower().replace("_", " ")
    return next((m for m, pattern in DESCRIPTIONS.items() if re.search(pattern, text)), None)


@dataclass(frozen=True)
class Labels:
    """The voxels of a label image that hold certain values, made when they are asked for.

    Parameters
    ----------
    path
        The label image.
    values
        The labels that count as inside.
    """

    path: Path
    values: tuple[int, ...]

    def __call__(self) -> Volume:
        """Read the file and select the labels."""
        volume = io.read(self.path)
        return volume.with_data(np.isin(volume.data, self.values), "mask")


@dataclass(frozen=True, eq=False)
class Scan:
    """The images of one visit of one subject.

    Parameters
    ----------
    subject
        Pseudonym, unique within `dataset`.
    images
        Modality -> image.
    dataset
        What the scan belongs to; two data sets may use the same pseudonym for different people.
    session, run
        To tell several scans of one subject apart.
    brain_mask, lesion_mask
        On the grid of the image. A lesion mask may be empty.
    condition
        ``"healthy"``, the name of a lesion or artefact, or empty for unknown.
    split
        The part of a split that the scan was put into, empty for none.
    site, sex
        As the data set spells them; empty for unknown.
    age
        Years.
    """

    subject: str
    images: Mapping[str, Source]
    dataset: str = ""
    session: str = ""
    run: str = ""
    brain_mask: Source | None = None
    lesion_mask: Source | None = None
    condition: str = ""
    split: str = ""
    site: str = ""
    age: float | None = None
    sex: str = ""

    @property
    def id(self) -> str:
        """Name of the scan, unique in its cohort and fit for a file name."""
        parts = [self.subject, self.session, self.run]
        text = "_".join(part for part in parts if part)
        return "".join(c if c.isalnum() or c in "-_." else "-" for c in text).lstrip(".")

    @property
    def person(self) -> str:
        """A digest of data set and subject: tells leakage without storing who it was."""
        return files.digest(self.dataset, self.subject)

    def modality(self, wanted: str | None = None) -> str:
        """Give the modality to use: the wanted one, or the only one there is.

        Raises
        ------
        CohortError
            The scan lacks it, or has several and none was named.
        """
        if wanted is None and len(self.images) == 1:
            return next(iter(self.images))
        if wanted is not None and wanted in self.images:
            return wanted
        if wanted == ANY and len(self.images) == 1:
            return next(iter(self.images))  # what learnt from any contrast takes what there is
        if list(self.images) == ["image"]:
            return "image"  # a bare file: whoever gave it says that it fits
        there = ", ".join(self.images) or "no image"
        problem = f"has {there}" + (f", not {wanted}" if wanted else "")
        raise CohortError(f"scan {self.id}", problem, "Name the modality, e.g. --modality T1w")

    def image(self, modality: str | None = None) -> Volume:
        """Load the image of a modality; the only one when none is named."""
        return _load(self.images[self.modality(modality)], "image")

    def brain(self) -> Volume | None:
        """Load the brain mask, None when there is none."""
        return None if self.brain_mask is None else _load(self.brain_mask, "mask")

    def lesion(self) -> Volume | None:
        """Load the lesion mask, None when there is none."""
        return None if self.lesion_mask is None else _load(self.lesion_mask, "mask")

    def fingerprint(self, modality: str | None = None) -> str:
        """Digest of the image and brain mask that changes when either changes."""
        sources = [self.images[self.modality(modality)], self.brain_mask]
        return files.digest(*(_fingerprint(source) for source in sources if source is not None))

    @classmethod
    def of(cls, image: Scan | Volume | str | Path, modality: str | None = None) -> Scan:
        """Make a Scan of one bare image; a Scan is given back as it is."""
        if isinstance(image, Scan):
            return image
        name = modality or "image"
        if isinstance(image, Volume):
            return cls(io.stem_of(image.source) or "scan", {name: image})
        return cls(io.stem_of(image), {name: Path(image)})


METADATA = tuple(
    f.name for f in fields(Scan) if f.name not in ("images", "brain_mask", "lesion_mask")
)
"""The fields of a Scan that are plain text or numbers."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """A sequence of scans; images are loaded when they are asked for.

    Parameters
    ----------
    scans
        Any order; no two with the same `id`.
    name
        For messages and provenance.
    """

    scans: tuple[Scan, ...]
    name: str = field(default="cohort")

    def __post_init__(self) -> None:
        twice = [i for i, count in Counter(scan.id for scan in self.scans).items() if count > 1]
        if twice:
            raise CohortError(
                self.name,
                f"has several scans named {', '.join(twice[:3])}",
                "Tell them apart by session or run",
            )

    def __len__(self) -> int:
        return len(self.scans)

    def __iter__(self) -> Iterator[Scan]:
        return iter(self.scans)

    def __getitem__(self, index: int) -> Scan:
        return self.scans[index]

    def where(self, **values: str) -> Cohort:
        """Keep the scans whose metadata equal the values, e.g. ``condition="healthy"``.

        Raises
        ------
        CohortError
            No scan is left.
        """
        for key in values:
            if key not in METADATA:
                raise unknown_name("scan property", key, METADATA)
        kept = [s for s in self.scans if all(str(getattr(s, k)) == v for k, v in values.items())]
        if not kept:
            wanted = ", ".join(f"{k}={v}" for k, v in values.items())
            raise CohortError(self.name, f"has no scan with {wanted}", "Check the spelling")
        return Cohort(tuple(kept), self.name)

    def named(self, condition: str) -> Cohort:
        """Give this condition to the scans that have none and no lesion mask."""
        scans = tuple(
            scan if scan.condition or scan.lesion_mask else replace(scan, condition=condition)
            for scan in self.scans
        )
        return Cohort(scans, self.name)

    def of_modality(self, modality: str) -> Cohort:
        """Keep only the image of a modality of each scan; bare images fit any.

        A scan without it is left with none, so that it fails by its name where others are used.
        """

        def chosen(scan: Scan) -> Scan:
            if list(scan.images) == ["image"]:
                return scan
            return replace(scan, images={k: v for k, v in scan.images.items() if k == modality})

        return Cohort(tuple(chosen(scan) for scan in self.scans), self.name)

    def take(self, indices: Iterable[int]) -> Cohort:
        """Keep the scans at these positions."""
        return Cohort(tuple(self.scans[i] for i in indices), self.name)

    def listed(self, names: Iterable[str]) -> Cohort:
        """Keep the scans that are named: by file name of an image, subject or id.

        Raises
        ------
        CohortError
            A name is of no scan.
        """
        wanted = {name.strip() for name in names if name.strip()}
        kept, known = [], set()
        for scan in self.scans:
            images = [image for image in scan.images.values() if isinstance(image, Path)]
            own = {scan.id, scan.subject, *(i.name for i in images), *map(io.stem_of, images)}
            known |= own
            if own & wanted:
                kept.append(scan)
        if not kept or wanted - known:
            names = ", ".join(sorted(wanted - known)[:3]) or "an empty list"
            raise CohortError(self.name, f"has no scan named {names}", "Mend or shorten the list")
        return Cohort(tuple(kept), self.name)

    def require_healthy(self, purpose: str) -> None:
        """Refuse a cohort in which a scan is labelled as abnormal.

        Raises
        ------
        CohortError
            A scan has a condition other than healthy, or a non-empty lesion mask.
        """
        for scan in self.scans:
            what = scan.condition
            if what in ("", "healthy"):
                lesion = scan.lesion()
                if lesion is None or not lesion.data.any():
                    continue
                what = "a lesion mask with voxels"
            raise CohortError(
                f"scan {scan.id} of {self.name}",
                f"is labelled with {what}, but {purpose} needs healthy scans",
                "Leave it out, e.g. with --where condition=healthy",
            )


def joined(*cohorts: Cohort) -> Cohort:
    """Put cohorts together; a scan of the same name gets its cohort's number as its run.

    Raises
    ------
    CohortError
        Names are still not unique.
    """
    seen: set[str] = set()
    scans: list[Scan] = []
    for number, cohort in enumerate(cohorts, start=1):
        for scan in cohort:
            twin = scan.id in seen
            run = "_".join(part for part in (scan.run, f"cohort-{number}") if part)
            scans.append(replace(scan, run=run) if twin else scan)
        seen |= {scan.id for scan in cohort}
    return Cohort(tuple(scans), " and ".join(cohort.name for cohort in cohorts[:2]))


def _load(source: Source, kind: Kind) -> Volume:
    if isinstance(source, Path):
        return io.read(source, kind)
    volume = source if isinstance(source, Volume) else source()
    return volume if volume.kind == kind else volume.with_data(volume.data, kind)


def _fingerprint(source: Source) -> str:
    if isinstance(source, Path):
        states = [(file.resolve(), file.stat()) for file in io.files_of(source)]
        return " ".join(f"{f} {s.st_size} {s.st_mtime_ns}" for f, s in states) or str(source)
    volume = source if isinstance(source, Volume) else source()
    voxels = f"{volume.data.dtype} {volume.shape}"
    return files.digest(volume.data.tobytes(), volume.affine.tobytes(), voxels)
