"""FindBrain: the supplied mask, the foreground of a skull-stripped scan, or a brain extraction."""

from __future__ import annotations

import importlib.util
from typing import Literal

import numpy as np
from pydantic import model_validator

from atypia.errors import InputError, MissingDependencyError
from atypia.preprocessing import skull
from atypia.preprocessing.step import Parameters, State, Step
from atypia.volume import Array, Volume

LEAST_BACKGROUND = 0.1
"""A skull-stripped scan has at least this share of background voxels."""


class FindBrain(Step):
    """Take the supplied brain mask, whatever the engine; otherwise find the brain."""

    step: Literal["find_brain"] = "find_brain"
    engine: Literal["auto", "deepbet", "foreground", "command"] = "auto"
    """foreground: all that is not background, for scans without skull; deepbet: a network;
    command: another program; auto: foreground where the skull is gone, else deepbet."""
    command: str = ""
    """The other program, such as `hd-bet -i {image} -o {output}`: it reads the image and writes a
    mask or a skull-stripped image. It is run only if ATYPIA_RUN_COMMANDS=1 is set."""
    largest_brain_ml: float = 2500.0
    """What is larger than this cannot be a brain: the skull is still there."""

    @model_validator(mode="after")
    def _command_fits(self) -> FindBrain:
        if (self.engine == "command") != bool(self.command):
            raise ValueError("engine 'command' and a command go together")
        if self.command:
            skull.words_of(self.command)
        return self

    def measure(self, state: State) -> Parameters:
        """Choose the way: supplied, foreground, deepbet or command.

        Raises
        ------
        MissingDependencyError
            A head with its skull, engine ``"auto"``, and deepbet is not installed.
        """
        if state.brain is not None:
            return {"found_by": "supplied"}
        if self.engine != "auto":
            return {"found_by": self.engine}
        inside = foreground(state.image)
        if not self._too_much(state.image, inside):
            return {"found_by": "foreground"}
        if importlib.util.find_spec("deepbet") is None:
            raise MissingDependencyError(
                state.image.source,
                "the skull seems to be there, and deepbet, which would strip it, is not installed",
                "pip install deepbet, or supply a brain mask",
            )
        return {"found_by": "deepbet"}

    def apply(self, state: State, parameters: Parameters) -> State:
        """Add the mask; see the class.

        Raises
        ------
        InputError
            Mask on another grid, no brain at all, or a head where a stripped one is asked for.
        """
        image = state.image
        found_by = parameters.get("found_by") or self.measure(state)["found_by"]
        if state.brain is not None:
            image.require_same_grid(state.brain)
            inside = state.brain.data
            problem = "the brain mask has no voxel"
        elif found_by == "foreground":
            inside = foreground(image)
            problem = "every voxel has the same value"
        elif found_by == "deepbet":
            inside = skull.by_deepbet(image)
            problem = "deepbet finds none"
        else:
            inside = foreground(skull.by_command(image, self.command))
            problem = "the command's output has the same value everywhere"
        if not inside.any():
            raise InputError(
                image.source, f"the brain is empty: {problem}", "Give a scan of a brain"
            )
        if state.brain is None and self._too_much(image, inside):
            size_ml = float(inside.sum()) * image.geometry.voxel_volume_mm3 / 1000
            raise InputError(
                image.source,
                f"its {found_by} of {size_ml:.0f} ml is no brain: the skull seems to be there"
                if found_by == "foreground"
                else f"{found_by} cannot strip its skull: it leaves {size_ml:.0f} ml",
                "Strip the skull, or supply a brain mask",
            )
        return State(image, image.with_data(inside, kind="mask"))

    def _too_much(self, image: Volume, inside: Array) -> bool:
        """Tell whether a foreground is too large, or leaves too little background, for a brain."""
        size_ml = float(inside.sum()) * image.geometry.voxel_volume_mm3 / 1000
        return size_ml > self.largest_brain_ml or bool(inside.mean() > 1 - LEAST_BACKGROUND)


def foreground(image: Volume) -> Array:
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
    # No hole reaches beyond the box round the part.
    (box,) = ndimage.find_objects(inside.astype(np.int8))
    inside[box] = ndimage.binary_fill_holes(inside[box])
    return np.asarray(inside)
