"""Score map of overlapping patches: patch by patch, and in chunks spread axis by axis.

A volume of 128 x 128 x 128 voxels has 29 791 patches of 8 x 8 x 8 at a stride of 4; a patch's score
is its mean squared error under a small linear autoencoder with fixed random weights. `literal` is
a loop in torch that cuts out, scores and adds up one patch after the other, without gradients;
`literal_inference` is that loop in torch's inference mode and `literal_numpy` the one in NumPy,
which cost less for each call; `ours` is the package. Each way runs in a process of its own with one
thread, after its libraries are loaded and a small map was made.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import timing

SEED = 0
SIZE, STRIDE, HIDDEN = 8, 4, 32
MEGABYTES = 1.0
"""For patches; what fits into a processor's cache is fastest."""

Map = NDArray[np.float32]


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Make the map each way; `--quick` takes 48 voxels along each axis."""
    length = 48 if quick else 128
    with tempfile.TemporaryDirectory() as folder:
        rows = [_row(way, length, Path(folder)) for way in WAYS]
        maps = {way: np.load(Path(folder) / f"{way}.npy") for way in WAYS}
    found = {row["way"]: row for row in rows}
    ours = found.pop("ours")
    differences = [
        np.abs(maps[way] - maps["ours"]).max() / np.abs(maps[way]).max() for way in found
    ]
    ratios = {
        way.replace("literal", f"{kind}_ratio"): row[unit] / ours[unit]
        for kind, unit in (("cpu", "cpu_s"), ("memory", "own_mb"))
        for way, row in found.items()
    }
    figures = {
        **ratios,
        "largest_relative_difference": float(max(differences)),
        "voxels": length**3,
        "patches": (((length - SIZE) // STRIDE) + 1) ** 3,
        "rows": rows,
    }
    return rows, figures


def _row(way: str, length: int, folder: Path) -> dict[str, Any]:
    # One thread for every library: set before any is loaded.
    code = (
        "import os; os.environ.update(OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')\n"
        "from benchmarks.patch_score_map import measured\n"
        f"measured({way!r}, {length}, {str(folder)!r})"
    )
    done = timing.python("-c", code)
    if done.error:
        raise SystemExit(f"{way} failed: {done.error}\n{done.stderr}")
    return {"way": way, **json.loads(done.stdout.strip().splitlines()[-1])}


# -- what the child processes do ------------------------------------------------------------


def measured(way: str, length: int, folder: str) -> None:
    """Make the map one way; print the CPU-seconds and the memory beyond what was loaded."""
    make = WAYS[way]()
    make(volume(16))
    scan = volume(length)
    before = timing.forget_peak()
    seconds, score_map = timing.cpu_seconds(lambda: make(scan))
    own_mb = timing.memory_mb("VmHWM") - before
    np.save(Path(folder) / f"{way}.npy", score_map)
    del score_map
    # Memory is that of the first map, when nothing is left over from one before.
    if way == "ours":
        again = timing.repeated(lambda: timing.cpu_seconds(lambda: make(scan))[0], 7)
        seconds = again["median"]
    print(json.dumps({"cpu_s": seconds, "own_mb": own_mb}))


def volume(length: int) -> Map:
    """Give a volume with an edge of `length` voxels."""
    return np.random.default_rng(SEED).random((length,) * 3, np.float32)


def _autoencoder() -> tuple[Map, Map]:
    """Give the weights of a linear encoder `(voxels, hidden)` and decoder `(hidden, voxels)`."""
    rng = np.random.default_rng(SEED + 1)
    encoder = 0.05 * rng.standard_normal((SIZE**3, HIDDEN), np.float32)
    decoder = 0.05 * rng.standard_normal((HIDDEN, SIZE**3), np.float32)
    return encoder, decoder


def _score_in_torch() -> Callable[[Any], Any]:
    import torch

    torch.set_num_threads(1)
    encoder, decoder = (torch.from_numpy(values) for values in _autoencoder())

    def score(patches: Any) -> Any:
        rebuilt = patches @ encoder @ decoder
        return rebuilt.sub_(patches).square_().mean(dim=1)

    return score


def _boxes(length: int) -> Any:
    starts = range(0, length - SIZE + 1, STRIDE)
    for x, y, z in itertools.product(starts, repeat=3):
        yield slice(x, x + SIZE), slice(y, y + SIZE), slice(z, z + SIZE)


def _literal(mode: str = "no_grad") -> Callable[[Map], Map]:
    import torch

    score, without_gradients = _score_in_torch(), getattr(torch, mode)

    def make(scan: Map) -> Map:
        whole = torch.from_numpy(scan)
        sums, times = torch.zeros_like(whole), torch.zeros_like(whole)
        with without_gradients():
            for box in _boxes(len(scan)):
                sums[box] += score(whole[box].reshape(1, -1))[0]
                times[box] += 1
            return np.asarray((sums / times.clamp_(min=1)).numpy())

    return make


def _literal_numpy() -> Callable[[Map], Map]:
    encoder, decoder = _autoencoder()

    def make(scan: Map) -> Map:
        sums, times = np.zeros_like(scan), np.zeros_like(scan)
        for box in _boxes(len(scan)):
            patch = scan[box].ravel()
            sums[box] += np.square(patch - patch @ encoder @ decoder).mean()
            times[box] += 1
        return np.asarray(sums / np.maximum(times, 1))

    return make


def _ours() -> Callable[[Map], Map]:
    import torch

    from atypia.patches import chunks, patch_grid, spread_scores

    score = _score_in_torch()

    def make(scan: Map) -> Map:
        x, y, z = scan.shape
        grid = patch_grid((x, y, z), SIZE, STRIDE)
        scores = np.empty(grid.count, np.float32)
        with torch.no_grad():
            for numbers, patches in chunks(torch.from_numpy(scan)[None], grid, MEGABYTES):
                scores[numbers] = score(patches.flatten(1)).numpy()
        return spread_scores(scores, grid)

    return make


WAYS: dict[str, Callable[[], Callable[[Map], Map]]] = {
    "literal": _literal,
    "literal_inference": lambda: _literal("inference_mode"),
    "literal_numpy": _literal_numpy,
    "ours": _ours,
}
