"""Simulated brains with known lesions and artefacts; nothing here imports torch until it is used.

A subject is anatomy (who), contrast (which scanner), lesion and artefact, each drawn from its own
generator: `sample_...` draws parameters, `render_...` or `apply_...` uses them and is
deterministic.
"""

from __future__ import annotations

from atypia.simulation.anatomy import (
    Anatomy,
    AnatomyParameters,
    render_anatomy,
    sample_anatomy,
    sample_held_out_anatomy,
)
from atypia.simulation.artefacts import (
    ARTEFACTS,
    ArtefactKind,
    ArtefactParameters,
    add_artefact,
    apply_artefact,
    sample_artefact,
)
from atypia.simulation.contrast import (
    MODALITIES,
    ContrastParameters,
    render_contrast,
    sample_contrast,
)
from atypia.simulation.lesions import (
    LESIONS,
    Lesion,
    LesionKind,
    LesionParameters,
    render_lesion,
    sample_lesion,
)
from atypia.simulation.subject import SimulatedSubject, SimulationSettings, simulate_subject

__all__ = [
    "ARTEFACTS",
    "LESIONS",
    "MODALITIES",
    "Anatomy",
    "AnatomyParameters",
    "ArtefactKind",
    "ArtefactParameters",
    "ContrastParameters",
    "Lesion",
    "LesionKind",
    "LesionParameters",
    "SimulatedSubject",
    "SimulationSettings",
    "add_artefact",
    "apply_artefact",
    "render_anatomy",
    "render_contrast",
    "render_lesion",
    "sample_anatomy",
    "sample_artefact",
    "sample_contrast",
    "sample_held_out_anatomy",
    "sample_lesion",
    "simulate_subject",
]
