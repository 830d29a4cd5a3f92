"""A few vectors that stand for many: greedy k-centre, by which PatchCore thins its memory bank.

Sources: PatchCore (Roth et al. 2022, arXiv 2106.08265, section 3.2); that the greedy rule covers at
most twice as widely as the best choice: Sener and Savarese 2018 (arXiv 1708.00489).

Each pick is the vector that lies farthest from all picks before it. The plain way looks at every
vector for every pick. Here the distances of all vectors are brought up to date only now and then,
for many picks in one matrix product, and the picks between come from a short list of the vectors
that were farthest then. Distances only shrink: a listed vector that still lies farther than the
unlisted ones did is the farthest of all. The list is kept in float64, and the bound on the unlisted
ones allows for float32's rounding, so that the picks are those of float64 throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from atypia.errors import InputError, SettingsError
from atypia.progress import Progress, silent
from atypia.volume import Array

LISTED = 2048
"""Vectors on the short list: with 128 numbers each they stay in a processor's cache."""
ROWS = 8192
"""Vectors that are treated at once where all are."""
CENTRES = 256
"""Picks that are treated at once where all are."""


def greedy_coreset(
    vectors: Array,
    count: int,
    seed: int = 0,
    projected: int | None = 128,
    start: int | None = None,
    progress: Progress = silent,
) -> NDArray[np.int64]:
    """Pick the vectors that cover all others best, one after the other.

    Parameters
    ----------
    vectors
        `(N, D)`.
    count
        How many to pick, 1 to N. Of vectors that are the same, one is picked before the others, and
        those only when nothing else is left.
    seed
        Of the first pick and of the projection. The same seed gives the same picks.
    projected
        When `D` is larger, distances are those of a Gaussian random projection to so many
        dimensions, which keeps them nearly (Johnson and Lindenstrauss 1984); None for none.
    start
        Index of the first pick; None to draw it.
    progress
        Told after each pick.

    Returns
    -------
    numpy.ndarray
        int64 `(count,)`, indices of the picks in their order. Of equally far vectors the first is
        picked, unless more than `LISTED` are as far to float32's accuracy.

    Raises
    ------
    InputError
        The vectors are not `(N, D)`, or hold NaN, infinite or huge numbers.
    SettingsError
        There are not that many vectors, or there is no such start or projection.
    """
    if vectors.ndim != 2 or not vectors.size:
        problem = f"have shape {vectors.shape}, not (N, D)"
        raise InputError("vectors", problem, "Stack them along the first axis")
    if not 1 <= count <= len(vectors):
        problem = f"is not between 1 and the number of vectors, {len(vectors)}"
        raise SettingsError(f"count {count}", problem, "Give a number in between")
    if start is not None and not 0 <= start < len(vectors):
        raise SettingsError(f"start {start}", "is no index of a vector", "Leave it out")
    if projected is not None and projected < 1:
        raise SettingsError(f"projected {projected}", "is no dimension", "Give 1 or more, or None")
    rng = np.random.default_rng(seed)
    first = int(rng.integers(len(vectors))) if start is None else start
    return _picked(_points(vectors, projected, seed), count, first, progress)


@dataclass(frozen=True)
class _Points:
    """The vectors with their mean at the origin, where products cancel least, and projected.

    Parameters
    ----------
    vectors, mean, directions
        `(N, D)` as given; `(D,)`; `(D, projected)`, or None. In float64.
    rounded
        float32 `(N, D or projected)`.
    squares
        float32 `(N,)`, squared lengths.
    """

    vectors: Array
    mean: Array
    directions: Array | None
    rounded: torch.Tensor
    squares: torch.Tensor

    def exact(self, index: Array | slice) -> Array:
        """Give some of the points in float64."""
        moved = self.vectors[index] - self.mean
        return moved if self.directions is None else np.asarray(moved @ self.directions)


