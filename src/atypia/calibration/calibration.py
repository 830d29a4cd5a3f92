"""Calibration: a threshold and the healthy scores behind it, with its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydantic
from pydantic import Field

from atypia import files
from atypia.errors import InputError, ModelError
from atypia.settings import Settings


@dataclass(frozen=True)
class Threshold:
    """A cut-off for scores and where it came from.

    Parameters
    ----------
    value
        A voxel is flagged when its score is above this.
    provenance
        ``"healthy n=12, ..."``, ``"labelled validation"``, or ``"oracle"`` when it was chosen
        on the very labels that it is judged by.
    """

    value: float
    provenance: str


class Calibration(Settings):
    """What healthy scans, held out from training, score under one fitted detector.

    It can be replaced without fitting the detector again; it changes masks and p-values, never
    the score map.
    """

    voxel_threshold: float
    """Score above which a share `voxel_fpr` of all healthy brain voxels lies."""
    voxel_fpr: float = Field(gt=0, lt=1)
    subject_scores: tuple[float, ...] = Field(min_length=1)
    """Subject-level score of every healthy scan."""
    flagged_share: tuple[float, ...]
    """Share of each healthy scan's brain voxels above the threshold: how far scans differ."""
    people: tuple[str, ...]
    """Digests of the subjects, for the leakage check."""
    cohort: str
    """Name of the healthy cohort."""
    detector: str
    """Digest of the fitted detector that the scores belong to."""
    smallest_mm3: float = Field(0.0, ge=0)
    """Flagged components smaller than this are dropped from masks."""

    @property
    def threshold(self) -> Threshold:
        """The voxel threshold with its provenance."""
        return Threshold(self.voxel_threshold, self.provenance)

    @property
    def provenance(self) -> str:
        """Where the threshold came from, in one line."""
        return f"healthy n={len(self.subject_scores)}, voxel FPR {self.voxel_fpr:.2%}"

    def p_value(self, score: float) -> float:
        """Conformal p-value of a subject-level score: `(1 + #healthy >= score) / (1 + n)`.

        Its smallest possible value is `1 / (1 + n)`.
        """
        above = sum(healthy >= score for healthy in self.subject_scores)
        return (1 + above) / (1 + len(self.subject_scores))

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON."""
        files.write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration.

        Raises
        ------
        InputError
            There is no such file.
        ModelError
            It is damaged or of another version.
        """
        try:
            return cls.model_validate(files.read_json(path))
        except (InputError, pydantic.ValidationError) as error:
            if not Path(path).exists():
                raise
            raise ModelError(
                path, "is no calibration of this version", "Run `atypia calibrate` again"
            ) from error
