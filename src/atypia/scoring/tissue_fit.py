"""The expected scan: the template's tissue maps, each with the intensity that it has in the scan.

The mean of healthy scans is a prior for scans of one contrast only. The place of tissues does not
depend on the contrast, and their intensities can be read off the scan itself: a robust regression
of the scan on the tissue maps, so that a lesion does not draw the intensities to itself
(iteratively reweighted least squares with Tukey's biweight; Beaton and Tukey, Technometrics 16,
1974).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TISSUES = ("white", "gray", "deep", "csf")
"""The maps: white matter, cortical gray matter, deep gray matter, cerebrospinal fluid."""

MOST = 50_000
"""Voxels that are fitted, evenly spread over the brain: four intensities need no more."""

ROUNDS = 6
"""Of reweighting; the intensities stand still after four."""

CUT = 4.685
"""Tukey's constant, in robust standard deviations: 95 % efficiency under normal errors."""

RIDGE = 1e-3
"""Share of the mean weight that is added to the diagonal: a tissue that is not seen gets zero."""


def fit_tissues(image: Tensor, brain: Tensor, tissues: Tensor) -> tuple[Tensor, Tensor]:
    """Fit the intensities of the tissues to one scan.

    Parameters
    ----------
    image
        `(X, Y, Z)`, normalised intensities.
    brain
        `(X, Y, Z)` boolean.
    tissues
        `(T, X, Y, Z)`, shares of the tissues, see `atypia.simulation.tissue.tissue_shares`.

    Returns
    -------
    tuple
        The expected scan `(X, Y, Z)`, zero outside the brain, and the `T` intensities.
    """
    places = brain.flatten().nonzero()[:, 0]
    places = places[:: max(1, len(places) // MOST)]
    values = image.flatten()[places].double()
    maps = tissues.flatten(1)[:, places].double()
    levels = torch.zeros(len(tissues), dtype=torch.float64, device=image.device)
    if not len(values):
        return torch.zeros_like(image), levels.to(image.dtype)
    weights = torch.ones_like(values)
    for _ in range(ROUNDS):
        weighted = maps * weights
        normal = weighted @ maps.T
        ridge = RIDGE * float(weights.mean()) * len(values) / len(tissues)
        normal += ridge * torch.eye(len(tissues), dtype=torch.float64, device=image.device)
        levels = torch.linalg.solve(normal, weighted @ values)
        off = (values - levels @ maps).abs()
        scale = 1.4826 * float(off.median()) + 1e-9
        weights = (1 - (off / (CUT * scale)).clamp(max=1) ** 2) ** 2
    levels = levels.to(image.dtype)
    # No product of matrices: in a network's bfloat16 context that would be rounded.
    expected = (levels[:, None, None, None] * tissues).sum(0)
    return expected * brain, levels


def expected_scans(image: Tensor, brain: Tensor, tissues: Tensor) -> Tensor:
    """Give the expected scan of each of a batch.

    Parameters
    ----------
    image, brain
        `(B, 1, X, Y, Z)`; brain is boolean.
    tissues
        `(1, T, X, Y, Z)`.

    Returns
    -------
    torch.Tensor
        `(B, 1, X, Y, Z)`.
    """
    pairs = zip(image[:, 0], brain[:, 0], strict=True)
    return torch.stack([fit_tissues(one, inside, tissues[0])[0] for one, inside in pairs])[:, None]


def contrast_of(levels: Sequence[float]) -> str:
    """Name the contrast that the tissues' intensities show.

    Parameters
    ----------
    levels
        Of `TISSUES`, as `fit_tissues` gives them.

    Returns
    -------
    str
        T1w (white above gray above fluid), T2w (fluid above gray above white), FLAIR (gray above
        white, fluid darkest), or other.
    """
    white, gray, _, fluid = levels
    if white > gray > fluid:
        return "T1w"
    if fluid > gray > white:
        return "T2w"
    if gray >= white > fluid:
        return "FLAIR"
    return "other"
