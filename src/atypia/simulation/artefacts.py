"""Imaging artefacts: the table of names, and the one way in which all of them are applied.

An artefact works on a copy in RAS+ orientation whose background is 0 and whose brain reaches 1
(its 99th percentile), and is brought back afterwards. So it does not depend on how the voxels are
stored nor on the scale of intensities. The brain mask is never changed: an artefact falsifies the
image, not the head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atypia.errors import SettingsError, unknown_name
from atypia.simulation import artefact_effects as effects
from atypia.simulation import artefact_kspace as kspace
from atypia.simulation.artefact_canvas import Canvas
from atypia.simulation.fields import Float
from atypia.volume import Volume


@dataclass(frozen=True)
class ArtefactKind:
    """What `ARTEFACTS` knows about an artefact.

    Parameters
    ----------
    description
        Its physics in one line.
    strength
        At severity 1 and at severity 5, in the unit of the function; geometric in between.
    apply
        Changes a canvas with a strength and a generator for whatever is random.
    """

    description: str
    strength: tuple[float, float]
    apply: Callable[[Canvas, float, np.random.Generator], Float]


@dataclass(frozen=True)
class ArtefactParameters:
    """One artefact: its name, severity from 1 to 5 and the seed of what is random in it."""

    name: str
    severity: float
    seed: int

    @property
    def strength(self) -> float:
        """The severity in the unit of the artefact's function."""
        low, high = ARTEFACTS[self.name].strength
        return float(low * (high / low) ** ((self.severity - 1) / 4))


ARTEFACTS: Mapping[str, ArtefactKind] = {
    "gaussian_noise": ArtefactKind(
        "thermal noise: complex Gaussian noise in k-space, seen in the magnitude image",
        (0.02, 0.15),
        effects.gaussian_noise,
    ),
    "spike": ArtefactKind(
        "an electric discharge during the readout: single points of k-space, herringbone pattern",
        (0.025, 0.25),
        effects.spike,
    ),
    "periodic_line": ArtefactKind(
        "interference at one frequency: a conjugate pair of k-space points, parallel stripes",
        (0.025, 0.35),
        effects.periodic_line,
    ),
    "ring": ArtefactKind(
        "concentric ripples round one axis, as from a miscalibrated detector or truncation",
        (0.04, 0.45),
        effects.ring,
    ),
    "zipper": ArtefactKind(
        "radio interference leaks in: dotted lines across the phase-encoding direction",
        (0.1, 1.6),
        effects.zipper,
    ),
    "ghosting": ArtefactKind(
        "every n-th k-space line is weaker (pulsation): faint copies along phase encoding",
        (0.08, 0.45),
        kspace.ghosting,
    ),
    "motion": ArtefactKind(
        "the head moves between k-space lines: blurred edges and ripples along phase encoding",
        (0.3, 4.5),
        kspace.motion,
    ),
    "bias_field": ArtefactKind(
        "uneven coil sensitivity: a smooth factor over the image",
        (0.25, 1.3),
        effects.bias_field,
    ),
    "top_chunk": ArtefactKind(
        "field of view too short: the top of the head is missing",
        (0.03, 0.35),
        effects.top_chunk,
    ),
    "middle_chunk": ArtefactKind(
        "lost slices: a slab in the middle of the head is missing",
        (0.02, 0.25),
        effects.middle_chunk,
    ),
    "smoothing": ArtefactKind(
        "low resolution: high frequencies of k-space are missing",
        (0.5, 2.6),
        effects.smoothing,
    ),
    "gibbs": ArtefactKind(
        "truncation: the outer k-space lines are missing, ringing at edges along phase encoding",
        (0.45, 0.82),
        kspace.gibbs,
    ),
    "folding": ArtefactKind(
        "field of view too small along phase encoding: the ends of the head wrap round",
        (0.05, 0.35),
        effects.folding,
    ),
    "bad_line": ArtefactKind(
        "the receiver's gain is wrong for a few k-space lines: stripes across phase encoding",
        (0.05, 0.32),
        kspace.bad_line,
    ),
    "bad_point": ArtefactKind(
        "single wrong points anywhere in k-space: a weave of fine and coarse stripes",
        (0.01, 0.11),
        kspace.bad_point,
    ),
    "empty_line": ArtefactKind(
        "k-space lines are lost, at regular or random intervals: copies and haze",
        (0.04, 0.5),
        kspace.empty_line,
    ),
    "line_shift": ArtefactKind(
        "a jump while some rows or slices are taken: this block is displaced sideways",
        (0.8, 14),
        effects.line_shift,
    ),
    "susceptibility": ArtefactKind(
        "an air-filled cavity disturbs the field: distortion and signal loss next to it",
        (1.5, 14),
        effects.susceptibility,
    ),
}
"""Name -> artefact."""

