"""Quality of prepared scans: figures of one scan, and how far each lies from the cohort's.

A figure is strange when its robust z lies beyond `STRANGE`: its distance from the cohort's median
in units of the spread, 1.4826 times the median absolute deviation (Iglewicz and Hoaglin 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Self

import numpy as np

from atypia.preprocessing import Prepared
from atypia.resampling import resample
from atypia.templates import mni152
from atypia.volume import MNI152_SPACE, Array, Geometry

QUALITY_FORMAT = 1
LEVELS = np.linspace(0, 1, 201)
"""By these quantiles the intensities of a scan are remembered."""
STRANGE = 3.5
FEWEST = 5
"""In a smaller cohort nothing can be called strange."""


@dataclass(frozen=True)
class Measure:
    """One figure of a scan.

    Parameters
    ----------
    title, meaning
        For the page.
    least_spread
        The cohort's spread counts as at least this, so that scans that are all alike but for a
        trifle do not make an outlier.
    low, high
        Which side is strange.
    """

    title: str
    meaning: str
    least_spread: float
    low: bool = True
    high: bool = True


MEASURES = {
    "brain_ml": Measure("brain volume", "Of the brain mask on the scan's own grid, ml.", 25.0),
    "overlap": Measure(
        "overlap with the template",
        "Dice of the aligned brain mask and the template's brain.",
        0.005,
        high=False,
    ),
    "skewness": Measure("skewness", "Of the normalised intensities in the brain.", 0.1),
    "roughness": Measure(
        "roughness",
        "Spread of each voxel about the mean of its neighbours, in units of the spread of the "
        "brain: high with noise and motion, low with blur.",
        0.01,
    ),
    "distance": Measure(
        "distance of the histogram",
        "How far the normalised intensities must be moved to be the cohort's, in their units.",
        0.02,
        low=False,
    ),
}
"""Name -> figure, in the order of the page."""


@dataclass(frozen=True)
class Quality:
    """Figures of one prepared scan.

    Parameters
    ----------
    brain_ml, overlap, skewness, roughness
        See `MEASURES`; `overlap` is None for a scan that is not in the template's space.
    quantiles
        Of the normalised intensities in the brain, at `LEVELS`.
    """

    brain_ml: float
    overlap: float | None
    skewness: float
    roughness: float
    quantiles: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON values."""
        return {"format": QUALITY_FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self | None:
        """Read them back; None when another version wrote them."""
        rest = dict(values)
        if rest.pop("format", None) != QUALITY_FORMAT:
            return None
        return cls(**{**rest, "quantiles": tuple(rest["quantiles"])})


@dataclass(frozen=True)
class Verdict:
    """How one scan looks beside its cohort.

    Parameters
    ----------
    values
        Its figures by name; those that it lacks are left out.
    z
        Robust z by name; none in a cohort of fewer than `FEWEST`.
    remarks
        What is strange, in words.
    """

    values: dict[str, float]
    z: dict[str, float]
    remarks: tuple[str, ...]

    @property
    def largest_z(self) -> float:
        """The largest robust z on a side that is strange."""
        sides = [_strangeness(MEASURES[name], z) for name, z in self.z.items()]
        return max(sides, default=0.0)


def measure(prepared: Prepared) -> Quality:
    """Measure one prepared scan."""
    brain = prepared.brain.data
    values = prepared.image.data[brain].astype(np.float64)
    native = prepared.native_brain
    spread = float(values.std()) or 1.0
    return Quality(
        brain_ml=float(native.data.sum()) * native.geometry.voxel_volume_mm3 / 1000,
        overlap=_overlap(prepared) if prepared.image.space == MNI152_SPACE else None,
        skewness=float((((values - values.mean()) / spread) ** 3).mean()),
        roughness=_roughness(prepared.image.data, brain) / spread,
        quantiles=tuple(round(float(q), 5) for q in np.quantile(values, LEVELS)),
    )


def compare(cohort: Sequence[Quality]) -> list[Verdict]:
    """Compare every scan with the cohort.

    Returns
    -------
    list of Verdict
        In the order of the cohort.
    """
    if not cohort:
        return []
    usual = np.median([quality.quantiles for quality in cohort], axis=0)
    figures: dict[str, list[float | None]] = {
        name: [getattr(quality, name) for quality in cohort]
        for name in MEASURES
        if name != "distance"
    }
    figures["distance"] = [float(np.abs(np.array(q.quantiles) - usual).mean()) for q in cohort]
    scores = {name: _robust_z(column, MEASURES[name]) for name, column in figures.items()}
    verdicts = []
    for i in range(len(cohort)):
        values = {name: v for name in figures if (v := figures[name][i]) is not None}
        z = {name: scores[name][i] for name in values if scores[name]}
        remarks = [r for name in z if (r := _remark(name, values[name], z[name]))]
        verdicts.append(Verdict(values, z, tuple(remarks)))
    return verdicts


def template_brain(grid: Geometry) -> Array:
    """Give the template's brain on a working grid, boolean."""
    return _template_brain(grid.shape, grid.affine.tobytes())


@cache
def _template_brain(shape: tuple[int, int, int], affine: bytes) -> Array:
    grid = Geometry(shape, np.frombuffer(affine).reshape(4, 4))
    return resample(mni152().brain, grid).data


def _overlap(prepared: Prepared) -> float:
    brain, template = prepared.brain.data, template_brain(prepared.brain.geometry)
    return float(2 * (brain & template).sum() / max(int(brain.sum() + template.sum()), 1))


def _roughness(image: Array, brain: Array) -> float:
    """Give the spread about the mean of the neighbours, where all neighbours are brain."""
    from scipy import ndimage

    inside = ndimage.binary_erosion(brain, np.ones((3, 3, 3)))
    if not inside.any():
        return 0.0
    rest = image - ndimage.uniform_filter(image, 3)
    return float(rest[inside].std(dtype=np.float64))


def _robust_z(column: Sequence[float | None], measure: Measure) -> list[float]:
    known = np.array([value for value in column if value is not None])
    if known.size < FEWEST:
        return []
    centre = float(np.median(known))
    spread = max(1.4826 * float(np.median(np.abs(known - centre))), measure.least_spread)
    return [0.0 if value is None else (value - centre) / spread for value in column]


def _strangeness(measure: Measure, z: float) -> float:
    return max(z if measure.high else 0.0, -z if measure.low else 0.0)


def _remark(name: str, value: float, z: float) -> str:
    measure = MEASURES[name]
    if _strangeness(measure, z) <= STRANGE:
        return ""
    side = "above" if z > 0 else "below"
    return f"{measure.title} {value:.4g} is far {side} the others' (z {z:+.1f})"
