"""The physics of the artefacts that are computed from the image.

Each is a function of a canvas, a strength and a generator. Axes are right, anterior, superior;
phase encoding runs along y and slices lie along z. Each function draws its geometry before it uses
the strength, so that a stronger artefact is the same one, only stronger.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atypia.simulation.artefact_canvas import Canvas
from atypia.simulation.fields import Float


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


def folding(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Make the field of view along y too small, by a share of the brain's length.

    Sampling k-space too coarsely repeats the image at the width of the field of view: what lies
    beyond one edge appears inside the opposite edge, on top of what is there.
    """
    from scipy import ndimage

    first, last = canvas.box[1]
    behind = rng.uniform(0, 1)
    missing = strength * (last - first + 1)
    start = first + behind * missing
    period = last - first + 1 - missing
    size = canvas.data.shape[1]
    total = canvas.data.copy()
    for turn in range(1, int(size // period) + 1):
        for shift in (turn * period, -turn * period):
            total += ndimage.shift(canvas.data, (0, shift, 0), order=1, mode="grid-constant")
    seen = _covered(size, start, start + period).astype(np.float32)
    return np.asarray(total * seen[None, :, None])


def susceptibility(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Distort and darken the brain near an air-filled cavity: the sinuses or an ear canal.

    Air disturbs the main field round it. The place read out along y is off by up to `strength` mm,
    so that signal is stretched or piled up (the Jacobian of the displacement), and where the field
    is steepest the spins within a voxel lose their common phase and the signal drops out.
    """
    place = np.array([[0.5, 0.85], [0.12, 0.5], [0.88, 0.5]])[rng.integers(3)]
    centre = _lowest_point_mm(canvas, place + rng.uniform(-0.04, 0.04, 2))
    reach = rng.uniform(38, 46)
    towards = rng.choice([-1, 1])
    x, y, z = (canvas.axis_mm(axis) - np.float32(centre[axis]) for axis in range(3))
    bump = np.maximum(1 - (x**2 + y**2 + z**2) / np.float32(reach**2), 0)
    # Smooth and exactly 0 beyond its reach; 20 mm within 38 mm would not yet fold the brain over.
    shift = np.float32(towards * strength) * bump**3
    squeezed = 1 + np.float32(6 * towards * strength / reach**2) * y * bump**2
    kept = np.exp(-np.float32(strength / 4) * bump**10)
    rows = np.arange(canvas.data.shape[1], dtype=np.float32)[None, :, None]
    moved = _sampled_along_y(canvas.data, rows - shift / np.float32(canvas.spacing_mm[1]))
    return np.asarray(moved * squeezed * kept)


def line_shift(canvas: Canvas, strength: float, rng: np.random.Generator) -> Float:
    """Shift a block of neighbouring rows (along y) or slices (along z) along x, by some mm.

    The head or the readout jumps while these are taken and jumps back afterwards.
    """
    from scipy import ndimage

    axis = int(rng.integers(1, 3))
    first, last = canvas.box[axis]
    begin, thickness = rng.uniform(0.25, 0.55), rng.uniform(0.12, 0.2)
    towards = rng.choice([-1, 1])
    start = first + round(begin * (last - first + 1))
    count = max(round(thickness * (last - first + 1)), 1)
    block = [slice(None)] * 3
    block[axis] = slice(start, start + count)
    shift = (towards * strength / canvas.spacing_mm[0], 0, 0)
    result = canvas.data.copy()
    result[tuple(block)] = ndimage.shift(
        canvas.data[tuple(block)], shift, order=1, mode="grid-constant"
    )
    return result


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


def _without_slab(canvas: Canvas, start: float, stop: float) -> Float:
    """Empty the slices from `start` to `stop` (in voxels); a slice cut in two keeps its share."""
    covered = _covered(canvas.data.shape[2], start, stop)
    return np.asarray(canvas.data * (1 - covered).astype(np.float32))


def _covered(size: int, start: float, stop: float) -> NDArray[np.float64]:
    """Share of each voxel along an axis that lies between `start` and `stop` (in voxels)."""
    steps = np.arange(size)
    return np.asarray(np.clip(np.minimum(steps + 1, stop) - np.maximum(steps, start), 0, 1))


def _lowest_point_mm(canvas: Canvas, place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the bottom of the brain below a place in its box (shares of x and y).

    In mm from the middle of the brain, as `Canvas.axis_mm` counts.
    """
    columns = np.argwhere(canvas.inside.any(axis=2))
    corner, far = np.array(canvas.box[:2]).T
    spacing = np.asarray(canvas.spacing_mm)
    off = (columns - (corner + place * (far - corner))) * spacing[:2]
    x, y = columns[np.argmin((off**2).sum(axis=1))]
    lowest = np.array([x, y, canvas.inside[x, y].argmax()])
    return np.asarray(lowest * spacing - canvas.middle_mm)


def _sampled_along_y(data: Float, rows: Float) -> Float:
    """Read an image between its rows, each voxel at its own place; beyond the ends the last."""
    low = np.clip(np.floor(rows), 0, data.shape[1] - 2).astype(np.intp)
    share = np.clip(rows - low, 0, 1)
    before, after = (np.take_along_axis(data, low + step, axis=1) for step in (0, 1))
    return np.asarray(before * (1 - share) + after * share, dtype=np.float32)
