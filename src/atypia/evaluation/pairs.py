"""Pairs: labels with their scores, checked and flat, from one array or from one an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import InputError

Images = ArrayLike | Sequence[ArrayLike]
Labels = NDArray[np.bool_]
Scores = NDArray[Any]


def pooled(truths: Images, scores: Images) -> tuple[Labels, Scores]:
    """Give the labels and the scores of all images, each as one row.

    Raises
    ------
    InputError
        As of `pairs_of`.
    """
    labels, values = zip(*pairs_of(truths, scores), strict=True)
    return np.concatenate(labels), np.concatenate(values)


def pairs_of(truths: Images, scores: Images) -> list[tuple[Labels, Scores]]:
    """Give labels and scores as rows, image by image.

    Parameters
    ----------
    truths
        True (non-zero) where abnormal: one array, or a list of arrays of any shapes.
    scores
        Likewise, higher = more abnormal.

    Raises
    ------
    InputError
        Numbers or shapes differ, an image is empty, or a score is NaN or infinite.
    """
    labels, values = _images(truths), _images(scores)
    if len(labels) != len(values) or not values:
        problem = f"{len(labels)} of the truth and {len(values)} of scores"
        raise InputError("images", problem, "Give one true mask for each score map")
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        where = f"scores {number}"
        if label.shape != value.shape or not value.size:
            problem = f"shape {value.shape} is not the truth's {label.shape}, or is empty"
            raise InputError(where, problem, "Align them")
        if value.dtype.kind not in "buif" or not np.isfinite(value).all():
            raise InputError(where, "hold NaN or infinite values", "Mend the scores")
    return [((a != 0).ravel(), b.ravel()) for a, b in zip(labels, values, strict=True)]


def _images(given: Images) -> list[NDArray[Any]]:
    """Tell one array, or a list of numbers, from a sequence of arrays."""
    several = isinstance(given, (list, tuple)) and len(given) > 0 and np.ndim(given[0]) > 0
    return [np.asarray(image) for image in given] if several else [np.asarray(given)]  # type: ignore[union-attr]
