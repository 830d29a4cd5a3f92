"""One simulated subject: settings and a seed in, image, brain mask and lesion mask out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pydantic

from atypia.errors import AtypiaError
from atypia.settings import Settings
from atypia.simulation.acquisition import acquire, sample_acquisition
from atypia.simulation.anatomy import render_anatomy, sample_anatomy, sample_held_out_anatomy
from atypia.simulation.artefacts import apply_artefact, canonical_name, sample_artefact
from atypia.simulation.contrast import ANY, Modality, render_contrast, sample_contrast
from atypia.simulation.lesions import LESIONS, render_lesion, sample_lesion
from atypia.volume import Volume

ANATOMY, CONTRAST, LESION, ARTEFACT, ACQUISITION = range(5)
"""Each part of a subject draws from its own generator, so that changing one leaves the others."""


ANATOMIES = {"usual": sample_anatomy, "held_out": sample_held_out_anatomy}


class SimulationSettings(Settings):
    """What to simulate."""

    modality: Modality = "T2w"
    """Contrast of the image. "any" draws one at random, and with it resolution, field of view and
    faults of the brain mask: healthy brains to learn from for whatever contrast is to come."""

    spacing_mm: float = pydantic.Field(1.0, ge=0.5, le=6)
    """Edge of the isotropic voxels, mm."""

    anatomy: Literal["usual", "held_out"] = "usual"
    """Which generator draws the brain: the one to learn from, or one that is kept for tests."""

    lesion: str | None = None
    """Name of a lesion, None for a healthy brain."""

    artefact: str | None = None
    """Name of an imaging artefact, None for a clean image."""

    severity: float = pydantic.Field(3.0, ge=1, le=5)
    """Strength of the artefact: 1 barely visible, 3 clear, 5 gross."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tiny": {"spacing_mm": 4.0}}

    @pydantic.field_validator("lesion")
    @classmethod
    def _known_lesion(cls, name: str | None) -> str | None:
        if name is not None and name not in LESIONS:
            raise ValueError(f"unknown lesion {name!r}, known: {', '.join(LESIONS)}")
        return name

    @pydantic.model_validator(mode="after")
    def _lesions_have_a_contrast(self) -> Self:
        if self.modality == ANY and self.lesion is not None:
            raise ValueError("lesions are simulated in T1w, T2w and FLAIR, not in any contrast")
        return self

    @pydantic.field_validator("artefact")
    @classmethod
    def _known_artefact(cls, name: str | None) -> str | None:
        try:
            return None if name is None else canonical_name(name)
        except AtypiaError as error:
            raise ValueError(str(error).rstrip(".")) from error


@dataclass(frozen=True, eq=False)
class SimulatedSubject:
    """One simulated scan.

    Parameters
    ----------
    image
        float32, exactly 0 outside the brain unless an artefact reaches there.
    brain
        Brain mask, on the image's grid.
    lesion
        The true lesion mask, empty when healthy.
    parameters
        What was drawn, as plain JSON values.
    """

    image: Volume
    brain: Volume
    lesion: Volume
    parameters: dict[str, Any]


def simulate_subject(settings: SimulationSettings, seed: int) -> SimulatedSubject:
    """Simulate one subject; the same settings and seed give the same voxels.

    Anatomy, scanner, lesion and artefact come from separate generators. So the same seed is the
    same person, and `simulate_subject(settings.but(lesion=None), seed)` is the healthy twin.

    Parameters
    ----------
    settings
        What to simulate.
    seed
        Who; not negative.
    """
    rngs = [np.random.default_rng([seed, part]) for part in range(5)]
    body = ANATOMIES[settings.anatomy](rngs[ANATOMY])
    protocol = sample_contrast(rngs[CONTRAST], settings.modality)
    parameters: dict[str, Any] = {
        "seed": seed,
        "anatomy": body.to_json(),
        "contrast": asdict(protocol),
        "lesion": None,
        "artefact": None,
        "acquisition": None,
    }
    anatomy = render_anatomy(body, settings.spacing_mm)
    brain = anatomy.brain_volume()
    mask = np.zeros(brain.shape, dtype=bool)
    if settings.lesion is None:
        voxels = render_contrast(anatomy, protocol)
    else:
        planned = sample_lesion(rngs[LESION], settings.lesion)
        lesion = render_lesion(anatomy, planned)
        voxels = render_contrast(lesion.anatomy, protocol, lesion.components)
        mask, parameters["lesion"] = lesion.mask, planned.to_json()
    image = Volume(voxels, anatomy.affine, source=f"simulated subject {seed}")
    if settings.modality == ANY:
        acquisition = sample_acquisition(rngs[ACQUISITION])
        image, brain = acquire(image, brain, acquisition)
        parameters["acquisition"] = asdict(acquisition)
    if settings.artefact is not None:
        fault = sample_artefact(settings.artefact, settings.severity, rngs[ARTEFACT])
        image, parameters["artefact"] = apply_artefact(image, brain, fault), asdict(fault)
    return SimulatedSubject(image, brain, brain.with_data(mask, kind="mask"), parameters)
