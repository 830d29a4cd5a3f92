"""Mahalanobis maps as published, by dense inverses, against ours: CPU-seconds, memory, errors.

Both score the same simulated restorations of a brain in 50 axial slices of 96 x 96 pixels, each in
a process of its own. The published form is `tests/oracles/mahalanobis.py`: one float32 inverse of a
pixels x pixels matrix for each slice, without the half precision that it needs a GPU for. Errors
are those against a dense float64 solve, which is run for a few slices. A third process runs ours on
64 restorations of 1 mm slices, where one such matrix would take 1.7 GB.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from atypia.volume import Array
from benchmarks import timing

SEED = 0
RIDGE = 0.01
OUTPUT = Path("benchmark-output/mahalanobis")
CPU_ASKED, ERROR_ASKED = 500.0, 1e-4
REPEATS = 9
"""Ours is so quick that it is run this often; the median counts."""

SHAPES = {"full": (96, 96, 50), "quick": (80, 80, 5)}
CHECKED = {"full": [4, 12, 25], "quick": [2]}
"""Axial slices that are solved in float64; the last is one of the widest."""

WIDE = {"full": (181, 217, 16), "quick": (181, 217, 4)}
WIDE_RESTORATIONS = 64


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Score with both; `--quick` is five slices of 80 x 80."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    size = "quick" if quick else "full"
    rows = [
        timing.task(__name__, task, size, threads=None) for task in ("literal", "ours", "ours_wide")
    ]
    literal, ours, wide = rows
    maps = {row["method"]: np.load(OUTPUT / f"{size}-{row['method']}.npy") for row in rows[:2]}
    for name, score in maps.items():
        next(row for row in rows if row["method"] == name)["error"] = _error(score, size)
    figures = {
        "cpu_ratio": literal["cpu_s"] / ours["cpu_s"],
        "memory_ratio": literal["own_mb"] / ours["own_mb"],
        "relative_error": ours["error"],
        "literal_relative_error": literal["error"],
        "slices_solved_in_float64": CHECKED[size],
        "wide_cpu_s_a_slice": wide["cpu_s"] / wide["slices"],
        "asked": {"cpu_ratio": CPU_ASKED, "relative_error": ERROR_ASKED},
        "rows": rows,
    }
    return rows, figures


def _error(score: Array, size: str) -> float:
    """Largest relative error; values below a thousandth of the largest count as that thousandth."""
    from tests.oracles.mahalanobis import dense_map

    image, restorations, brain = _case(SHAPES[size], 10)
    slices = CHECKED[size]
    exact = dense_map(
        image[:, :, slices],
        restorations[:, :, :, slices],
        brain[:, :, slices],
        "low_rank",
        "product",
        "slice",
        RIDGE,
    )
    scale = np.maximum(exact, exact.max() / 1000)
    return float((np.abs(score[:, :, slices] - exact) / scale).max())


# -- what the child processes do ------------------------------------------------------------


def literal(size: str) -> None:
    """Score as published."""
    from tests.oracles.mahalanobis import literal_float32

    _measured("literal", size, SHAPES[size], 10, literal_float32, 1)


def ours(size: str) -> None:
    """Score with the package."""
    _measured("ours", size, SHAPES[size], 10, _ours, REPEATS)


def ours_wide(size: str) -> None:
    """Score with the package where the published form cannot run."""
    _measured("ours_wide", size, WIDE[size], WIDE_RESTORATIONS, _ours, 3)


TASKS = {"literal": literal, "ours": ours, "ours_wide": ours_wide}


def _ours(image: Array, restorations: Array, brain: Array, ridge: float) -> Array:
    from atypia.scoring.mahalanobis import mahalanobis_map

    return mahalanobis_map(image, restorations, brain, ridge=ridge)


def _measured(
    name: str, size: str, shape: tuple[int, int, int], count: int, method: Any, repeats: int
) -> None:
    case = _case(shape, count)
    # Libraries are loaded by a small case, so that neither memory nor time is theirs.
    small = _case((8, 8, 2), 3)
    method(*small, RIDGE)
    before = timing.forget_peak()
    start = time.perf_counter()
    first_s, score = timing.cpu_seconds(lambda: method(*case, RIDGE))
    wall = time.perf_counter() - start
    own_mb = timing.memory_mb("VmHWM") - before
    times = [first_s]
    times += [timing.cpu_seconds(lambda: method(*case, RIDGE))[0] for _ in range(repeats - 1)]
    np.save(OUTPUT / f"{size}-{name}.npy", score)
    pixels = case[2].sum(axis=(0, 1))
    row = {
        "method": name,
        "restorations": count,
        "slices": int((pixels > 0).sum()),
        "mean_pixels": int(pixels[pixels > 0].mean()),
        "most_pixels": int(pixels.max()),
        "cpu_s": statistics.median(times),
        "wall_s": wall,
        "own_mb": own_mb,
        "error": None,
    }
    print(json.dumps(row))


def _case(shape: tuple[int, int, int], count: int) -> tuple[Array, Array, Array]:
    """Give a scan, restorations with coarse and fine deviations, and an ellipsoid brain."""
    rng = np.random.default_rng(SEED)
    centre = [(n - 1) / 2 for n in shape]
    # Wide enough for 5000 pixels in the widest of the full slices; open at top and bottom.
    axes = (0.41 * shape[0], 0.41 * shape[1], 0.7 * shape[2])
    places = np.indices(shape, sparse=True)
    parts = zip(places, centre, axes, strict=True)
    brain = sum(((place - c) / a) ** 2 for place, c, a in parts) < 1
    mean = rng.random(shape, dtype=np.float32)
    coarse = rng.standard_normal(
        (count, -(-shape[0] // 8), -(-shape[1] // 8), shape[2]), dtype=np.float32
    )
    restorations = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, : shape[0], : shape[1]] * 0.05
    restorations += 0.03 * rng.standard_normal(restorations.shape, dtype=np.float32)
    restorations += mean
    image = mean + 0.1 * rng.standard_normal(shape, dtype=np.float32)
    return image, restorations, np.asarray(brain)
