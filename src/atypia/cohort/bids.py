"""BIDS trees: entities parsed from file names, ages and groups from participants.tsv."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from atypia import io
from atypia.cohort.scan import MODALITIES, Cohort, Scan
from atypia.errors import CohortError

ENTITY = re.compile(r"(?:^|_)([a-z]+)-([^_]+)")


def read_bids(path: Path, modality: str | None = None) -> Cohort:
    """Read the anatomical images of a BIDS data set.

    Images are `sub-*/[ses-*/]anat/*_<modality>.nii[.gz]`; files that differ in any entity but
    the modality are scans of their own. Brain masks (`desc-brain_mask`) and lesion masks
    (`label-lesion_mask`, `label-lesion_roi`, `desc-lesion_mask`) are found beside the image, in
    `derivatives/` or in `derivatives/*/`. A mask must agree with the image in every entity; one in
    another space or resolution lies on another grid and is passed over, but `space-orig` and
    `space-T1w` (for a scan with a T1w image) are the image's own.

    Parameters
    ----------
    path
        Root of the data set.
    modality
        Keep only this one.
    """
    people = _participants(path / "participants.tsv")
    masks = _masks(path)
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    for file in sorted(path.glob("sub-*/**/anat/sub-*.nii*")):
        suffix = io.stem_of(file).rsplit("_", 1)[-1]
        if io.suffix_of(file) and suffix in MODALITIES and modality in (None, suffix):
            stem = io.stem_of(file).removesuffix(f"_{suffix}")
            if "sub" not in entities(stem):
                raise CohortError(file, "names no subject", "Rename it to sub-NAME_...")
            if suffix in groups[stem]:
                raise CohortError(file, "stands beside a twin of the same name", "Keep one of both")
            groups[stem][suffix] = file
    name = _name(path)
    return Cohort(tuple(_scan(s, i, name, people, masks) for s, i in groups.items()), name)


def entities(name: str) -> dict[str, str]:
    """Parse the `key-value` entities of a BIDS file name, in their order."""
    return dict(ENTITY.findall(name))


def _scan(
    stem: str,
    images: dict[str, Path],
    dataset: str,
    people: Mapping[str, Mapping[str, str]],
    masks: Mapping[tuple[str, str], Path],
) -> Scan:
    parts = entities(stem)
    spaces = ["", "_space-orig", *(f"_space-{modality}" for modality in images)]
    person = people.get(f"sub-{parts['sub']}", {})
    rest = [f"{key}-{value}" for key, value in parts.items() if key not in ("sub", "ses")]
    age = person.get("age", "")
    return Scan(
        subject=f"sub-{parts['sub']}",
        session=f"ses-{parts['ses']}" if "ses" in parts else "",
        run="_".join(rest),
        images=dict(images),
        dataset=dataset,
        brain_mask=_first(masks, [(_key(stem + space), "brain") for space in spaces]),
        lesion_mask=_first(masks, [(_key(stem + space), "lesion") for space in spaces]),
        site=person.get("site", ""),
        age=float(age) if re.fullmatch(r"\d+(\.\d+)?", age) else None,
        sex=person.get("sex", ""),
    )


def _masks(root: Path) -> dict[tuple[str, str], Path]:
    """Map (entities but label and desc, which mask) to the mask's file."""
    found: dict[tuple[str, str], Path] = {}
    for folder in (root, root / "derivatives", *sorted(root.glob("derivatives/*/"))):
        for file in sorted(folder.glob("sub-*/**/anat/sub-*.nii*")):
            stem = io.stem_of(file)
            parts = entities(stem)
            label = parts.get("label") or parts.get("desc")
            suffix = stem.rsplit("_", 1)[-1]
            if suffix in ("mask", "roi") and label in ("brain", "lesion"):
                found.setdefault((_key(re.sub(r"_(label|desc)-[^_]+", "", stem)), label), file)
    return found


def _key(stem: str) -> str:
    """Give the entities of a name in the order of the alphabet: names differ in their order."""
    return "_".join(f"{key}-{value}" for key, value in sorted(entities(stem).items()))


def _first(masks: Mapping[tuple[str, str], Path], keys: Iterable[tuple[str, str]]) -> Path | None:
    return next((masks[key] for key in keys if key in masks), None)


def _participants(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError) as error:
        raise CohortError(path, f"cannot be read ({error})", "Save it as UTF-8 text") from error
    return {row.get("participant_id", ""): {k: v or "" for k, v in row.items()} for row in rows}


def _name(path: Path) -> str:
    description = path / "dataset_description.json"
    try:
        return str(json.loads(description.read_text(encoding="utf-8"))["Name"])
    except (OSError, ValueError, KeyError, TypeError):
        return path.resolve().name
