"""Brain extraction by others: the network of deepbet, or any program that writes a mask.

deepbet (Fisch et al. 2024, https://arxiv.org/abs/2308.07003) ships its weights inside its wheel,
as TorchScript archives that it reads with `torch.jit.load`; no Python pickle is executed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from atypia import io
from atypia.errors import InputError, MissingDependencyError, SettingsError
from atypia.volume import Array, Volume

PERMISSION = "ATYPIA_RUN_COMMANDS"
"""Environment variable; "1" lets plans run commands. A plan may come with a model from elsewhere,
and a model must not be able to start programs unasked."""


def by_deepbet(image: Volume) -> Array:
    """Find the brain of a T1w, T2w, FLAIR or PD head with deepbet, on the CPU.

    Returns
    -------
    numpy.ndarray
        `(X, Y, Z)` boolean.

    Raises
    ------
    MissingDependencyError
        deepbet is not installed.
    InputError
        The network finds no brain.
    """
    import nibabel

    head = nibabel.Nifti1Image(image.data.astype(np.float32), image.affine)
    try:
        # Its largest part and box are sought without asking whether there is anything at all.
        _, mask, _ = _deepbet().run(head)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise InputError(
            image.source, f"deepbet finds no brain ({error})", "Supply a brain mask"
        ) from error
    return np.asarray(mask.dataobj) > 0


@cache
def _deepbet() -> Any:
    try:
        with warnings.catch_warnings():
            # torch announces that it will drop TorchScript, the format of deepbet's weights.
            warnings.simplefilter("ignore")
            from deepbet import BrainExtraction

            return BrainExtraction(no_gpu=True)
    except ImportError as error:
        raise MissingDependencyError(
            "brain extraction", f"needs deepbet ({error})", "pip install deepbet"
        ) from error


def words_of(command: str, **places: object) -> list[str]:
    """Split a command into words and put paths into `{image}` and `{output}`.

    Raises
    ------
    ValueError
        A place-holder is absent or unknown, or a quotation is not closed.
    """
    places = places or {"image": "image", "output": "output"}
    words = shlex.split(command)
    for name in places:
        if not any(f"{{{name}}}" in word for word in words):
            raise ValueError(f"the command has no {{{name}}}")
    try:
        return [word.format(**places) for word in words]
    except (KeyError, IndexError) as error:
        raise ValueError(f"the command has an unknown place-holder {error}") from error


def by_command(image: Volume, command: str) -> Volume:
    """Let another program find the brain, in a folder that is removed afterwards.

    Parameters
    ----------
    image
        A head.
    command
        Its `{image}` becomes the path of the head, its `{output}` the path where the program is
        to write a mask or a skull-stripped image on the same grid; both are `.nii.gz`.

    Returns
    -------
    Volume
        What it wrote.

    Raises
    ------
    SettingsError
        Nobody allowed plans to run commands.
    MissingDependencyError
        There is no such program.
    InputError
        It fails, writes nothing, or writes an image on another grid.
    """
    if os.environ.get(PERMISSION) != "1":
        raise SettingsError(
            f"command {command!r}",
            "plans may not run commands unless you allow it",
            f"Set {PERMISSION}=1 if you trust this plan",
        )
    with tempfile.TemporaryDirectory(prefix="atypia-brain-") as folder:
        head, output = Path(folder) / "image.nii.gz", Path(folder) / "output.nii.gz"
        io.write(image, head)
        words = words_of(command, image=head, output=output)
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd=folder
            )
        except OSError as error:
            raise MissingDependencyError(
                f"command {command!r}", f"cannot be started ({error})", f"Install {words[0]}"
            ) from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            why = f": {said[-1]}" if said else ""
            raise InputError(
                image.source,
                f"{words[0]} failed with exit status {done.returncode}{why}",
                "Run the command by hand to see why",
            )
        if not output.exists():
            raise InputError(
                image.source, f"{words[0]} wrote no {{output}}", "Check the plan's command"
            )
        found = io.read(output)
        image.require_same_grid(found)
        return found
