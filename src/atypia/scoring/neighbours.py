"""Nearest neighbours in a bank of healthy vectors: everywhere, or near a place only.

Distances come from matrix products, `|b|^2 - 2 q.b`, in float32 with the bank's mean at the origin.
That only chooses candidates: a few more than are asked for, whose distances are then taken from
differences in float64. Where float32's rounding leaves it open whether a vector outside the
candidates is as near, all vectors that may be are looked at. So the result is that of float64.

The factor of `density_weights` is PatchCore's (Roth et al. 2022, arXiv 2106.08265, equation 7).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from atypia.errors import InputError, SettingsError
from atypia.volume import Array

Distances = NDArray[np.float64]
Indices = NDArray[np.int64]

SPARE = 4
"""Candidates beyond those asked for: rounding seldom decides over more."""
QUERIES_A_CELL = 64
"""Queries that one cell of `nearest_near` should hold at least, on average."""
HUGE = 1e15
"""Numbers whose squares may not fit float32."""


def nearest(
    queries: Array, bank: Array, k: int = 1, megabytes: int = 256
) -> tuple[Distances, Indices]:
    """Find the nearest vectors of a bank, exactly.

    Parameters
    ----------
    queries, bank
        `(Q, D)` and `(M, D)`.
    k
        How many, 1 to M.
    megabytes
        Memory for the work, besides the bank in float32 and the result.

    Returns
    -------
    distances
        float64 `(Q, k)`, Euclidean, ascending.
    indices
        int64 `(Q, k)`, into the bank. Of equally near vectors the first comes first.

    Raises
    ------
    InputError
        Shapes do not fit, or there are NaN, infinite or huge numbers.
    SettingsError
        The bank has fewer than `k` vectors, or `k` is below 1.
    """
    search = _search(queries, bank, k, megabytes)
    distances, indices = search.empty()
    for rows in search.chunks(np.arange(len(queries)), len(bank)):
        distances[rows], indices[rows] = search.among(rows, None, None)
    return distances, indices


def nearest_near(
    queries: Array,
    query_places: Array,
    bank: Array,
    bank_places: Array,
    radius_mm: float,
    k: int = 1,
    megabytes: int = 256,
) -> tuple[Distances, Indices]:
    """Find the nearest vectors among those of a bank that come from a similar place, exactly.

    Parameters
    ----------
    queries, bank
        `(Q, D)` and `(M, D)`.
    query_places, bank_places
        `(Q, 3)` and `(M, 3)`, in mm in one space.
    radius_mm
        Vectors from places at most so far from the query's count. A query with fewer than `k` of
        them is compared with the `k` vectors whose places are nearest to its own (of equally near
        places the first), whatever the distance of the places.
    k, megabytes
        As in `nearest`.

    Returns
    -------
    distances, indices
        As from `nearest`, among the vectors that count.

    Raises
    ------
    InputError, SettingsError
        As `nearest`; or places do not fit or are not finite, or the radius is negative.
    """
    search = _search(queries, bank, k, megabytes)
    query_places = _checked_places(query_places, queries, "query_places")
    bank_places = _checked_places(bank_places, bank, "bank_places")
    if not radius_mm >= 0:
        raise SettingsError(f"radius_mm {radius_mm}", "is negative", "Give millimetres")
    distances, indices = search.empty()
    alone = np.zeros(len(queries), dtype=bool)
    for cell in _cells(query_places, radius_mm):
        reached, unsure = _reached(query_places[cell], bank_places, radius_mm)
        for rows in search.chunks(cell, len(reached)):
            near = np.ones((len(rows), len(reached)), dtype=bool)
            apart = _apart(query_places[rows], bank_places[reached[unsure]])
            near[:, unsure] = apart <= radius_mm**2
            enough = near.sum(axis=1) >= k
            alone[rows[~enough]] = True
            if enough.any():
                found = search.among(rows[enough], reached, near[enough])
                distances[rows[enough]], indices[rows[enough]] = found
    rows = np.flatnonzero(alone)
    fallback = _nearest_places(query_places[rows], bank_places, k)
    for row, chosen in zip(rows.tolist(), fallback, strict=True):
        distances[row], indices[row] = search.literal(row, chosen)
    return distances, indices


def density_weights(
    queries: Array, nearest_index: Array, bank: Array, b: int = 9, megabytes: int = 256
) -> Distances:
    """Give the factor by which PatchCore lowers distances to vectors that are common in the bank.

    With `m*` the query's nearest vector and `N_b` the `b` vectors of the bank that are nearest to
    `m*`, itself among them, the factor is `1 - exp(|q - m*|) / sum over m in N_b of exp(|q - m|)`.
    It depends on the unit of the vectors: far below a distance of one it is nearly `1 - 1 / b`.

    Parameters
    ----------
    queries
        `(Q, D)`.
    nearest_index
        `(Q,)`, `m*` of each query, from `nearest` or `nearest_near`.
    bank
        `(M, D)`.
    b
        Neighbours, 2 or more; all vectors when the bank has fewer.
    megabytes
        As in `nearest`.

    Returns
    -------
    numpy.ndarray
        float64 `(Q,)`, above 0 (as far as float64 tells) and at most 1.

    Raises
    ------
    InputError, SettingsError
        As `nearest`; or `b` is below 2, or the bank has one vector only.
    """
    if b < 2 or len(bank) < 2:
        problem = f"cannot be compared in a bank of {len(bank)}"
        raise SettingsError(f"{b} neighbours", problem, "Give 2 or more of both")
    used, which = np.unique(nearest_index, return_inverse=True)
    _, neighbours = nearest(bank[used], bank, min(b, len(bank)), megabytes)
    weights = np.empty(len(queries))
    step = _rows(megabytes, 3 * 8 * neighbours.shape[1] * bank.shape[1])
    for first in range(0, len(queries), step):
        rows = slice(first, first + step)
        around = bank[neighbours[which[rows]]] - queries[rows, None].astype(np.float64)
        own = bank[nearest_index[rows]] - queries[rows].astype(np.float64)
        exponents = np.sqrt(_squares(around)) - np.sqrt(_squares(own))[:, None]
        highest = np.maximum(exponents.max(axis=1), 0)
        total = np.exp(exponents - highest[:, None]).sum(axis=1)
        weights[rows] = -np.expm1(-highest - np.log(total))
    return weights


@dataclass(frozen=True)
class _Search:
    """Queries, and a bank that is ready for products.

    Parameters
    ----------
    queries, bank, k, megabytes
        As in `nearest`.
    mean
        `(D,)`, of the bank.
    rounded, squares
        `(M, D)`, the bank less its mean, and its squared lengths `(M,)`; float32.
    """

    queries: Array
    bank: Array
    k: int
    megabytes: int
    mean: Distances
    rounded: torch.Tensor
    squares: torch.Tensor

    def empty(self) -> tuple[Distances, Indices]:
        """Give arrays for the result."""
        shape = (len(self.queries), self.k)
        return np.empty(shape), np.empty(shape, dtype=np.int64)

    def chunks(self, rows: Indices, compared: int) -> Iterator[Indices]:
        """Split queries so that the work on each part fits the memory."""
        # Products and places for each compared vector, differences for each candidate.
        wide = self.bank.shape[1]
        step = _rows(self.megabytes, 40 * compared + 24 * (self.k + SPARE) * wide)
        return (rows[first : first + step] for first in range(0, len(rows), step))

    def literal(self, row: int, chosen: Indices) -> tuple[Distances, Indices]:
        """Give the distances and indices of the nearest among the chosen vectors, ascending."""
        away = self.bank[chosen] - self.queries[row].astype(np.float64)
        distances = np.sqrt(_squares(away))
        order = np.argsort(distances, kind="stable")[: self.k]
        return distances[order], chosen[order]

    def among(
        self, rows: Indices, reached: Indices | None, allowed: Array | None
    ) -> tuple[Distances, Indices]:
        """Find the nearest vectors of some queries.

        Parameters
        ----------
        rows
            `(n,)`, the queries.
        reached
            `(m,)`, ascending: the vectors of the bank that take part; None for all.
        allowed
            `(n, m)` boolean: which of them each query may find, at least `k`; None for all.
        """
        bank, squares = self.rounded, self.squares
        if reached is not None:
            index = torch.from_numpy(reached)
            bank, squares = bank[index], squares[index]
        queries = torch.from_numpy((self.queries[rows] - self.mean).astype(np.float32))
        lengths = queries.square().sum(1)
        found = torch.addmm(squares[None], queries, bank.T, alpha=-2)
        if allowed is not None:
            found.masked_fill_(torch.from_numpy(~allowed), torch.inf)
        count = min(self.k + SPARE, len(bank))
        top = found.topk(count, largest=False)
        # In the bank's order, so that the stable sort below puts the first of equals first.
        local, order = (part.numpy() for part in top.indices.sort(1))
        values = np.take_along_axis(top.values.numpy(), order, 1)
        candidates = local if reached is None else reached[local]
        away = self.bank[candidates] - self.queries[rows, None].astype(np.float64)
        distances = np.where(np.isinf(values), np.inf, np.sqrt(_squares(away)))
        order = np.argsort(distances, axis=1, kind="stable")[:, : self.k]
        distances, indices = (np.take_along_axis(x, order, 1) for x in (distances, candidates))
        if count < len(bank):
            limit = self._limit(distances[:, -1], lengths.double().numpy())
            for row in np.flatnonzero(top.values[:, -1].numpy() <= limit):
                may = np.flatnonzero(found[row].numpy() <= limit[row])
                chosen = may if reached is None else reached[may]
                distances[row], indices[row] = self.literal(rows[row], chosen)
        return distances, indices

    def _limit(self, distance: Distances, lengths: Distances) -> Distances:
        """Give the largest `|b|^2 - 2 q.b` that float32 may show of a vector so near."""
        # It is wrong by at most eps / 2 (D + 8) (|q| + |b|)^2, where |b| <= |q| + distance.
        rounding = np.finfo(np.float32).eps * (self.bank.shape[1] + 8)
        squared = distance**2
        return np.asarray(squared - lengths + rounding * (4 * lengths + squared))


def _search(queries: Array, bank: Array, k: int, megabytes: int) -> _Search:
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1:] != queries.shape[1:]:
        problem = f"of shape {queries.shape} do not fit a bank of {bank.shape}"
        raise InputError("queries", problem, "Give (Q, D) and (M, D)")
    if not 1 <= k <= len(bank):
        problem = f"is not between 1 and the number of vectors in the bank, {len(bank)}"
        raise SettingsError(f"k {k}", problem, "Give a number in between")
    for name, vectors in (("queries", queries), ("bank", bank)):
        # Without a copy of the size of the vectors; NaN fails either comparison.
        if not (vectors.max(initial=0) < HUGE and vectors.min(initial=0) > -HUGE):
            raise InputError(name, "hold NaN, infinite or huge numbers", "Leave those vectors out")
    mean = bank.mean(axis=0, dtype=np.float64)
    rounded = torch.from_numpy((bank - mean).astype(np.float32))
    return _Search(queries, bank, k, megabytes, mean, rounded, rounded.square().sum(1))


def _cells(places: Distances, radius_mm: float) -> Iterator[Indices]:
    """Sort places into cubes: small beside the radius, unless they would hold few places."""
    if not len(places):
        return iter(())
    low = places.min(axis=0)
    extent = np.maximum(places.max(axis=0) - low, 1)
    edge = max(radius_mm / 2, float(np.cbrt(np.prod(extent) * QUERIES_A_CELL / len(places))))
    cube = np.minimum((places - low) / edge, 2**20 - 1).astype(np.int64)
    key = (cube[:, 0] << 40) + (cube[:, 1] << 20) + cube[:, 2]
    order = np.argsort(key, kind="stable")
    return iter(np.split(order, np.flatnonzero(np.diff(key[order])) + 1))


def _reached(cell: Distances, places: Distances, radius_mm: float) -> tuple[Indices, Indices]:
    """Give which places may be near one of a cell's, and which of those are not near all of it."""
    low, high = cell.min(axis=0), cell.max(axis=0)
    below, above = low - places, places - high
    # Rounding must not lose what lies just at the radius.
    least = _squares(np.maximum(np.maximum(below, above), 0)) * (1 - 1e-9)
    reached = np.flatnonzero(least <= radius_mm**2)
    middle = np.abs(places[reached] - (low + high) / 2) + (high - low) / 2
    return reached, np.flatnonzero(_squares(middle) * (1 + 1e-9) > radius_mm**2)


