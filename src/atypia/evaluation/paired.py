"""Paired comparison of methods on the same scans: difference, interval, tests, many methods.

Source: Wilcoxon 1945 (doi:10.2307/3001968); sign flips: Fisher 1935, The Design of Experiments,
with the Monte-Carlo p-value of Phipson & Smyth 2010 (doi:10.2202/1544-6115.1585); several methods:
Holm 1979 (Scandinavian Journal of Statistics 6, 65-70).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import InputError, unknown_name
from atypia.evaluation.intervals import mean_over_subjects

Values = NDArray[np.float64]

EXACT_FLIPS = 12
"""Up to so many differences other than zero all 2^n signs are tried."""
FLIPS = 9999
"""Random signs beyond."""
_NOISE = 1e-12


@dataclass(frozen=True)
class PairedFigures:
    """One method against another on the same subjects.

    Parameters
    ----------
    pairs
        Number of subjects.
    difference
        Mean of first minus second.
    interval, interval_by
        95 % interval of the difference over subjects, and how it was made; None below two.
    wilcoxon_p
        Two-sided, signed ranks; zeros are dropped. 1 when all differences are zero.
    permutation_p
        Two-sided, of the mean under flipped signs; 1 when all differences are zero.
    exact
        All signs were tried.
    wilcoxon_p_holm, permutation_p_holm
        Corrected for the number of methods that are compared; None when nothing was corrected.
    """

    pairs: int
    difference: float
    interval: tuple[float, float] | None
    interval_by: str | None
    wilcoxon_p: float
    permutation_p: float
    exact: bool
    wilcoxon_p_holm: float | None = None
    permutation_p_holm: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the figures by name."""
        return dict(vars(self))


def compare(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> PairedFigures:
    """Compare two methods on the same subjects.

    Parameters
    ----------
    first, second
        One figure a subject, in one order. Average several scans of a subject before.
    seed
        Of the random signs, which are drawn only for many subjects.

    Raises
    ------
    InputError
        Lengths differ, there is no subject, or a value is NaN or infinite.
    """
    one, other = (np.asarray(x, dtype=np.float64).ravel() for x in (first, second))
    if one.size != other.size or not one.size:
        problem = f"{one.size} and {other.size} values"
        raise InputError("pairs", problem, "Give one value of each method for each subject")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise InputError("pairs", "hold NaN or infinite values", "Leave these subjects out")
    differences = one - other
    # Equal figures that were computed in another order differ by rounding alone.
    scale = np.maximum(np.abs(one), np.abs(other))
    differences[np.abs(differences) <= _NOISE * scale] = 0.0
    spread = mean_over_subjects(differences.tolist(), [str(i) for i in range(one.size)])
    p, exact = sign_flip_p(differences, seed=seed)
    return PairedFigures(
        pairs=one.size,
        difference=float(differences.mean()),
        interval=spread["interval"],
        interval_by=spread.get("interval_by"),
        wilcoxon_p=wilcoxon_p(differences),
        permutation_p=p,
        exact=exact,
    )


def compare_methods(
    values: Mapping[str, Mapping[str, float]],
    reference: str,
    subjects: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
) -> dict[str, PairedFigures]:
    """Compare one method with every other one, each time on the scans that both have.

    Parameters
    ----------
    values
        Method -> scan -> figure.
    reference
        The method that comes first in each comparison.
    subjects
        Scan -> whose it is; the scans of one subject are averaged. Every scan is its own subject
        by default.
    seed
        As of `compare`.

    Returns
    -------
    dict
        Other method -> figures with p-values corrected by Holm over all others; without those
        that share no scan with the reference.

    Raises
    ------
    SettingsError
        There is no such reference.
    """
    if reference not in values:
        raise unknown_name("method", reference, list(values))
    mine = values[reference]
    found: dict[str, PairedFigures] = {}
    for name, theirs in values.items():
        shared = [scan for scan in mine if scan in theirs]
        if name != reference and shared:
            whose = [scan if subjects is None else subjects[scan] for scan in shared]
            pairs = ((mine[scan], theirs[scan]) for scan in shared)
            found[name] = compare(*_averaged(pairs, whose), seed=seed)
    signed = holm([one.wilcoxon_p for one in found.values()])
    flipped = holm([one.permutation_p for one in found.values()])
    return {
        name: replace(one, wilcoxon_p_holm=a, permutation_p_holm=b)
        for (name, one), a, b in zip(found.items(), signed, flipped, strict=True)
    }


def wilcoxon_p(differences: ArrayLike) -> float:
    """Give the two-sided p-value of Wilcoxon's signed-rank test, zeros dropped.

    Exact where `scipy.stats.wilcoxon` is; 1.0 when no difference is left.
    """
    from scipy import stats

    given = np.asarray(differences, dtype=np.float64)
    left = given[given != 0]
    if not left.size:
        return 1.0
    with warnings.catch_warnings():
        # Some versions warn of few values with ties; the sign-flip test stands beside it.
        warnings.simplefilter("ignore")
        return float(stats.wilcoxon(left).pvalue)


def sign_flip_p(differences: ArrayLike, *, seed: int = 0) -> tuple[float, bool]:
    """Give the two-sided p-value of the mean difference under all or random flips of signs.

    Parameters
    ----------
    differences
        One a subject; without a difference between the methods each sign is as likely.
    seed
        Of the random signs.

    Returns
    -------
    tuple
        p-value, never 0; and whether all signs were tried.
    """
    given = np.asarray(differences, dtype=np.float64)
    # Zeros do not change under a flip.
    left = given[given != 0]
    observed = abs(float(left.sum())) - _NOISE * float(np.abs(left).sum())
    if left.size <= EXACT_FLIPS:
        numbers = np.arange(2**left.size)[:, None]
        signs = 1.0 - 2.0 * (numbers >> np.arange(left.size) & 1)
        return float(np.mean(np.abs(signs @ left) >= observed)), True
    rng = np.random.default_rng(seed)
    beyond = sum(_beyond(left, observed, rng, part) for part in _parts(FLIPS))
    return (beyond + 1) / (FLIPS + 1), False


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values so that the chance of any false finding stays below the level."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _averaged(pairs: Iterable[tuple[float, float]], whose: Sequence[str]) -> tuple[Values, Values]:
    """Give the mean of both figures by subject."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for pair, subject in zip(pairs, whose, strict=True):
        groups.setdefault(subject, []).append(pair)
    means = np.array([np.mean(group, axis=0) for group in groups.values()])
    return means[:, 0], means[:, 1]


def _beyond(left: Values, observed: float, rng: np.random.Generator, count: int) -> int:
    signs = 1.0 - 2.0 * rng.integers(0, 2, (count, left.size))
    return int((np.abs(signs @ left) >= observed).sum())


def _parts(count: int, most: int = 1000) -> list[int]:
    return [min(most, count - start) for start in range(0, count, most)]
