"""The physics of the artefacts, each a function of a canvas, a strength and a generator.

Axes are right, anterior, superior; phase encoding runs along y and slices lie along z. Each
function draws its geometry before it uses the strength, so that a stronger artefact is the same
one, only stronger.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from atypia.simulation.fields import Float


@dataclass(frozen=True, eq=False)
class Canvas:
    """An image ready to be falsified.

    Parameters
    ----------
    data
        `(X, Y, Z)`, RAS+, background 0, the brain's 99th percentile 1.
    inside
        Brain mask.
    spacing_mm
        Along x, y and z.
    """

    data: Float
    inside: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]

    @cached_property
    def box(self) -> list[tuple[int, int]]:
        """First and last voxel of the brain along each axis."""
        bounds = []
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            found = np.flatnonzero(self.inside.any(axis=others))
            bounds.append((int(found[0]), int(found[-1])))
        return bounds

    @cached_property
    def middle_mm(self) -> Float:
        """Middle of the brain's box, mm from the first voxel."""
        steps = [(a + b) / 2 * s for (a, b), s in zip(self.box, self.spacing_mm, strict=True)]
        return np.asarray(steps, dtype=np.float32)

    def axis_mm(self, axis: int) -> Float:
        """Coordinates along an axis, mm from the middle of the brain, shaped to broadcast."""
        places = np.arange(self.data.shape[axis], dtype=np.float32) * self.spacing_mm[axis]
        shape = [1, 1, 1]
        shape[axis] = -1
        return np.asarray(places - self.middle_mm[axis], dtype=np.float32).reshape(shape)


