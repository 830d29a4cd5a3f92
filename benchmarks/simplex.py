"""Simplex noise: 32 fields pixel by pixel, field by field, and batched: CPU-seconds and memory.

Each way runs in a process of its own, after its libraries are loaded and a small field was drawn.
`literal` is `tests/oracles/simplex.py`, plain Python for each pixel; `field_by_field` is NumPy on
whole fields, one after the other, with gradients from a hashed permutation, as is usual; `ours` is
the package, which shares between the fields what depends on the pixel only.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import timing

SEED = 0
FIELDS, SIZE, OCTAVES = 32, 96, 6
BASE, PERSISTENCE = 64.0, 0.8

Field = NDArray[np.float64]


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Draw the batch three ways; `--quick` draws 4 of the literal fields and scales the time."""
    rows = [
        _row("literal", 4 if quick else FIELDS, 1),
        _row("field_by_field", FIELDS, 5),
        _row("ours", FIELDS, 5),
    ]
    literal, single, ours = rows
    figures = {
        "cpu_ratio": literal["cpu_s"] / ours["cpu_s"],
        "cpu_ratio_field_by_field": single["cpu_s"] / ours["cpu_s"],
        "memory_ratio": literal["own_mb"] / ours["own_mb"],
        "memory_ratio_field_by_field": single["own_mb"] / ours["own_mb"],
        "fields": FIELDS,
        "size": SIZE,
        "octaves": OCTAVES,
        "rows": rows,
    }
    return rows, figures


def _row(way: str, drawn: int, times: int) -> dict[str, Any]:
    code = f"from benchmarks.simplex import measured; measured({way!r}, {drawn}, {times})"
    done = timing.python("-c", code)
    if done.error:
        raise SystemExit(f"{way} failed: {done.error}\n{done.stderr}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    # Time grows with the number of fields where each is drawn alone.
    cpu_s = found["cpu_s"] * FIELDS / drawn
    return {"way": way, "drawn": drawn, "cpu_s": cpu_s, "own_mb": found["own_mb"]}


# -- what the child processes do ------------------------------------------------------------


def measured(way: str, drawn: int, times: int) -> None:
    """Draw fields one way; print the CPU-seconds and the memory beyond what was loaded."""
    draw = WAYS[way]()
    draw(1, 8)
    before = timing.forget_peak()
    seconds, fields = timing.cpu_seconds(lambda: draw(drawn, SIZE))
    own_mb = timing.memory_mb("VmHWM") - before
    assert len(fields) == FIELDS
    # Memory is that of the first batch, when nothing is left over from one before.
    again = timing.repeated(lambda: timing.cpu_seconds(lambda: draw(drawn, SIZE))[0], times)
    print(json.dumps({"cpu_s": seconds if times == 1 else again["median"], "own_mb": own_mb}))


def _literal() -> Callable[[int, int], Any]:
    from tests.oracles.simplex import four_points, literal_field

    rng = random.Random(SEED)
    directions = [(a * s, b * t) for a, b in ((5, 2), (2, 5)) for s in (-1, 1) for t in (-1, 1)]

    def draw(count: int, size: int) -> Any:
        fields = np.full((FIELDS, size, size), np.nan, np.float32)
        for index in range(count):
            octaves: Any = [defaultdict(lambda: rng.choice(directions)) for _ in range(OCTAVES)]
            origins = [(rng.random(), rng.random()) for _ in range(OCTAVES)]
            values = (BASE, PERSISTENCE, four_points)
            fields[index] = _standardised(literal_field(octaves, origins, size, size, *values))
        return fields

    return draw


def _field_by_field() -> Callable[[int, int], Any]:
    rng = np.random.default_rng(SEED)

    def draw(count: int, size: int) -> Any:
        fields = np.full((FIELDS, size, size), np.nan, np.float32)
        y, x = np.mgrid[:size, :size].astype(float)
        for index in range(count):
            table = rng.permutation(256)
            octaves = (
                PERSISTENCE**k * _octave(y / BASE * 2**k, x / BASE * 2**k, table)
                for k in range(OCTAVES)
            )
            fields[index] = _standardised(np.asarray(sum(octaves)))
        return fields

    return draw


def _octave(y: Field, x: Field, table: NDArray[np.int64]) -> Field:
    """One octave of one field, at all its pixels."""
    stretch, squish = (1 / np.sqrt(3) - 1) / 2, (np.sqrt(3) - 1) / 2
    directions = np.array([(a * s, b * t) for a, b in ((5, 2), (2, 5)) for s, t in _SIGNS])
    i, j = y + stretch * (y + x), x + stretch * (y + x)
    row, column = np.floor(i).astype(int), np.floor(j).astype(int)
    a, b = i - row, j - column
    upper = a + b > 1
    a, b = np.where(upper, 1 - a, a), np.where(upper, 1 - b, b)
    rest = 1 - a - b
    far_i = np.where((a <= b) & (a <= rest), -1, 1)
    far_j = np.where((b < a) & (b <= rest), -1, 1)
    total = np.zeros_like(y)
    for along_i, along_j in ((0, 0), (1, 0), (0, 1), (far_i, far_j)):
        point_i = row + np.where(upper, 1 - along_i, along_i)
        point_j = column + np.where(upper, 1 - along_j, along_j)
        di, dj = i - point_i, j - point_j
        dy, dx = di + squish * (di + dj), dj + squish * (di + dj)
        gradient = directions[table[(table[point_i & 255] + point_j) & 255] & 7]
        weight = np.maximum(2 - dy * dy - dx * dx, 0) ** 2
        total += weight * weight * (gradient[..., 0] * dy + gradient[..., 1] * dx)
    return total / 47


_SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def _standardised(field: Field) -> Field:
    return (field - field.mean()) / field.std()


def _ours() -> Callable[[int, int], Any]:
    import torch

    from atypia.diffusion.noise import simplex

    generator = torch.Generator().manual_seed(SEED)
    return lambda count, size: simplex(
        (FIELDS if size == SIZE else count, 1, size, size), generator, OCTAVES, PERSISTENCE, BASE
    )


WAYS: dict[str, Callable[[], Callable[[int, int], Any]]] = {
    "literal": _literal,
    "field_by_field": _field_by_field,
    "ours": _ours,
}
