"""Manifests: one row a scan in a CSV or TSV file, with image paths relative to the file."""

from __future__ import annotations

import csv
import io as text_io
import math
from pathlib import Path

from atypia import files, io
from atypia.cohort.scan import METADATA, MODALITIES, Cohort, Scan
from atypia.errors import CohortError

MASKS = ("brain_mask", "lesion_mask")

ABSENT = ("", "n/a", "na", "nan", "none")
"""How tables say that an age is not known, in lower case."""


def read_manifest(path: Path, modality: str | None = None) -> Cohort:
    """Read a manifest.

    Columns `subject, dataset, session, run, condition, split, site, age, sex` are metadata
    (only `subject` is needed), `brain_mask` and `lesion_mask` are image paths, and every column
    named like a modality (any spelling in `MODALITIES`) holds the images of that modality. Other
    columns are ignored.

    Parameters
    ----------
    path
        The file, or a folder with `manifest.tsv` or `manifest.csv`.
    modality
        Keep only scans that have it.
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
    scans = [_scan(row, columns, path, line) for line, row in enumerate(reader, start=2)]
    return Cohort(tuple(s for s in scans if modality is None or modality in s.images), path.name)


def write_manifest(cohort: Cohort, path: str | Path) -> None:
    """Write a cohort of files as a TSV (or CSV) manifest; paths below its folder are relative.

    Raises
    ------
    CohortError
        A scan lives in memory, not in a file.
    """
    path = Path(path)
    modalities = sorted({m for scan in cohort for m in scan.images})
    rows = [[*METADATA, *modalities, *MASKS]]
    for scan in cohort:
        sources = [scan.images.get(m) for m in modalities] + [scan.brain_mask, scan.lesion_mask]
        for source in sources:
            if source is not None and not isinstance(source, Path):
                raise CohortError(f"scan {scan.id}", "is not a file", "Write its images first")
        metadata = [getattr(scan, name) for name in METADATA]
        cells = ["" if value is None else str(value) for value in metadata]
        rows.append([*cells, *(_relative(source, path.parent) for source in sources)])  # type: ignore[arg-type]
    buffer = text_io.StringIO()
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    files.write_text(path, buffer.getvalue())


def _columns(path: Path, names: list[str]) -> dict[str, str]:
    """Map each understood column to its meaning: metadata field, mask or standard modality."""
    spelling = {s: modality for modality, all_of in MODALITIES.items() for s in all_of}
    known = {name: name for name in (*METADATA, *MASKS)}
    columns: dict[str, str] = {}
    for name in names:
        key = (name or "").strip().lower()
        meaning = known.get(key) or spelling.get(key) or ("image" if key == "image" else None)
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


def _scan(row: dict[str, str | None], columns: dict[str, str], path: Path, line: int) -> Scan:
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
    images = {
        meaning: path.parent / text
        for meaning, text in values.items()
        if text and (meaning in MODALITIES or meaning == "image")
    }
    masks = {name: path.parent / values[name] for name in MASKS if values.get(name)}
    for image in (*images.values(), *masks.values()):
        if io.suffix_of(image) is None:
            raise CohortError(
                f"{path}, line {line}", f"{image.name} is no image file", "Give an image path"
            )
    plain = {n: values[n] for n in METADATA if n != "age" and n in values}
    plain["dataset"] = plain.get("dataset") or path.resolve().parent.name
    return Scan(images=images, age=years, **plain, **masks)  # type: ignore[arg-type]


def _relative(source: Path | None, folder: Path) -> str:
    if source is None:
        return ""
    absolute, base = source.resolve(), folder.resolve()
    return str(absolute.relative_to(base) if absolute.is_relative_to(base) else absolute)
