"""What callers hand in, as the parts below want it: tensors, arrays or volumes of one shape."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atypia.errors import InputError
from atypia.volume import Volume

Given = Tensor | NDArray[Any] | Volume
Triple = tuple[int, int, int]


def as_array(given: Any) -> NDArray[Any]:
    """Give a tensor, an array, a list or a volume as an array."""
    if isinstance(given, Volume):
        return given.data
    return given.detach().cpu().float().numpy() if isinstance(given, Tensor) else np.asarray(given)


def as_volume(given: Given) -> Tensor:
    """Give a scan as a float32 tensor `(C, D, H, W)`; one without channels gets one.

    Raises
    ------
    InputError
        It has another number of axes, or is not finite.
    """
    if isinstance(given, Tensor):
        tensor = given.detach().cpu().float()
    else:
        # torch warns of arrays that cannot be written, as those of volumes.
        tensor = torch.from_numpy(np.require(as_array(given), np.float32, ["C", "W"]))
    if tensor.ndim not in (3, 4):
        problem = f"of shape {tuple(tensor.shape)} is neither (D, H, W) nor (C, D, H, W)"
        raise InputError("volume", problem, "Give one scan")
    if not torch.isfinite(tensor).all():
        raise InputError("volume", "holds NaN or infinite values", "Mend the scan")
    return tensor[None] if tensor.ndim == 3 else tensor


def as_map(given: Given) -> NDArray[np.float32]:
    """Give a score map or a mask as an array `(D, H, W)`, without its channel axis."""
    values = as_array(given)
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    if values.ndim != 3:
        problem = f"of shape {values.shape} is neither (D, H, W) nor (1, D, H, W)"
        raise InputError("map", problem, "Give the map of one scan")
    return np.asarray(values, np.float32)


def as_rows(given: Any) -> Tensor:
    """Give feature vectors as a float32 tensor `(N, E)`.

    Raises
    ------
    InputError
        There is none, they have another number of axes, or are not finite.
    """
    tensor = torch.as_tensor(given).detach().cpu().float()
    if tensor.ndim != 2 or not len(tensor) or not torch.isfinite(tensor).all():
        problem = f"of shape {tuple(tensor.shape)} are not (N, E), none, or not finite"
        raise InputError("features", problem, "Give one vector for each patch")
    return tensor


def as_truth(given: Any) -> NDArray[np.bool_]:
    """Give a true mask as booleans of the same shape.

    A mask that went through normalisation has a background below zero: then what is above zero is
    inside, else what is above one half.
    """
    values = as_array(given)
    if values.dtype == bool or not values.size:
        return values.astype(bool)
    return np.asarray(values > (0 if values.min() < 0 else 0.5))


def is_several(given: Any) -> bool:
    """Tell a list of images from one image or one list of numbers."""
    return isinstance(given, list | tuple) and len(given) > 0 and np.ndim(given[0]) > 0


def spatial(shape: Sequence[int]) -> Triple:
    """Give the last three of a shape's lengths."""
    x, y, z = (int(length) for length in tuple(shape)[-3:])
    return x, y, z


def three(value: int | Sequence[int]) -> Triple:
    """Give a size for all three axes."""
    return (value,) * 3 if isinstance(value, int) else spatial(value)


def device_of(device: str | torch.device | None) -> torch.device:
    """Give the device of that name; None and "auto" are the first GPU if there is one.

    Without a GPU "cuda" is the CPU, and a warning says so.
    """
    if device in (None, "auto"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        warnings.warn("no GPU is there: everything runs on the CPU", stacklevel=3)
        return torch.device("cpu")
    return found


def plain(value: Any) -> Any:
    """Give a configuration as JSON would give it back: tuples as lists, keys as text."""
    return json.loads(json.dumps(value))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw weights by a seed; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
