"""Figures of a published experiment: one file a fold, then mean and deviation over folds."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from atypia import files
from atypia.calibration import Threshold
from atypia.errors import InputError
from atypia.evaluation.table import Column, markdown
from atypia.runs.evaluating import EvaluationRun

LESION_FIGURES = ("ap", "auroc", "dice", "labelled_dice", "oracle_dice", "psnr", "pooled_ap",
                  "pooled_dice", "pooled_labelled_dice", "pooled_oracle_dice")  # fmt: skip

COLUMNS = (
    Column("set", "test set", ""),
    Column("method", "method", ""),
    Column("ap", "AP", "Voxel-wise average precision in the brain, mean over scans."),
    Column("auroc", "AUROC", "Voxel-wise area under the ROC curve, mean over scans."),
    Column("dice", "Dice", "At the threshold from healthy validation scans, mean over scans."),
    Column(
        "labelled_dice",
        "labelled Dice",
        "At the threshold of the highest pooled Dice on the set's labelled validation scans, as "
        "published, or at the one that was given.",
    ),
    Column("oracle_dice", "oracle Dice", "Upper bound: the best threshold for each test scan."),
    Column("pooled_ap", "pooled AP", "All voxels of the set together."),
    Column("scan_auroc", "scan AUROC", "Do the scans score above the healthy test scans?"),
    Column("flagged", "flagged", "Share of healthy test voxels above the healthy threshold."),
    Column("psnr", "PSNR", "Of the restoration in healthy brain, dB."),
)


@dataclass(frozen=True)
class FoldResult:
    """What was found in one fold, as JSON values.

    Parameters
    ----------
    fold
        Its number.
    key
        Digest of all that it depends on.
    evaluation
        As `atypia evaluate` writes it.
    labelled
        Thresholds that labels have chosen: test set, method, value, provenance.
    failures
        Scan -> why it could not be evaluated.
    shared
        Who stood in two parts of the published fold.
    """

    fold: int
    key: str
    evaluation: dict[str, Any]
    labelled: tuple[dict[str, Any], ...]
    failures: dict[str, str]
    shared: tuple[str, ...]

    @classmethod
    def of(
        cls,
        fold: int,
        key: str,
        run: EvaluationRun,
        labelled: Mapping[tuple[str, str], Threshold],
        shared: Sequence[str],
    ) -> Self:
        """Take what an evaluation has found."""
        thresholds = (
            {"set": name, "method": method, "value": one.value, "provenance": one.provenance}
            for (name, method), one in labelled.items()
        )
        failures = {failure.scan.id: str(failure.error) for failure in run.failures}
        found = run.evaluation.to_json()
        return cls(fold, key, found, tuple(thresholds), failures, tuple(shared))

    @classmethod
    def read(cls, path: Path, key: str) -> Self | None:
        """Read a finished fold; None if it is not there, is of something else, or had failures."""
        try:
            values = files.read_json(path)
            found = cls(**values)
        except (InputError, TypeError):
            return None
        return found if found.key == key and not found.failures else None

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        files.write_json(path, vars(self) | {"labelled": list(self.labelled)})

    def figures(self) -> dict[tuple[str, str], dict[str, float | None]]:
        """Give test set and method -> name of a figure -> its value."""
        rows: dict[tuple[str, str], dict[str, float | None]] = defaultdict(dict)
        for row in self.evaluation["lesions"]:
            values = {name: _plain(row[name]) for name in LESION_FIGURES}
            rows[row["condition"], row["method"]] |= values
        for row in self.evaluation["subjects"]:
            rows[row["condition"], row["method"]]["scan_auroc"] = _plain(row["auroc"])
        for row in self.evaluation["healthy"]:
            if row["scans"]:
                rows["healthy", row["method"]] = {
                    "flagged": _plain(row["flagged"]),
                    "psnr": _mean_psnr(self.evaluation["scans"], row["method"]),
                }
        return rows


def summarise(folds: Sequence[FoldResult], about: Mapping[str, Any]) -> dict[str, Any]:
    """Give mean and standard deviation over folds, as JSON values.

    Parameters
    ----------
    folds
        One or more; with one there is no deviation.
    about
        What was run.
    """
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for fold in folds:
        for (name, method), figures in fold.figures().items():
            for figure, value in figures.items():
                if value is not None:
                    values[name, method, figure].append(value)
    rows = [
        {
            "set": name,
            "method": method,
            "figure": figure,
            "mean": float(np.mean(found)),
            # Folds are a sample: n - 1.
            "sd": float(np.std(found, ddof=1)) if len(found) > 1 else None,
            "folds": found,
        }
        for (name, method, figure), found in values.items()
    ]
    shared = [told for fold in folds for told in fold.shared]
    too_good = "figures are too good, training or calibration has seen people of later parts"
    healthy = [
        {"fold": fold.fold, **{k: row[k] for k in ("method", "threshold", "provenance")}}
        for fold in folds
        for row in fold.evaluation["healthy"]
    ]
    return {
        **about,
        "folds": [fold.fold for fold in folds],
        "warnings": [f"{too_good}: {told}" for told in shared if about["leaking"] == "keep"],
        "left_out": [told for told in shared if about["leaking"] == "drop"],
        "failures": {
            f"fold {f.fold}: {scan}": why for f in folds for scan, why in f.failures.items()
        },
        "thresholds": {
            "healthy": healthy,
            "labelled": [{"fold": fold.fold, **one} for fold in folds for one in fold.labelled],
        },
        "results": rows,
    }


def write_results(results: Mapping[str, Any], output: Path) -> None:
    """Write `results.json`, `results.csv` and `results.md` into a folder."""
    files.write_text(output / "results.csv", _as_csv(results["results"]))
    files.write_text(output / "results.md", results_page(results))
    files.write_json(output / "results.json", results)


def results_page(results: Mapping[str, Any]) -> str:
    """Give results as Markdown, what is wrong with them first."""
    folds = ", ".join(map(str, results["folds"]))
    lines = [f"# {results['experiment']} on {results['modality']}, folds {folds}", ""]
    for told in results["left_out"]:
        lines += [f"Left out of the earlier part: {told}.", ""]
    for warning in results["warnings"]:
        lines += [f"WARNING: {warning}.", ""]
    if results["missing"]:
        lines += [f"MISSING test sets: {', '.join(results['missing'])}.", ""]
    if results["without_labelled_validation"] and results["given_threshold"] is None:
        without = ", ".join(results["without_labelled_validation"])
        lines += [f"No labelled validation table, hence no labelled Dice: {without}.", ""]
    for scan, why in results["failures"].items():
        lines += [f"FAILED: {scan}: {why}", ""]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in results["results"]:
        names = {"set": row["set"], "method": row["method"]}
        line = rows.setdefault((row["set"], row["method"]), names)
        spread = "" if row["sd"] is None else f" ± {row['sd']:.3f}"
        line[row["figure"]] = f"{row['mean']:.3f}{spread}"
    lines += [markdown(list(rows.values()), COLUMNS), ""]
    lines += [f"- {column.title}: {column.meaning}" for column in COLUMNS if column.meaning]
    lines += [
        "",
        "Mean ± standard deviation over folds. * baseline. Oracle Dice is an upper bound.",
    ]
    return "\n".join(lines) + "\n"


def _as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["set", "method", "figure", "mean", "sd", "folds"])
    for row in rows:
        values = [row[name] for name in ("set", "method", "figure", "mean", "sd")]
        writer.writerow([*values, " ".join(map(str, row["folds"]))])
    return text.getvalue()


def _plain(value: Any) -> float | None:
    """Give the value of a figure without its interval."""
    plain: float | None = value["mean"] if isinstance(value, Mapping) else value
    return plain


def _mean_psnr(scans: Iterable[Mapping[str, Any]], method: str) -> float | None:
    found = [
        scan["psnr"]
        for scan in scans
        if scan["condition"] == "healthy" and scan["method"] == method.removesuffix(" *")
    ]
    there = [value for value in found if value is not None]
    return float(np.mean(there)) if there else None