ALIASES: Mapping[str, str] = {
    "Gaussian_noise": "gaussian_noise",
    "bad_data_line": "bad_line",
    "bad_data_point": "bad_point",
    "gibbs_ringing": "gibbs",
    "wrap_around": "folding",
}
"""Other spellings that are accepted: those of IterMask3D and other names of the same physics."""


def canonical_name(name: str) -> str:
    """Give the name under which an artefact stands in `ARTEFACTS`.

    Raises
    ------
    SettingsError
        The name is unknown.
    """
    known = ALIASES.get(name, name)
    if known not in ARTEFACTS:
        raise unknown_name("artefact", name, ARTEFACTS)
    return known


def sample_artefact(name: str, severity: float, rng: np.random.Generator) -> ArtefactParameters:
    """Draw an artefact; the draw does not depend on the severity.

    Parameters
    ----------
    name
        Key of `ARTEFACTS` or `ALIASES`.
    severity
        1 barely visible, 3 clear, 5 gross.
    rng
        Where the chance comes from.

    Raises
    ------
    SettingsError
        The name is unknown or the severity is not between 1 and 5.
    """
    known = canonical_name(name)
    if not 1 <= severity <= 5:
        raise SettingsError(
            f"severity {severity}", "not between 1 and 5", "Use 1 (barely visible) to 5 (gross)"
        )
    return ArtefactParameters(known, float(severity), int(rng.integers(2**31)))


def apply_artefact(volume: Volume, brain: Volume | None, parameters: ArtefactParameters) -> Volume:
    """Falsify an image.

    Parameters
    ----------
    volume
        Any orientation; the lowest intensity is taken for the background.
    brain
        Mask on the same grid, which sets the intensity scale and the extent of the head; None
        takes everything brighter than the background.
    parameters
        From `sample_artefact`.

    Returns
    -------
    Volume
        float32 on the same grid.
    """
    if brain is not None:
        volume.require_same_grid(brain)
    upright = volume.canonical()
    data = np.ascontiguousarray(upright.data, dtype=np.float32)
    floor = data.min()
    raised = data - floor
    inside = raised > 0 if brain is None else np.ascontiguousarray(brain.canonical().data)
    reference = np.percentile(raised[inside], 99) if inside.any() else 0.0
    if reference <= 0:
        return volume.with_data(volume.data.astype(np.float32))
    canvas = Canvas(raised / np.float32(reference), inside, upright.spacing_mm)
    rng = np.random.default_rng(parameters.seed)
    kind = ARTEFACTS[canonical_name(parameters.name)]
    changed = kind.apply(canvas, parameters.strength, rng)
    result = changed.astype(np.float32) * np.float32(reference) + floor
    return volume.with_data(_turned_back(result, volume.affine))


def add_artefact(
    volume: Volume, name: str, severity: float, seed: int, brain: Volume | None = None
) -> Volume:
    """Draw and apply an artefact in one go."""
    parameters = sample_artefact(name, severity, np.random.default_rng(seed))
    return apply_artefact(volume, brain, parameters)


def _turned_back(data: Float, affine: NDArray[np.float64]) -> Float:
    """Undo `Volume.canonical`."""
    import nibabel.orientations as orientations

    upright = np.array([[0, 1], [1, 1], [2, 1]])
    stored = orientations.io_orientation(affine)
    back = orientations.ornt_transform(upright, stored)
    turned = orientations.apply_orientation(data, back)
    return np.ascontiguousarray(turned)
