"""From a volume to its patches: padding, cutting out in bounded memory, which patches to take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from atypia.errors import InputError, SettingsError, unknown_name
from atypia.patches.grid import Numbers, PatchGrid, Triple
from atypia.patches.windows import weights

Padding = Literal["zeros", "reflect"]
Strategy = Literal["uniform", "random", "grid"]


def padded(volume: Tensor, size: int | Triple, mode: Padding = "zeros") -> Tensor:
    """Pad a volume by half a patch on each side, so that patches reach over its border.

    Parameters
    ----------
    volume
        `(C, X, Y, Z)`, floating point.
    size
        Voxels of a patch; `size // 2` voxels are added on each side.
    mode
        "zeros", or "reflect", which mirrors the volume at its outermost voxels.

    Returns
    -------
    torch.Tensor
        `(C, X + 2 (size // 2), ...)`.

    Raises
    ------
    SettingsError
        An unknown mode, or a volume too small to be mirrored.
    """
    if mode not in ("zeros", "reflect"):
        raise unknown_name("padding", mode, ("zeros", "reflect"))
    sizes = (size,) * 3 if isinstance(size, int) else size
    added = [edge // 2 for edge in sizes]
    if mode == "reflect" and any(
        n >= length for n, length in zip(added, volume.shape[1:], strict=True)
    ):
        problem = f"a volume of {tuple(volume.shape[1:])} voxels is too small to mirror {added}"
        raise SettingsError("padding 'reflect'", problem, "Choose 'zeros' or smaller patches")
    # torch wants the last axis first.
    both = [n for n in reversed(added) for _ in range(2)]
    return functional.pad(volume, both, mode="constant" if mode == "zeros" else "reflect")


def extract(volume: Tensor, grid: PatchGrid, numbers: ArrayLike | Tensor | None = None) -> Tensor:
    """Cut patches out of a volume.

    Parameters
    ----------
    volume
        `(C, X, Y, Z)` of the grid's shape.
    grid
        Where the patches lie.
    numbers
        Of the patches that are wanted, `(N,)`; None is all.

    Returns
    -------
    torch.Tensor
        `(N, C, px, py, pz)`, in the order of the numbers; a copy.

    Raises
    ------
    InputError
        The volume has another shape than the grid's.
    SettingsError
        Numbers that no patch has, or a mask instead of numbers.
    """
    return _cutter(volume, grid)(first_voxels(grid, checked_numbers(grid, numbers)))


def chunks(
    volume: Tensor,
    grid: PatchGrid,
    megabytes: float = 256,
    numbers: ArrayLike | Tensor | None = None,
) -> Iterator[tuple[Numbers, Tensor]]:
    """Cut patches out of a volume, as many at once as the memory allows.

    A few megabytes, which fit into a processor's cache, are often faster than many.

    Parameters
    ----------
    volume, grid, numbers
        As for `extract`.
    megabytes
        Of memory for patches. A loop still holds one chunk while the next one is cut, so each takes
        at most half of it; a chunk has at least one patch.

    Yields
    ------
    tuple
        Numbers `(n,)` and patches `(n, C, px, py, pz)`.

    Raises
    ------
    InputError, SettingsError
        As `extract`, or the memory is not positive.
    """
    if not megabytes > 0:
        raise SettingsError(f"megabytes {megabytes}", "must be positive", "Allow some memory")
    wanted = checked_numbers(grid, numbers)
    size = volume.shape[0] * int(np.prod(grid.size)) * volume.element_size()
    step = max(int(megabytes * 2**20 / 2 / size), 1)
    cut, lines = _cutter(volume, grid), first_voxels(grid, wanted)
    for start in range(0, len(wanted), step):
        part = slice(start, start + step)
        yield wanted[part], cut(lines[part])


def mean_inside(mask: ArrayLike, grid: PatchGrid) -> NDArray[np.float64]:
    """Give the share of each patch's voxels that lie inside a mask.

    Parameters
    ----------
    mask
        `(X, Y, Z)`; what is not 0 is inside.
    grid
        Where the patches lie.

    Returns
    -------
    numpy.ndarray
        `(n1, n2, n3)`, 0 to 1.

    Raises
    ------
    InputError
        The mask has another shape than the grid's.
    """
    inside = np.asarray(mask) != 0
    if inside.shape != grid.shape:
        problem = f"{inside.shape} is not the grid's shape {grid.shape}"
        raise InputError("mask", problem, "Make the grid for the mask's shape")
    x, y, z = weights(grid)
    # Counts along one axis are exact in float32, those in a large box need not be.
    rows = (inside.astype(np.float32) @ z).astype(np.float64)
    counted = np.tensordot(x.T, np.matmul(y.T, rows), 1)
    return np.asarray(counted / np.prod(grid.size))


def sample(
    grid: PatchGrid,
    count: int,
    strategy: Strategy = "uniform",
    generator: np.random.Generator | None = None,
    allowed: ArrayLike | None = None,
) -> Numbers:
    """Choose some of a grid's patches, e.g. to learn from.

    Parameters
    ----------
    grid
        Where the patches lie.
    count
        How many at most; fewer are given where there are not as many.
    strategy
        "uniform": at even distances in the order of their numbers; "random": without order and
        without repetition; "grid": every k-th from the first, with the smallest k that gives no
        more than `count`.
    generator
        For "random".
    allowed
        `(N,)` or `(n1, n2, n3)`, true where a patch may be chosen; None allows all. Serves to leave
        out background, `mean_inside(brain, grid) > 0.5`, or lesions,
        `mean_inside(lesion, grid) == 0`.

    Returns
    -------
    numpy.ndarray
        Numbers, int64; empty where no patch is allowed.

    Raises
    ------
    SettingsError
        A count below 1, an unknown strategy, no generator, or `allowed` of another size.
    """
    if count < 1:
        raise SettingsError(f"count {count}", "must be at least 1", "Choose a larger count")
    open_ones = np.ones(grid.count, bool) if allowed is None else np.asarray(allowed, bool).ravel()
    if len(open_ones) != grid.count:
        problem = f"has {len(open_ones)} values for {grid.count} patches"
        raise SettingsError("allowed", problem, "Give one for each patch")
    numbers = np.flatnonzero(open_ones).astype(np.int64)
    if strategy == "uniform":
        taken = min(count, len(numbers))
        return np.asarray(numbers[(2 * np.arange(taken) + 1) * len(numbers) // max(2 * taken, 1)])
    if strategy == "grid":
        return np.asarray(numbers[:: max(-(-len(numbers) // count), 1)])
    if strategy != "random":
        raise unknown_name("sampling strategy", strategy, ("uniform", "random", "grid"))
    if generator is None:
        raise SettingsError("sampling strategy 'random'", "needs a generator", "Give a seeded one")
    return np.asarray(generator.permutation(numbers)[:count])


def checked_numbers(grid: PatchGrid, numbers: ArrayLike | Tensor | None) -> Numbers:
    """Give the numbers of patches as int64 `(N,)`; SettingsError where a patch does not exist."""
    if numbers is None:
        return np.arange(grid.count, dtype=np.int64)
    given: Any = numbers.cpu() if isinstance(numbers, Tensor) else numbers
    found = np.asarray(given).ravel()
    if found.size and found.dtype.kind not in "iu":
        problem = f"are of type {found.dtype}"
        raise SettingsError("numbers of patches", problem, "For a mask use numpy.flatnonzero")
    if found.size and (found.min() < 0 or found.max() >= grid.count):
        problem = f"reach from {found.min()} to {found.max()}"
        remedy = f"Use numbers from 0 to {grid.count - 1}"
        raise SettingsError("numbers of patches", problem, remedy)
    return found.astype(np.int64)


def first_voxels(grid: PatchGrid, numbers: Numbers) -> Numbers:
    """Give the place of the patches' first voxels in the volume laid out as one line, `(N,)`."""
    x, y, z = (
        np.asarray(starts, np.int64)[index]
        for starts, index in zip(grid.starts, np.unravel_index(numbers, grid.counts), strict=True)
    )
    return np.asarray((x * grid.shape[1] + y) * grid.shape[2] + z)


