"""How much of the identity a shrunk covariance holds, for one covariance or for many at once.

Sources: Ledoit and Wolf 2004 (doi:10.1016/S0047-259X(03)00096-4), lemma 3.3; oracle approximating
shrinkage, Chen et al. 2010 (doi:10.1109/TSP.2010.2053029), equation 23, with the changes that
scikit-learn documents.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from atypia.volume import Array

Rule = Literal["ledoit_wolf", "oas"]
"""How the share of the identity follows from the samples."""


def shrinkage_share(
    squared: ArrayLike,
    trace: ArrayLike,
    fourth: ArrayLike,
    count: ArrayLike,
    dimensions: int,
    rule: Rule,
) -> Array:
    """Give the share of the identity.

    Parameters
    ----------
    squared, trace
        Squared Frobenius norm and trace of the covariance: the sum of products of deviations from
        the mean by the number of samples.
    fourth
        Mean over the samples of the deviations' length to the power of four.
    count
        Number of samples.
    dimensions
        Rows of the covariance.
    rule
        See the module's sources.

    Returns
    -------
    numpy.ndarray
        float64, shaped as the parameters, between 0 and 1.
    """
    squared, trace, fourth, count = (
        np.asarray(x, np.float64) for x in (squared, trace, fourth, count)
    )
    excess = np.maximum(squared - trace**2 / dimensions, 0)
    if rule == "oas":
        top, bottom = squared + trace**2, (count + 1) * excess
        shares = np.divide(top, bottom, out=np.ones(top.shape), where=bottom > 0)
        return np.asarray(np.minimum(shares, 1))
    noise = np.maximum((fourth - squared) / np.maximum(count, 1), 0)
    lesser = np.minimum(noise, excess)
    # Without noise there is nothing to shrink, as when the samples are all the same.
    return np.asarray(np.divide(lesser, excess, out=np.zeros(lesser.shape), where=excess > 0))
