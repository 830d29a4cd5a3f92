"""Greedy coresets by full distances for each pick, plainly in float32, and ours: seconds, memory.

Each way picks 1 % of the same vectors, in a process of its own, with one thread, after a small
coreset was picked. `literal` takes all differences to the last pick in float64; `plain` is one
matrix-vector product a pick in float32, as is usual; `ours` is the package, which is also run with
all threads for the time on the clock. Agreement is the share of picks that are the literal ones.
The full run times a fifth of the literal picks and multiplies, as each takes the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import timing

SEED = 0
SHARE = 0.01
FULL, QUICK = (100_000, 128), (10_000, 64)
WALL_ASKED_S = 60.0

Vectors = NDArray[np.float32]


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Pick from normal and clustered vectors; the full run times a fifth of the literal picks."""
    count, wide = QUICK if quick else FULL
    asked = int(count * SHARE)
    drawn = asked if quick else asked // 5
    rows = [row for kind in KINDS for row in _compared(kind, count, wide, asked, drawn)]
    plain, ours = ([row for row in rows if row["way"] == way] for way in ("plain", "ours"))
    figures = {
        "cpu_ratio": min(row["cpu_ratio"] for row in ours),
        "cpu_ratio_plain": min(a["cpu_s"] / b["cpu_s"] for a, b in zip(plain, ours, strict=True)),
        "memory_ratio": min(row["memory_ratio"] for row in ours),
        "agreement": min(row["agreement"] for row in ours),
        "wall_all_threads_s": max(row["wall_all_threads_s"] for row in ours),
        "asked": {"wall_all_threads_s": WALL_ASKED_S, "at": FULL},
        "count": count,
        "wide": wide,
        "picks": asked,
        "rows": rows,
    }
    return rows, figures


def _compared(kind: str, count: int, wide: int, asked: int, drawn: int) -> list[dict[str, Any]]:
    found = {
        way: timing.task(__name__, way, kind, count, wide, picked)
        for way, picked in (("literal", drawn), ("plain", asked), ("ours", asked))
    }
    threads = os.cpu_count() or 1
    free = timing.task(__name__, "ours", kind, count, wide, asked, threads=threads)
    found["literal"]["cpu_s"] *= asked / drawn
    found["literal"]["wall_s"] *= asked / drawn
    literal, ours = found["literal"], found["ours"]
    rows = []
    for way, one in found.items():
        same = np.equal(literal["picks"], one["picks"][:drawn])
        row = {
            "vectors": kind,
            "way": way,
            "picks_timed": len(one["picks"]),
            "cpu_s": one["cpu_s"],
            "wall_s": one["wall_s"],
            "own_mb": one["own_mb"],
            "agreement": float(same.mean()),
        }
        row["wall_all_threads_s"] = free["wall_s"] if way == "ours" else None
        row["cpu_ratio"] = literal["cpu_s"] / one["cpu_s"]
        row["memory_ratio"] = literal["own_mb"] / one["own_mb"]
        rows.append(row)
    if ours["picks"] != free["picks"]:
        raise SystemExit("ours picks others with more threads")
    return rows


# -- what the child processes do ------------------------------------------------------------


def _measured(pick: Callable[[Vectors, int], list[int]]) -> Callable[..., None]:
    def task(kind: str, count: int, wide: int, picked: int) -> None:
        vectors = KINDS[kind](np.random.default_rng(SEED), count, wide)
        pick(vectors[:300], 30)
        before = timing.forget_peak()
        start = time.perf_counter()
        cpu_s, picks = timing.cpu_seconds(lambda: pick(vectors, picked))
        wall_s = time.perf_counter() - start
        own_mb = timing.memory_mb("VmHWM") - before
        print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "own_mb": own_mb, "picks": picks}))

    return task


def _normal(rng: np.random.Generator, count: int, wide: int) -> Vectors:
    return rng.standard_normal((count, wide), dtype=np.float32)


def _clustered(rng: np.random.Generator, count: int, wide: int) -> Vectors:
    """Two hundred clusters within eight dimensions, more like features of patches."""
    centres = 3 * rng.standard_normal((200, 8))[rng.integers(200, size=count)]
    inside = (centres + rng.standard_normal((count, 8))) @ rng.standard_normal((8, wide))
    return (inside + 0.1 * rng.standard_normal((count, wide))).astype(np.float32)


def _literal(vectors: Vectors, count: int) -> list[int]:
    picks = [0]
    nearest = np.full(len(vectors), np.inf)
    while len(picks) < count:
        away = vectors - vectors[picks[-1]].astype(np.float64)
        nearest = np.minimum(nearest, (away**2).sum(axis=1))
        picks.append(int(nearest.argmax()))
    return picks


def _plain(vectors: Vectors, count: int) -> list[int]:
    import torch

    points = torch.from_numpy(vectors - vectors.mean(axis=0))
    squares = points.square().sum(1)
    nearest = torch.full((len(points),), torch.inf)
    picks = [0]
    while len(picks) < count:
        last = picks[-1]
        away = torch.addmv(squares + squares[last], points, points[last], alpha=-2)
        torch.minimum(nearest, away, out=nearest)
        picks.append(int(nearest.argmax()))
    return picks


def _ours(vectors: Vectors, count: int) -> list[int]:
    from atypia.scoring.coreset import greedy_coreset

    picks: list[int] = greedy_coreset(vectors, count, start=0).tolist()
    return picks


KINDS = {"normal": _normal, "clustered": _clustered}
TASKS = {"literal": _measured(_literal), "plain": _measured(_plain), "ours": _measured(_ours)}