def gaussian_noise(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Add complex noise and take the magnitude.

    The Fourier transform of white Gaussian noise is white Gaussian noise, so adding it to the
    image is adding it to k-space.
    """
    real, imaginary = np.float32(strength) * rng.standard_normal(
        (2, *canvas.data.shape), dtype=np.float32
    )
    return np.asarray(np.hypot(canvas.data + real, imaginary))


def spike(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Add a plane wave, the image of one point of k-space, and take the magnitude.

    Two points at an angle make the herringbone.
    """
    total = canvas.data.astype(np.complex64)
    for share in (1.0, 0.6):
        phase = _plane_phase(canvas, rng, rng.uniform(20, 70) * rng.choice([-1, 1]))
        total += np.complex64(strength * share) * np.exp(1j * phase).astype(np.complex64)
    return np.asarray(np.abs(total), dtype=np.float32)


def periodic_line(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Add a cosine along x or y, the image of a conjugate pair of points of k-space."""
    axis = int(rng.integers(2))
    period = max(rng.uniform(6, 14), 2.5 * canvas.spacing_mm[axis])
    wave = np.cos(2 * np.pi * canvas.axis_mm(axis) / period + rng.uniform(0, 2 * np.pi))
    return np.asarray(np.abs(canvas.data + np.float32(strength) * wave), dtype=np.float32)


def ring(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Add ripples round an axis along z, fading outwards."""
    centre = rng.uniform(-15, 15, 2)
    period = max(rng.uniform(7, 14), 2.5 * max(canvas.spacing_mm[:2]))
    x, y = canvas.axis_mm(0) - np.float32(centre[0]), canvas.axis_mm(1) - np.float32(centre[1])
    radius = np.sqrt(x**2 + y**2)
    ripple = np.cos(2 * np.pi * radius / period) * np.exp(-radius / 80)
    return np.asarray(np.abs(canvas.data + np.float32(strength) * ripple), dtype=np.float32)


def zipper(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Add narrow bands of noise at a few places along x, across all of y and z."""
    low, high = canvas.box[0]
    places = low + (high - low) * (np.array([0.2, 0.5, 0.8]) + rng.uniform(-0.1, 0.1, 3))
    steps = np.abs(np.arange(canvas.data.shape[0])[:, None] - places[None, :])
    width = max(1.2 / canvas.spacing_mm[0], 0.6)
    bands = np.exp(-((steps / width) ** 2) / 2).max(axis=1).astype(np.float32)
    dots = np.abs(rng.standard_normal(canvas.data.shape[1:], dtype=np.float32))
    # The polarity changes from line to line, which makes the teeth of the zipper.
    teeth = np.where(np.arange(dots.shape[0]) % 2 == 0, 1.0, -0.6)[:, None].astype(np.float32)
    added = np.float32(strength) * bands[:, None, None] * (dots * teeth)[None]
    return np.asarray(np.abs(canvas.data + added), dtype=np.float32)


def ghosting(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Weaken every n-th line of k-space along y, except the innermost."""
    from scipy import fft

    count = int(rng.integers(2, 5))
    lines = fft.fft(canvas.data, axis=1)
    number = np.rint(fft.fftfreq(canvas.data.shape[1]) * canvas.data.shape[1])
    weak = (number % count == 0) & (np.abs(number) > 1)
    # n copies share what is lost, so that a larger n asks for a larger loss.
    loss = np.float32(min(strength * count / 2, 1.6))
    lines *= np.where(weak, 1 - loss, 1).astype(np.float32)[None, :, None]
    return np.asarray(np.abs(fft.ifft(lines, axis=1)), dtype=np.float32)


def motion(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Take blocks of k-space lines along y from a head that has moved.

    The strength is the typical shift in mm and about the typical rotation in degrees.
    """
    from scipy import fft

    size = canvas.data.shape[1]
    number = np.rint(fft.fftfreq(size) * size)
    # Most of the image lies near the middle of k-space, so most movements are put there.
    middle = rng.uniform(-0.5, 0.5, 13)
    edges = np.sort(2 * middle * np.abs(middle)) * size
    blocks = np.searchsorted(edges, number)
    blocks[np.abs(number) <= max(0.02 * size, 1)] = -1
    pose = rng.permutation(np.arange(14) % 4)
    lines = fft.fft(canvas.data, axis=1)
    for which in range(3):
        shift, turn = rng.normal(0, 1, 3), rng.normal(0, 0.7, 3)
        shift[1] += np.sign(shift[1]) * 0.7
        moved = fft.fft(_moved(canvas, strength * shift, strength * turn), axis=1)
        taken = (blocks >= 0) & (pose[np.maximum(blocks, 0)] == which)
        lines[:, taken] = moved[:, taken]
    return np.asarray(np.abs(fft.ifft(lines, axis=1)), dtype=np.float32)


def bias_field(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Multiply by the exponential of a random polynomial of third order."""
    powers = [(p, q, r) for p in range(4) for q in range(4 - p) for r in range(4 - p - q)]
    x, y, z = (
        canvas.axis_mm(axis) / np.float32((last - first + 1) / 2 * canvas.spacing_mm[axis])
        for axis, (first, last) in enumerate(canvas.box)
    )
    total = np.zeros(canvas.data.shape, dtype=np.float32)
    for p, q, r in powers[1:]:
        total += np.float32(rng.normal() / (p + q + r)) * x**p * y**q * z**r
    inside = total[canvas.inside]
    total -= inside.mean()
    total *= np.float32(strength / max(np.abs(inside - inside.mean()).max(), 1e-6))
    # Beyond the brain a polynomial grows without bound; nothing is there to be multiplied.
    return np.asarray(canvas.data * np.exp(np.clip(total, -strength, strength)))


def top_chunk(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Remove a share of the brain's height from the top, up to 15 % more or less by chance."""
    first, last = canvas.box[2]
    height = strength * rng.uniform(0.85, 1.15) * (last - first + 1)
    return _without_slab(canvas, last + 1 - height, canvas.data.shape[2])


def middle_chunk(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Remove a slab of a share of the brain's height, somewhere in its middle."""
    first, last = canvas.box[2]
    height = last - first + 1
    middle = first + rng.uniform(0.4, 0.65) * height
    half = strength * height / 2
    return _without_slab(canvas, middle - half, middle + half)


def smoothing(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Blur with a Gaussian; the strength is its standard deviation in mm at 1 mm voxels."""
    from scipy import ndimage

    sigmas = [strength * (0.7 + 0.3 * s) / s for s in canvas.spacing_mm]
    return np.asarray(ndimage.gaussian_filter(canvas.data, sigmas, truncate=3.0))


def _plane_phase(canvas: Canvas, rng: np.random.Generator, degrees: float) -> Float:
    """Phase of an oblique wave in the axial plane that drifts slowly along z."""
    period = max(rng.uniform(5, 10), 3 * max(canvas.spacing_mm[:2]))
    angle = np.deg2rad(degrees)
    drift = 0.2 * rng.uniform(-1, 1)
    along = (
        np.float32(np.cos(angle)) * canvas.axis_mm(0)
        + np.float32(np.sin(angle)) * canvas.axis_mm(1)
        + np.float32(drift) * canvas.axis_mm(2)
    )
    return np.asarray(2 * np.pi * along / period + rng.uniform(0, 2 * np.pi), dtype=np.float32)


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


def _without_slab(canvas: Canvas, start: float, stop: float) -> Float:
    """Empty the slices from `start` to `stop` (in voxels); a slice cut in two keeps its share."""
    slices = np.arange(canvas.data.shape[2])
    covered = np.clip(np.minimum(slices + 1, stop) - np.maximum(slices, start), 0, 1)
    return np.asarray(canvas.data * (1 - covered).astype(np.float32))