def _nearest_places(places: Distances, bank_places: Distances, k: int) -> Iterator[Indices]:
    """Give for each place the `k` nearest of the bank, ascending; of equally near ones the first.

    A tree finds how far they are, and all at that distance, of which it would give any.
    """
    if not len(places):
        return
    from scipy.spatial import cKDTree

    tree = cKDTree(bank_places)
    farthest = tree.query(places, [k])[0][:, 0] * (1 + 1e-9)
    for place, found in zip(places, tree.query_ball_point(places, farthest), strict=True):
        within = np.sort(np.array(found, dtype=np.int64))
        order = np.argsort(_squares(bank_places[within] - place), kind="stable")
        yield np.sort(within[order[:k]])


def _checked_places(places: Array, vectors: Array, name: str) -> Distances:
    if places.shape != (len(vectors), 3) or not np.isfinite(places).all():
        problem = f"of shape {places.shape} are not a finite place for each of {len(vectors)}"
        raise InputError(name, problem, "Give (number, 3) in mm")
    return places.astype(np.float64)


def _apart(left: Distances, right: Distances) -> Distances:
    """Squared distances between places, `(n, m)`."""
    total = np.zeros((len(left), len(right)))
    for axis in range(3):
        total += np.square(left[:, None, axis] - right[None, :, axis])
    return total


def _squares(vectors: Array) -> Distances:
    """Squared lengths along the last axis."""
    return np.asarray(np.einsum("...d,...d->...", vectors, vectors))


def _rows(megabytes: int, each: int) -> int:
    """How many rows of so many bytes fit."""
    return max(1, megabytes * 2**20 // each)
