"""CSV files of splits over a tree of preprocessed scans (arXiv 2312.04215, 2407.12474).

::

    DATA_DIR/[Data/]splits/IXI_train_fold0.csv      img_name, age, label, img_path, ...
    DATA_DIR/[Data/]Train/ixi/t1/NAME_t1.nii.gz     beside t2/NAME_t2.nii.gz, mask/, seg/

The tables list T1w paths only; the other modalities lie at the same path of another folder.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from atypia import io
from atypia.cohort.scan import SPELLINGS, Cohort, Scan
from atypia.errors import CohortError

NEEDED = {"img_name", "img_path"}


def is_split_csv(path: Path) -> bool:
    """Tell by its header whether a file is such a table."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return set(next(csv.reader(file), ())) >= NEEDED
    except (OSError, UnicodeDecodeError):
        return False


def tables_in(path: Path) -> list[Path]:
    """Give the tables of a `DATA_DIR`, or of its folder `Data` or `splits`."""
    places = (path / "splits", path / "Data" / "splits", path)
    found = (sorted(p for p in place.glob("*.csv") if is_split_csv(p)) for place in places)
    return next((tables for tables in found if tables), [])


def read_split_csv(path: Path, modality: str | None = None) -> Cohort:
    """Read one table, or all tables of a `DATA_DIR`.

    Every row is a scan, and one that is listed twice in a table counts once. `run` and `split` are
    the name of its table, so that `--split IXI_test` takes that table, and a subject that stands in
    two of them is found by the leakage check. The images are those modalities of the row whose
    files are there.

    Parameters
    ----------
    path
        A table, or the folder.
    modality
        Keep only scans that have it.
    """
    tables = [path] if path.is_file() else tables_in(path)
    if not tables or not is_split_csv(tables[0]):
        columns = " and ".join(sorted(NEEDED))
        raise CohortError(
            path, f"has no table with columns {columns}", "Name the table or DATA_DIR"
        )
    scans = tuple(scan for table in tables for scan in _scans(table, modality))
    return Cohort(scans, path.name)


def _scans(table: Path, modality: str | None) -> Iterator[Scan]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in csv.DictReader(file)]
    folders: dict[Path, list[str]] = {}
    seen: set[Path] = set()
    for line, row in enumerate(rows, start=2):
        listed = PurePosixPath(row["img_path"].lstrip("/"))
        if len(listed.parts) < 4 or io.suffix_of(listed.name) is None:
            raise CohortError(
                f"{table}, line {line}", "img_path is no SPLIT/SET/MODALITY/FILE", "Mend the path"
            )
        place = _placed(table, listed)
        if place in seen:  # the published tables list some scans twice
            continue
        seen.add(place)
        around = place.parent.parent
        if around not in folders:  # asked once, not for every row
            names = sorted(p.name for p in around.glob("*/"))
            folders[around] = [name for name in names if name.lower() in SPELLINGS]
        images = _images(place, folders[around])
        age = row.get("age", "")
        if modality in (None, *images):
            stem = re.sub(r"_(t1|t2|flair)$", "", io.stem_of(row["img_name"]), flags=re.IGNORECASE)
            yield Scan(
                subject=stem,
                images=images if modality is None else {modality: images[modality]},
                dataset=listed.parts[-3],
                run=table.stem,
                split=table.stem,
                brain_mask=_mask(table, row, "mask_path"),
                lesion_mask=_mask(table, row, "seg_path"),
                condition={"0": "healthy", "1": "lesion"}.get(row.get("label", ""), ""),
                age=float(age) if re.fullmatch(r"\d+(\.\d+)?", age) else None,
                sex=row.get("sex", ""),
            )


def _images(listed: Path, folders: Iterable[str]) -> dict[str, Path]:
    """Find the modalities of a scan: the same path with another folder and ending."""
    own = listed.parent.name
    found = {}
    for folder in folders:
        for ending in {folder, folder.upper()}:
            name = re.sub(rf"{re.escape(own)}(?=\.[^_]*$)", ending, listed.name)
            path = listed.parent.parent / folder / name
            if path.exists():
                found[SPELLINGS[folder.lower()]] = path
    return found or {SPELLINGS.get(own.lower(), "image"): listed}


def _mask(table: Path, row: Mapping[str, str], column: str) -> Path | None:
    return _placed(table, PurePosixPath(row[column].lstrip("/"))) if row.get(column) else None


def _placed(table: Path, listed: PurePosixPath) -> Path:
    """Put a path of a table under the root, which the path may or may not name as `Data`."""
    root = table.parent.parent
    below = PurePosixPath(*listed.parts[1:]) if listed.parts[0] == "Data" else listed
    return root / below
