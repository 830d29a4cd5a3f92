"""CPU-seconds and errors of ScoreHistogram against scikit-learn on 7 million voxels.

scikit-learn is asked for average precision, AUROC and the precision-recall curve, from which the
best Dice is read; its answers are exact. Both run in this process, one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
)

from atypia.evaluation import ScoreHistogram
from benchmarks import timing

SEED = 0
VOXELS = 7_000_000
"""One T1w image at 1 mm, 181 x 217 x 181."""

LESION_SHARE = 0.01
TAILS = ("normal", "lognormal", "cauchy")
NAMES = ("ap", "auroc", "dice")

Scores = NDArray[np.float32]
Labels = NDArray[np.bool_]


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare on a light and a heavy tail; the full run adds a second heavy one."""
    rng = np.random.default_rng(SEED)
    labels = rng.random(VOXELS) < LESION_SHARE
    rows = [
        _compare(tail, _scores(tail, labels, rng), labels, 1 if quick else 3)
        for tail in TAILS[: 2 if quick else 3]
    ]
    figures: dict[str, Any] = {"voxels": VOXELS, "lesion_share": LESION_SHARE}
    for row in rows:
        figures |= {f"{row['tail']}_{key}": value for key, value in row.items() if key != "tail"}
    figures["speed_ratio"] = min(row["speed_ratio"] for row in rows)
    figures["largest_error"] = max(row[f"{name}_error"] for row in rows for name in NAMES)
    return rows, figures


def _scores(tail: str, labels: Labels, rng: np.random.Generator) -> Scores:
    normal = rng.standard_normal(labels.size)
    if tail == "normal":
        scores = normal + 1.5 * labels
    elif tail == "lognormal":
        scores = np.exp(3 * (normal + 1.5 * labels))
    else:
        scores = np.abs(rng.standard_cauchy(labels.size)) * (1 + 9 * labels)
    return scores.astype(np.float32)


def _compare(tail: str, scores: Scores, labels: Labels, n: int) -> dict[str, Any]:
    theirs_s, exact = timing.cpu_seconds(lambda: _sklearn(scores, labels))
    ours = timing.repeated(lambda: timing.cpu_seconds(lambda: _atypia(scores, labels))[0], 3 * n)
    binned = _atypia(scores, labels)
    for _ in range(n - 1):
        theirs_s = min(theirs_s, timing.cpu_seconds(lambda: _sklearn(scores, labels))[0])
    errors = {f"{name}_error": abs(binned[i] - exact[i]) for i, name in enumerate(NAMES)}
    # Their best against our median: the ratio errs on the careful side.
    return {
        "tail": tail,
        "sklearn_cpu_s": theirs_s,
        "atypia_cpu_s": ours["median"],
        "speed_ratio": theirs_s / ours["median"],
        **errors,
    }


def _sklearn(scores: Scores, labels: Labels) -> tuple[float, float, float]:
    precision, recall, _ = precision_recall_curve(labels, scores)
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return (
        float(average_precision_score(labels, scores)),
        float(roc_auc_score(labels, scores)),
        float(dice.max()),
    )


def _atypia(scores: Scores, labels: Labels) -> tuple[float, float, float]:
    histogram = ScoreHistogram()
    histogram.update(scores, labels)
    result = histogram.result()
    assert result.average_precision is not None
    assert result.auroc is not None
    assert result.best_dice is not None
    return result.average_precision, result.auroc, result.best_dice
