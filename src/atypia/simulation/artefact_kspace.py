"""The physics of the artefacts that befall k-space, the Fourier transform of the image.

Each is a function of a canvas, a strength and a generator, as in `artefact_effects`. Phase
encoding runs along y: a line of k-space is one step of it, and a fault of a line spreads over the
whole image along y. Line 0 is the middle of k-space, which holds the mean of the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atypia.simulation.artefact_canvas import Canvas
from atypia.simulation.fields import Float

Complex = NDArray[np.complex64]


def ghosting(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Weaken every n-th line of k-space along y, except the innermost."""
    count = int(rng.integers(2, 5))
    lines, number = _lines(canvas.data)
    weak = (number % count == 0) & (np.abs(number) > 1)
    # n copies share what is lost, so that a larger n asks for a larger loss.
    loss = np.float32(min(strength * count / 2, 1.6))
    lines *= np.where(weak, 1 - loss, 1).astype(np.float32)[None, :, None]
    return _magnitude(lines)


def motion(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Take blocks of k-space lines along y from a head that has moved.

    The strength is the typical shift in mm and about the typical rotation in degrees.
    """
    lines, number = _lines(canvas.data)
    size = len(number)
    # Most of the image lies near the middle of k-space, so most movements are put there.
    middle = rng.uniform(-0.5, 0.5, 13)
    edges = np.sort(2 * middle * np.abs(middle)) * size
    blocks = np.searchsorted(edges, number)
    blocks[np.abs(number) <= max(0.02 * size, 1)] = -1
    pose = rng.permutation(np.arange(14) % 4)
    for which in range(3):
        shift, turn = rng.normal(0, 1, 3), rng.normal(0, 0.7, 3)
        shift[1] += np.sign(shift[1]) * 0.7
        moved, _ = _lines(_moved(canvas, strength * shift, strength * turn))
        taken = (blocks >= 0) & (pose[np.maximum(blocks, 0)] == which)
        lines[:, taken] = moved[:, taken]
    return _magnitude(lines)


def gibbs(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Cut off a share of the k-space lines, the outermost, and fill them with zeros.

    The sharp end in k-space makes edges overshoot and ripple along y. The share is up to 5 % more
    or less by chance.
    """
    lines, number = _lines(canvas.data)
    lost = min(strength * rng.uniform(0.95, 1.05), 0.95)
    half = max((1 - lost) * len(number) / 2, 0.5)
    # A pair of lines at the cut is weakened, so that every strength differs from the next.
    lines *= np.clip(half + 0.5 - np.abs(number), 0, 1).astype(np.float32)[None, :, None]
    return _magnitude(lines)


def bad_line(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Give three lines of k-space a wrong gain and phase, as when the receiver fails for a moment.

    Their mirror lines stay right. The stripes they make are as bright as the strength where they
    are brightest, and elsewhere follow what the line holds of the head.
    """
    period = rng.uniform(8, 36, 3)
    side = rng.choice([-1, 1], 3)
    wrong = np.exp(1j * rng.uniform(0, 2 * np.pi, 3))
    lines, number = _lines(canvas.data)
    size = len(number)
    places = np.rint(size * canvas.spacing_mm[1] / period).astype(int)
    for place, factor in zip(side * np.clip(places, 1, (size - 1) // 2), wrong, strict=True):
        brightest = np.abs(lines[:, place]).max() / size
        lines[:, place] *= np.complex64(1 + strength / max(brightest, 1e-3) * factor)
    return _magnitude(lines)


def bad_point(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Falsify single points anywhere in three-dimensional k-space, but not their mirror points.

    Each adds one plane wave, fine or coarse and of any direction; together they make a weave.
    """
    from scipy import fft

    count = 8
    places = (rng.random((count, 3)) * canvas.data.shape).astype(int)
    share, phase = rng.uniform(0.4, 1, count), rng.uniform(0, 2 * np.pi, count)
    space = fft.fftn(canvas.data)
    added = strength * share * np.exp(1j * phase) * canvas.data.size
    np.add.at(space, tuple(places.T), added.astype(np.complex64))
    return np.asarray(np.abs(fft.ifftn(space)), dtype=np.float32)


def empty_line(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Lose a share of the k-space lines, at regular or at random intervals, except the innermost.

    More strength loses more lines on top of the same ones.
    """
    lines, number = _lines(canvas.data)
    size = len(number)
    chance, start = rng.random(size), rng.random()
    # The golden ratio scatters lines evenly whatever number of them is taken.
    even = (number * (np.sqrt(5) - 1) / 2 + start) % 1
    order = np.argsort(even if rng.random() < 0.5 else chance)
    order = order[np.abs(number[order]) > max(0.02 * size, 1)]
    lines[:, order[: int(np.ceil(strength * size))]] = 0
    return _magnitude(lines)


def _lines(data: Float) -> tuple[Complex, NDArray[np.int64]]:
    """Transform along y: the lines of k-space, and the number of each counted from the middle."""
    from scipy import fft

    size = data.shape[1]
    number = np.rint(fft.fftfreq(size) * size).astype(np.int64)
    return np.asarray(fft.fft(data, axis=1)), number


def _magnitude(lines: Complex) -> Float:
    """Go back to the image, of which the scanner shows the magnitude."""
    from scipy import fft

    return np.asarray(np.abs(fft.ifft(lines, axis=1)), dtype=np.float32)


def _moved(canvas: Canvas, shift_mm: NDArray[np.float64], degrees: NDArray[np.float64]) -> Float:
    """Turn the head about the middle of the brain and shift it."""
    from scipy import ndimage
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    spacing = np.diag(canvas.spacing_mm)
    matrix = np.linalg.inv(spacing) @ turn @ spacing
    middle = canvas.middle_mm / np.asarray(canvas.spacing_mm)
    offset = middle - matrix @ (middle + shift_mm / np.asarray(canvas.spacing_mm))
    return np.asarray(ndimage.affine_transform(canvas.data, matrix, offset, order=1))
