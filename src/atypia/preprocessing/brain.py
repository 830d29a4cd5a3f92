"""FindBrain: the supplied mask, or the foreground of a skull-stripped scan."""

from __future__ import annotations

from typing import Literal

import numpy as np

from atypia.errors import InputError
from atypia.preprocessing.step import Parameters, State, Step
from atypia.volume import Volume


class FindBrain(Step):
    """Take the supplied brain mask, or everything that is not background."""

    step: Literal["find_brain"] = "find_brain"
    largest_brain_ml: float = 2500.0
    """A foreground larger than this cannot be a brain: the skull is still there."""

    def apply(self, state: State, parameters: Parameters) -> State:
        """Add the mask; see the class.

        Raises
        ------
        InputError
            Mask on another grid, no foreground at all, or a head with its skull.
        """
        image = state.image
        if state.brain is not None:
            image.require_same_grid(state.brain)
            brain = image.with_data(state.brain.data, kind="mask")
        else:
            brain = image.with_data(foreground(image), kind="mask")
        if not brain.data.any():
            problem = "the brain is empty: " + (
                "the brain mask has no voxel" if state.brain else "every voxel has the same value"
            )
            raise InputError(image.source, problem, "Give a scan of a brain")
        size_ml = float(brain.data.sum()) * image.geometry.voxel_volume_mm3 / 1000
        if state.brain is None and size_ml > self.largest_brain_ml:
            raise InputError(
                image.source,
                f"its foreground of {size_ml:.0f} ml is no brain: the skull seems to be there",
                "Strip the skull, or supply a brain mask",
            )
        return State(image, brain)


def foreground(image: Volume) -> np.ndarray:
    """Find the voxels that differ from the background of a skull-stripped scan.

    The background value is the commonest one on the faces of the volume. Holes are filled and
    only the largest connected part is kept.

    Returns
    -------
    numpy.ndarray
        `(X, Y, Z)` boolean; all false when the image is constant.
    """
    from scipy import ndimage

    data = image.data
    faces = np.concatenate([data[[0, -1]].ravel(), data[:, [0, -1]].ravel()])
    faces = np.concatenate([faces, data[:, :, [0, -1]].ravel()])
    values, counts = np.unique(faces, return_counts=True)
    inside = np.asarray(data != values[counts.argmax()])
    if not inside.any():
        return inside
    # Ringing of the stripping tool leaves specks and bridges: only the largest part is the brain.
    labels, count = ndimage.label(inside)
    if count > 1:
        inside = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    return np.asarray(ndimage.binary_fill_holes(inside))
