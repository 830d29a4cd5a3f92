"""Mosaic: one picture of a prepared scan, with the outlines by which preparing is judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from atypia import files
from atypia.cohort.scan import Scan
from atypia.preprocessing import Prepared
from atypia.preprocessing.prepare import load_prepared
from atypia.report.pictures import FOUND, TRUE
from atypia.report.slices import VIEWS, View
from atypia.runs.quality import template_brain
from atypia.volume import MNI152_SPACE, Array, Volume

CUTS = ((0, 0.3), (0, 0.5), (0, 0.7), (1, 0.5), (2, 0.4))
"""Which of `VIEWS`, and where through the extent of the brain; not between its halves."""
MARGIN_MM = 15.0
"""Room round the brain, so that a mask that is too small can be seen."""
PIXELS_PER_MM = 0.95
GAP, LETTER = 4, 12
"""Pixels between views, and of the room for the letters at their sides."""
QUALITY = 80


def write_mosaic(scan: Scan, modality: str, place: Path) -> None:
    """Draw a prepared scan into its folder: above on its own grid, below on the working grid.

    Above, the brain mask is outlined; below, the template's brain (or the brain mask, for scans
    that are not in the template's space).

    Raises
    ------
    InputError
        The scan or what was prepared cannot be read.
    """
    prepared = load_prepared(place)
    native = _row(scan.image(modality), prepared.native_brain, prepared.native_brain, FOUND)
    working = _row(*_working(prepared))
    width = max(native.shape[1], working.shape[1])
    rows = [_centred(row, width) for row in (native, working)]
    picture = np.concatenate([rows[0], np.zeros((GAP, width, 3), np.uint8), rows[1]])
    with files.replacing(place / "mosaic.webp") as temporary:
        Image.fromarray(picture).save(temporary, "WEBP", quality=QUALITY, method=3)


def _working(prepared: Prepared) -> tuple[Volume, Volume, Volume, str]:
    image, brain = prepared.image, prepared.brain
    # Zero is the mean of a brain in many plans: outside it the picture shall be black.
    outside = float(image.data.min())
    shown = image.with_data(np.where(brain.data, image.data, outside))
    if image.space != MNI152_SPACE:
        return shown, brain, brain, FOUND
    return shown, brain, brain.with_data(template_brain(brain.geometry)), TRUE


def _row(image: Volume, brain: Volume, outlined: Volume, colour: str) -> Array:
    """Give `(rows, columns, 3)` bytes: all cuts beside each other."""
    image, brain, outlined = (volume.canonical() for volume in (image, brain, outlined))
    inside = image.data[brain.data]
    low, high = (float(v) for v in np.percentile(inside, (0.5, 99.7)))
    low = min(low, 0.0) if image.data.min() >= 0 else low
    extent = [_inside(brain.data, axis) for axis in range(3)]
    shown = brain.data | outlined.data
    box = [_within(_inside(shown, axis), image, axis) for axis in range(3)]
    views = []
    for number, share in CUTS:
        view = VIEWS[number]
        first, last = extent[view.axis][[0, -1]]
        cut: list[slice | int] = list(box)
        cut[view.axis] = round(float(first + share * (last - first)))
        sizes = [image.spacing_mm[axis] * (box[axis].stop - box[axis].start) for axis in view.plane]
        wide, high_ = (max(1, round(size * PIXELS_PER_MM)) for size in sizes)
        grey = _resized(image.data[tuple(cut)].T, wide, high_)
        mask = _resized(outlined.data[tuple(cut)].T, wide, high_) >= 0.5
        views.append(_painted((grey - low) / max(high - low, 1e-6), mask, colour, view))
    tallest = max(view.shape[0] for view in views)
    gap = np.zeros((tallest, GAP, 3), np.uint8)
    columns = [part for view in views for part in (_padded(view, tallest), gap)]
    return np.concatenate(columns[:-1], axis=1)


def _painted(grey: Array, mask: Array, colour: str, view: View) -> Array:
    from scipy import ndimage

    pixels = np.repeat((255 * grey.clip(0, 1)).astype(np.uint8)[..., None], 3, axis=2)
    # A pixel of room, so that an outline closes at the edge of the picture too.
    inner = ndimage.binary_erosion(np.pad(mask, 1))[1:-1, 1:-1]
    pixels[mask & ~inner] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    # Rows of an image run down, those of a view up.
    room = ((0, 0), (LETTER, LETTER), (0, 0))
    picture = Image.fromarray(np.ascontiguousarray(np.pad(pixels[::-1], room)))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    middle = picture.height / 2
    draw.text((2, middle), view.left, "#d8d8d8", font, anchor="lm")
    draw.text((picture.width - 2, middle), view.right, "#d8d8d8", font, anchor="rm")
    return np.asarray(picture)


def _resized(flat: Array, wide: int, high: int) -> Array:
    picture = Image.fromarray(np.ascontiguousarray(flat, dtype=np.float32))
    return np.asarray(picture.resize((wide, high), Image.Resampling.BILINEAR))


def _within(ends: Array, image: Volume, axis: int) -> slice:
    margin = round(MARGIN_MM / image.spacing_mm[axis])
    return slice(max(0, int(ends[0]) - margin), min(image.shape[axis], int(ends[-1]) + margin + 1))


def _inside(mask: Array, axis: int) -> Array:
    """Give the indices along an axis at which the mask has voxels."""
    return np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))


def _padded(view: Array, height: int) -> Array:
    above = (height - view.shape[0]) // 2
    return np.pad(view, ((above, height - view.shape[0] - above), (0, 0), (0, 0)))


def _centred(row: Array, width: int) -> Array:
    left = (width - row.shape[1]) // 2
    return np.pad(row, ((0, 0), (left, width - row.shape[1] - left), (0, 0)))
