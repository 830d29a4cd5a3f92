"""The table of detectors; a new method is one file and one line here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atypia.errors import unknown_name

if TYPE_CHECKING:
    from atypia.detectors.base import Detector


@dataclass(frozen=True)
class Method:
    """One line of the table.

    Parameters
    ----------
    place
        ``"module:Class"``; imported only when the method is used.
    summary
        What it does, in one line.
    aliases
        Other names, e.g. the paper's acronym.
    baseline
        Fitted and shown beside every other method.
    """

    place: str
    summary: str
    aliases: tuple[str, ...] = ()
    baseline: bool = False


METHODS: dict[str, Method] = {
    "intensity": Method(
        "atypia.detectors.intensity:Intensity",
        "Histogram-equalised hyper- or hypo-intensity (Meissen et al. 2021)",
        baseline=True,
    ),
    "zscore": Method(
        "atypia.detectors.zscore:ZScore",
        "Voxel-wise deviation from the mean of aligned healthy brains",
        aliases=("z-score", "normative"),
        baseline=True,
    ),
    "prior_residual": Method(
        "atypia.detectors.prior_residual:PriorResidual",
        "Coarse deviation from the mean healthy brain: mask refinement without its network",
        baseline=True,
    ),
    "mask_refinement": Method(
        "atypia.detectors.mask_refinement:MaskRefinement",
        "Iterative spatial mask refinement with high-frequency guidance (IterMask3D)",
        aliases=("itermask3d", "itermask"),
    ),
    "diffusion": Method(
        "atypia.detectors.diffusion:Diffusion",
        "Diffusion on slices, scored over many restorations (cDDPM, pDDPM, Mahalanobis)",
        aliases=("cddpm",),
    ),
    "implicit_field": Method(
        "atypia.detectors.implicit_field:ImplicitField",
        "Implicit field: a decoder of positions, a code fitted to each scan (IFL)",
        aliases=("ifl",),
    ),
    "patch_autoencoder": Method(
        "atypia.detectors.patch_autoencoder:PatchAutoencoder",
        "Autoencoder of patch features (3D CNN, self-supervised or written-down)",
    ),
    "memory_bank": Method(
        "atypia.detectors.memory_bank:MemoryBank",
        "Distance to the nearest healthy patches of the region (PatchCore in 3D)",
        aliases=("patchcore",),
    ),
    "padim": Method(
        "atypia.detectors.padim:Padim",
        "A Gaussian of patch features at each place of the template (PaDiM in 3D)",
    ),
    "denoising_autoencoder": Method(
        "atypia.detectors.denoising_autoencoder:DenoisingAutoencoder",
        "Denoising autoencoder with coarse noise, in 3D (Kascenas et al. 2022)",
        aliases=("dae",),
    ),
    "synthetic_restoration": Method(
        "atypia.detectors.synthetic_restoration:SyntheticRestoration",
        "One-pass 3D restoration learnt on synthetic anomalies (after DISYRE)",
        aliases=("disyre",),
    ),
    "ensemble": Method(
        "atypia.detectors.ensemble:Ensemble",
        "Several detectors' score maps as one, by their ranks among healthy scores",
    ),
}


def method_named(name: str) -> str:
    """Give the registered name for a name or alias, in any case.

    Raises
    ------
    SettingsError
        Unknown.
    """
    wanted = name.lower()
    for method, line in METHODS.items():
        if wanted == method or wanted in line.aliases:
            return method
    raise unknown_name("method", name, METHODS)


def detector_class(name: str) -> type[Detector]:
    """Import and give the detector class of a method."""
    module, class_name = METHODS[method_named(name)].place.split(":")
    found: type[Detector] = getattr(importlib.import_module(module), class_name)
    return found
