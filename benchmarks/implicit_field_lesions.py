"""Simulated lesions in T2w brains at 3 mm found by implicit fields, beside the baselines.

`implicit_field` and every baseline learn on the same 32 healthy simulated brains and are calibrated
on others; tumours and strokes are planted in further ones. What lies between two training subjects'
codes, and brains drawn from the codes' distribution, go into `implicit-field.png`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from atypia.detectors.implicit_field import ImplicitField, ImplicitFieldSettings
from benchmarks import lesions

SEED = 0
OUTPUT = Path("benchmark-output/implicit_field_lesions")


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train, calibrate, evaluate, draw; the quick run is 6 mm with a few scans and steps."""
    folder = OUTPUT / ("quick" if quick else "full")
    spacing = 6.0 if quick else 3.0
    settings = ImplicitFieldSettings.make(
        {"spacing_mm": spacing, "align": "none", "seed": SEED}
        | ({"training": {"steps": 10}} if quick else {})
    )
    rows, figures, detector = lesions.compared(
        "implicit_field", settings, folder, spacing, each=1 if quick else 6
    )
    assert isinstance(detector, ImplicitField)
    _draw(detector, folder / "implicit-field.png")
    return rows, figures


def _draw(detector: ImplicitField, path: Path) -> None:
    """Draw the middle slice from one code to another, and of brains that nobody has."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rng = np.random.default_rng(SEED)
    prior, shares = detector.prior(), (0, 0.25, 0.5, 0.75, 1)
    first, second = detector.codes_[:2]
    between = [(1 - share) * first + share * second for share in shares]
    drawn = [
        (prior.mean.numpy() + prior.spread.numpy() * rng.normal(size=len(first))).astype(np.float32)
        for _ in shares
    ]
    figure, axes = pyplot.subplots(2, len(shares), figsize=(8.5, 4.4))
    names = [f"{1 - share:g} first + {share:g} second" for share in shares]
    for row, codes in zip(axes, (between, drawn), strict=True):
        for axis, code in zip(row, codes, strict=True):
            image = detector.brain_of(code).data
            image = np.where(image == 0, image.min(), image)  # black background
            axis.imshow(image[..., image.shape[2] // 2].T, cmap="gray", origin="lower")
            axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=8)
    axes[0][0].set_ylabel("between two subjects", fontsize=8)
    axes[1][0].set_ylabel("drawn", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