def _points(vectors: Array, projected: int | None, seed: int) -> _Points:
    wide, directions = vectors.shape[1], None
    if projected is not None and projected < wide:
        # A stream of its own, so that the projection does not depend on how the start was found.
        rng = np.random.default_rng([seed, 1])
        directions = rng.standard_normal((wide, projected)) / np.sqrt(projected)
        wide = projected
    with np.errstate(all="ignore"):
        mean = vectors.mean(axis=0, dtype=np.float64)
        rounded = torch.empty((len(vectors), wide))
        points = _Points(vectors, mean, directions, rounded, torch.empty(len(vectors)))
        for rows in _slices(len(vectors), ROWS):
            rounded[rows] = torch.from_numpy(points.exact(rows))
            points.squares[rows] = rounded[rows].square().sum(1)
    if not points.squares.isfinite().all():
        raise InputError("vectors", "hold NaN, infinite or huge numbers", "Leave those out")
    return points


def _picked(points: _Points, count: int, start: int, progress: Progress) -> NDArray[np.int64]:
    nearest = torch.full((len(points.rounded),), torch.inf)
    picks = [start]
    known = 0  # of the picks, those that `nearest` is up to date with
    progress("coreset", 1, count)
    while len(picks) < count:
        _lower(nearest, points, picks[known:])
        nearest[picks] = -torch.inf
        known = len(picks)
        listed, bound = _short_list(nearest, points)
        for pick in _from_list(points, listed, bound, picks.copy()):
            picks.append(pick)
            progress("coreset", len(picks), count)
            if len(picks) == count:
                break
    return np.array(picks, dtype=np.int64)


def _lower(nearest: torch.Tensor, points: _Points, fresh: list[int]) -> None:
    """Lower all points' squared distances to their nearest pick by fresh picks, in place."""
    for some in _slices(len(fresh), CENTRES):
        centres, lengths = points.rounded[fresh[some]], points.squares[fresh[some], None]
        for rows in _slices(len(nearest), ROWS):
            found = torch.addmm(lengths, centres, points.rounded[rows].T, alpha=-2).amin(0)
            torch.minimum(nearest[rows], found.add_(points.squares[rows]), out=nearest[rows])


def _short_list(nearest: torch.Tensor, points: _Points) -> tuple[Array, float]:
    """Give the points that may be the farthest, and how far at most all others are, squared."""
    # x^2 - 2 x.c + c^2 is wrong by at most eps / 2 (D + 8) (|x| + |c|)^2, where the nearest pick c
    # is no longer than |x| + distance.
    rounding = torch.finfo(torch.float32).eps * (points.rounded.shape[1] + 8)
    farthest = nearest + rounding * (4 * points.squares + nearest)
    if len(nearest) <= LISTED:
        return np.arange(len(nearest)), -np.inf
    top = farthest.topk(LISTED + 1)
    return top.indices[:-1].sort().values.numpy(), float(top.values[-1])


def _from_list(points: _Points, listed: Array, bound: float, picks: list[int]) -> Iterator[int]:
    """Give the farthest of the listed points, one after the other, while it is that of all."""
    near = points.exact(listed)
    squares = np.einsum("nd,nd->n", near, near)
    nearest = np.full(len(listed), np.inf)
    for some in _slices(len(picks), CENTRES):
        centres = points.exact(np.array(picks[some]))
        lengths = np.einsum("nd,nd->n", centres, centres)
        found = lengths[:, None] - 2 * (centres @ near.T)
        np.minimum(nearest, found.min(axis=0) + squares, out=nearest)
    nearest[np.isin(listed, picks)] = -np.inf
    best = int(nearest.argmax())
    # The first is given without a look at the bound, which only rounding can have put above it.
    while True:
        yield int(listed[best])
        # Not by a library that starts threads: for so little work they would wait for each other.
        products = np.einsum("nd,d->n", near, near[best])
        np.minimum(nearest, squares + squares[best] - 2 * products, out=nearest)
        nearest[best] = -np.inf
        best = int(nearest.argmax())
        if nearest[best] <= bound:
            return


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(first, first + step) for first in range(0, length, step))
