"""What a scanner makes of a brain: tissue intensities, bias field, gamma and Rician noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from atypia.errors import unknown_name
from atypia.simulation.anatomy import Anatomy
from atypia.simulation.fields import Float, smooth_noise

ANY = "any"
"""Name of random contrast: intensities such as no sequence gives, to learn from for any of them."""

Modality = Literal["T1w", "T2w", "FLAIR", "any"]

MODALITIES: tuple[str, ...] = get_args(Modality)

TISSUES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "T1w": {"gray": (0.70, 0.035), "white": (1.0, 0.03), "csf": (0.30, 0.05), "deep": (0.83, 0.03)},
    "T2w": {"gray": (0.60, 0.04), "white": (0.40, 0.035), "csf": (1.0, 0.06), "deep": (0.47, 0.03)},
    "FLAIR": {
        "gray": (0.80, 0.05),
        "white": (0.60, 0.035),
        "csf": (0.16, 0.05),
        "deep": (0.72, 0.04),
    },
}
"""Modality -> tissue -> mean and standard deviation over subjects of its relative intensity."""

GAIN: Mapping[str, float] = {"T1w": 1.0, "T2w": -0.7, "FLAIR": -0.6, ANY: 1.0}
"""How the texture of the T1 template shows in another modality: inverted and weaker."""

Component = tuple[Float, Mapping[str, float]]
"""A lesion's share `(X, Y, Z)` and, per modality, its intensity; see `relative_intensity`."""


@dataclass(frozen=True)
class ContrastParameters:
    """One scanner, protocol and day.

    Parameters
    ----------
    modality
        ``"T1w"``, ``"T2w"``, ``"FLAIR"`` or ``"any"``.
    gray, white, csf, deep
        Relative intensity of the tissues.
    scale
        Scanner units of relative intensity 1.
    gamma
        Exponent of the relative intensities.
    texture
        How strongly the texture shows; negative: inverted.
    grain
        Standard deviation of the subject's own fine texture, relative.
    bias
        Standard deviation of the logarithm of the bias field.
    noise
        Standard deviation of the noise in either channel, relative.
    seed
        Of grain, bias field and noise.
    """

    modality: str
    gray: float
    white: float
    csf: float
    deep: float
    scale: float
    gamma: float
    texture: float
    grain: float
    bias: float
    noise: float
    seed: int


def sample_contrast(rng: np.random.Generator, modality: str) -> ContrastParameters:
    """Draw a scanner and protocol.

    Raises
    ------
    SettingsError
        The modality is unknown.
    """
    if modality == ANY:
        return _random_contrast(rng)
    if modality not in TISSUES:
        raise unknown_name("modality", modality, MODALITIES)
    means = {
        tissue: float(m + sd * np.clip(rng.normal(), -1.8, 1.8))
        for tissue, (m, sd) in TISSUES[modality].items()
    }
    return ContrastParameters(
        modality=modality,
        gray=means["gray"],
        white=means["white"],
        csf=means["csf"],
        deep=means["deep"],
        scale=float(np.exp(rng.normal(np.log(600), 0.3))),
        gamma=float(np.clip(rng.normal(1, 0.12), 0.75, 1.3)),
        texture=float(rng.uniform(0.7, 1.1)),
        grain=float(rng.uniform(0.012, 0.025)),
        bias=float(rng.uniform(0.03, 0.11)),
        noise=float(rng.uniform(0.01, 0.028)),
        seed=int(rng.integers(2**31)),
    )


def _random_contrast(rng: np.random.Generator) -> ContrastParameters:
    """Draw intensities far wider than any sequence has them, as SynthSeg does for labels.

    Source of the idea: Billot et al., SynthSeg, Medical Image Analysis 86 (2023). At least two of
    the three tissues differ clearly; deep gray matter lies between gray and white matter or a
    little beyond.
    """
    gray, white, csf = rng.uniform(0.08, 1.0, 3)
    while max(gray, white, csf) - min(gray, white, csf) < 0.25:
        gray, white, csf = rng.uniform(0.08, 1.0, 3)
    between = rng.uniform(-0.2, 0.8)
    return ContrastParameters(
        modality=ANY,
        gray=float(gray),
        white=float(white),
        csf=float(csf),
        deep=float(np.clip(gray + between * (white - gray), 0.05, 1.1)),
        scale=float(np.exp(rng.normal(np.log(600), 0.5))),
        gamma=float(np.exp(rng.normal(0, 0.3))),
        texture=float(rng.uniform(-1.1, 1.1)),
        grain=float(rng.uniform(0.005, 0.04)),
        bias=float(rng.uniform(0.0, 0.2)),
        noise=float(rng.uniform(0.005, 0.05)),
        seed=int(rng.integers(2**31)),
    )


def render_contrast(
    anatomy: Anatomy, parameters: ContrastParameters, lesion: Sequence[Component] = ()
) -> Float:
    """Make the image `(X, Y, Z)`, float32, of an anatomy.

    Parameters
    ----------
    anatomy
        The tissues.
    parameters
        From `sample_contrast`.
    lesion
        Lesion tissue that takes the place of the anatomy's, in the order of painting.

    Returns
    -------
    float32 array
        Scanner units, some hundreds; positive inside the brain and exactly 0 outside.
    """
    rng = np.random.default_rng(parameters.seed)
    spacing = anatomy.geometry.spacing_mm[0]
    image = tissue_intensity(anatomy, parameters)
    grain = smooth_noise(rng, max(3.0, spacing), anatomy.geometry)
    for share, levels in lesion:
        image += share * (relative_intensity(levels, parameters) - image)
    image += np.float32(parameters.grain) * grain * (1 - 0.7 * anatomy.csf)
    image = np.maximum(image, 0.02) ** np.float32(parameters.gamma)
    image *= np.exp(np.float32(parameters.bias) * smooth_noise(rng, 75.0, anatomy.geometry))
    real, imaginary = rng.standard_normal((2, *image.shape), dtype=np.float32)
    sigma = np.float32(parameters.noise)
    image = np.hypot(image + sigma * real, sigma * imaginary)
    return np.where(anatomy.brain, np.maximum(image, 1e-4) * np.float32(parameters.scale), 0)


def tissue_intensity(anatomy: Anatomy, parameters: ContrastParameters) -> Float:
    """Weigh the tissues' intensities by their shares and add the template's texture."""
    gray = parameters.gray + anatomy.deep * np.float32(parameters.deep - parameters.gray)
    image = anatomy.gray * gray
    image += anatomy.white * np.float32(parameters.white)
    image += anatomy.csf * np.float32(parameters.csf)
    # In T1 the texture is a fraction of white matter; elsewhere it follows the tissue contrast.
    gain = parameters.texture * GAIN[parameters.modality]
    image += np.float32(gain) * anatomy.texture * (1 - anatomy.csf)
    return np.asarray(image, dtype=np.float32)


def relative_intensity(levels: Mapping[str, float], parameters: ContrastParameters) -> np.float32:
    """Place a lesion's tissue between or beyond this subject's tissues.

    Parameters
    ----------
    levels
        Modality -> position on the scale CSF = 0, gray matter = 1. So in T1 2 is brighter than
        gray matter, in T2 0.5 lies half way from gray matter to CSF, in FLAIR 1.5 is far brighter
        than gray matter.
    parameters
        This subject's intensities.
    """
    level = levels[parameters.modality]
    return np.float32(parameters.csf + level * (parameters.gray - parameters.csf))
