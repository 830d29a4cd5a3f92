"""Manifests: one row a scan in a CSV or TSV file, with image paths relative to the file."""

from __future__ import annotations

import csv
import io as text_io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from atypia import files, io
from atypia.cohort.scan import METADATA, MODALITIES, SPELLINGS, Cohort, Labels, Scan, Source
from atypia.errors import CohortError

MASKS = ("brain_mask", "lesion_mask")

ABSENT = ("", "n/a", "na", "nan", "none")
"""How tables say that an age is not known, in lower case."""


def read_manifest(path: Path, modality: str | None = None) -> Cohort:
    """Read a manifest.

    Columns `subject, dataset, session, run, condition, split, site, age, sex` are metadata
    (only `subject` is needed), `brain_mask` and `lesion_mask` are image paths, and every column
    named like a modality (any spelling in `MODALITIES`) holds the images of that modality. A column
    `image` holds images whose modality the caller knows. Where only some values of the lesion
    masks are lesion, `lesion_labels` names them, e.g. `1 3`. Other columns are ignored.

    Parameters
    ----------
    path
        The file, or a folder with `manifest.tsv` or `manifest.csv`.
    modality
        Keep only scans that have it; images of a column `image` are taken to have it.
    """
    if path.is_dir():
        places = [path / "manifest.tsv", path / "manifest.csv"]
        path = next((p for p in places if p.exists()), places[0])
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CohortError(path, f"cannot be read ({error})", "Save it as UTF-8 text") from error
    reader = csv.DictReader(text_io.StringIO(text), delimiter=delimiter)
    columns = _columns(path, list(reader.fieldnames or ()))
    scans = [_scan(row, columns, path, line, modality) for line, row in enumerate(reader, start=2)]
    return Cohort(tuple(s for s in scans if modality is None or modality in s.images), path.name)


def write_manifest(
    cohort: Cohort, path: str | Path, more: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Write a cohort of files as a TSV (or CSV) manifest; paths below its folder are relative.

    Parameters
    ----------
    more
        Further columns, which `read_manifest` ignores: name -> one cell a scan.

    Raises
    ------
    CohortError
        A scan lives in memory, not in a file.
    """
    path = Path(path)
    more = more or {}
    modalities = sorted({m for scan in cohort for m in scan.images})
    labelled = any(isinstance(scan.lesion_mask, Labels) for scan in cohort)
    rows = [[*METADATA, *modalities, *MASKS, *(["lesion_labels"] if labelled else []), *more]]
    for number, scan in enumerate(cohort):
        lesion, labels = scan.lesion_mask, ""
        if isinstance(lesion, Labels):
            labels = " ".join(map(str, lesion.values))
            lesion = lesion.path
        sources = [scan.images.get(m) for m in modalities] + [scan.brain_mask, lesion]
        for source in sources:
            if source is not None and not isinstance(source, Path):
                raise CohortError(f"scan {scan.id}", "is not a file", "Write its images first")
        metadata = [getattr(scan, name) for name in METADATA]
        cells = ["" if value is None else str(value) for value in metadata]
        places = [_relative(source, path.parent) for source in sources]  # type: ignore[arg-type]
        rest = [column[number] for column in more.values()]
        rows.append([*cells, *places, *([labels] if labelled else []), *rest])
    buffer = text_io.StringIO()
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    files.write_text(path, buffer.getvalue())


def _columns(path: Path, names: list[str]) -> dict[str, str]:
    """Map each understood column to its meaning: metadata field, mask or standard modality."""
    known = {name: name for name in (*METADATA, *MASKS, "lesion_labels", "image")} | SPELLINGS
    columns: dict[str, str] = {}
    for name in names:
        key = (name or "").strip().lower()
        meaning = known.get(key)
        if meaning in columns.values():
            raise CohortError(path, f"has two columns for {meaning}", "Keep one of both")
        if meaning:
            columns[name] = meaning
    if "subject" not in columns.values():
        raise CohortError(path, "has no column 'subject'", "Add it, one pseudonym a row")
    if not any(m in MODALITIES or m == "image" for m in columns.values()):
        raise CohortError(
            path, "has no image column", f"Name one after its modality: {', '.join(MODALITIES)}"
        )
    return columns


def _scan(
    row: dict[str, str | None],
    columns: dict[str, str],
    path: Path,
    line: int,
    modality: str | None,
) -> Scan:
    values = {columns[c]: (v or "").strip() for c, v in row.items() if c in columns}
    if not values["subject"]:
        raise CohortError(f"{path}, line {line}", "has no subject", "Fill the cell")
    age = values.get("age", "")
    try:
        years = None if age.lower() in ABSENT else float(age)
    except ValueError:
        years = math.nan
    if years is not None and not 0 <= years < math.inf:
        raise CohortError(
            f"{path}, line {line}", f"age {age!r} is no number of years", "Give years or n/a"
        )
    files_of = {
        meaning: path.parent / text
        for meaning, text in values.items()
        if text and (meaning in MODALITIES or meaning in ("image", *MASKS))
    }
    for image in files_of.values():
        if not io.is_image(image):
            raise CohortError(
                f"{path}, line {line}", f"{image.name} is no image file", "Give an image path"
            )
    masks: dict[str, Source] = {name: files_of.pop(name) for name in MASKS if name in files_of}
    if labels := values.get("lesion_labels"):
        if not re.fullmatch(r"\d+( \d+)*", labels) or "lesion_mask" not in masks:
            problem = f"has lesion_labels {labels!r}"
            raise CohortError(f"{path}, line {line}", problem, "Give a mask, and numbers like 1 3")
        chosen = tuple(int(number) for number in labels.split())
        masks["lesion_mask"] = Labels(path.parent / values["lesion_mask"], chosen)
    images = {modality if modality and m == "image" else m: p for m, p in files_of.items()}
    plain = {n: values[n] for n in METADATA if n != "age" and n in values}
    plain["dataset"] = plain.get("dataset") or path.resolve().parent.name
    return Scan(images=images, age=years, **plain, **masks)  # type: ignore[arg-type]


def _relative(source: Path | None, folder: Path) -> str:
    if source is None:
        return ""
    absolute, base = source.resolve(), folder.resolve()
    return str(absolute.relative_to(base) if absolute.is_relative_to(base) else absolute)