def _cutter(volume: Tensor, grid: PatchGrid) -> Callable[[Numbers], Tensor]:
    """Give what copies the patches that start at some places of the volume laid out as one line."""
    if volume.ndim != 4 or tuple(volume.shape[1:]) != grid.shape:
        problem = f"{tuple(volume.shape)} is not (C, {', '.join(map(str, grid.shape))})"
        raise InputError("volume", problem, "Make the grid for the volume's shape")
    whole = volume.contiguous()
    steps = (1, *whole.stride())
    # A view in which every voxel starts a patch, up to the last one that has room for it.
    rooms = zip(grid.shape, grid.size, steps[2:], strict=True)
    places = 1 + sum((length - size) * step for length, size, step in rooms)
    shape = (places, whole.shape[0], *grid.size)
    if whole.requires_grad or whole.device.type != "cpu":
        every = whole.as_strided(shape, steps)
        return lambda lines: every.index_select(0, torch.from_numpy(lines).to(whole.device))
    # The same in NumPy with each row of a patch as one element, which takes half the time.
    item = whole.element_size()
    row = np.dtype((np.void, grid.size[2] * item))
    data = whole.view(torch.uint8).numpy()
    rows = np.ndarray(shape[:4], row, buffer=data, strides=[step * item for step in steps[:4]])

    def cut(lines: Numbers) -> Tensor:
        copied = rows[lines]
        voxels = copied.view(np.uint8).reshape(len(lines), *shape[1:4], row.itemsize)
        return torch.from_numpy(voxels).view(whole.dtype)

    return cut
