"""Thumbnails: one small picture a scan, kept beside its results for the next page."""

from __future__ import annotations

import base64
import io as memory
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from atypia import files, io
from atypia.errors import AtypiaError, OutputError
from atypia.parallel import map_in_processes
from atypia.progress import Progress
from atypia.report.pictures import FOUND
from atypia.report.results import Entry
from atypia.report.slices import VIEWS, Focus, ScanVolumes, box_of_interest, cut, window_of
from atypia.runs.predicting import FILES
from atypia.volume import Array

NAME = "thumbnail.webp"
EDGE = 96
"""Pixels of the longer edge."""
LINE = 2
"""Pixels across the outline."""
MOST_BYTES = 2048
MOST_THUMBNAILS = 2000
"""How many a page holds: at most 2,000 of 2,048 bytes, which are 5.5 MB as text."""
QUALITIES = (60, 45, 30, 15, 1)
"""Of WebP; the first that is small enough."""
DRAWN = "atypia thumbnail 1"
"""Goes up when thumbnails are drawn otherwise, so that old ones are made anew."""
NOT_DRAWN = "not drawn yet; `atypia report` or `atypia view` of these results draws it"


@dataclass(frozen=True)
class Thumbnail:
    """A WebP picture, empty with the reason where there is none."""

    picture: bytes
    problem: str = ""

    @property
    def text(self) -> str:
        """The picture in base 64."""
        return base64.b64encode(self.picture).decode()


def thumbnails_of(
    entries: Sequence[Entry],
    *,
    workers: int | None,
    progress: Progress,
    most_drawn: int | None = None,
) -> Iterator[Thumbnail]:
    """Read or draw the thumbnails of scans, in order; one that fails costs only itself.

    Parameters
    ----------
    most_drawn
        How many are drawn, at a second or so each, if they are not kept; None for all.
    """
    if most_drawn is not None:
        there = [_kept_of(entry.place, entry.description) for entry in entries]
        drawable = {n for n, _ in [p for p in enumerate(there) if p[1] is None][:most_drawn]}
        return (
            _thumbnail((entry.place, entry.description))
            if number in drawable
            else Thumbnail(kept or b"", "" if kept else NOT_DRAWN)
            for number, (entry, kept) in enumerate(zip(entries, there, strict=True))
        )
    jobs = [(entry.place, entry.description) for entry in entries]
    return map_in_processes(_thumbnail, jobs, workers, "thumbnails", progress)


def _kept_of(place: Path, description: Mapping[str, Any]) -> bytes | None:
    return _kept(place / NAME, _mark(description))


def _mark(description: Mapping[str, Any]) -> str:
    return f"{DRAWN} {description.get('key')}"


def _thumbnail(job: tuple[Path, Mapping[str, Any]]) -> Thumbnail:
    place, description = job
    kept = _kept_of(place, description)
    if kept is not None:
        return Thumbnail(kept)
    try:
        picture = _encoded(drawn(place, description), _mark(description))
    except AtypiaError as error:
        return Thumbnail(b"", str(error))
    # Results that may not be written to still get a page.
    with suppress(OutputError), files.replacing(place / NAME) as temporary:
        temporary.write_bytes(picture)
    return Thumbnail(picture)


def drawn(place: Path, description: Mapping[str, Any]) -> Array:
    """Draw the most abnormal axial slice, the flagged part outlined.

    That is the slice with the most flagged above the threshold; where nothing is flagged, the one
    through the brain's highest score. The patient's left is on the left, anterior on top.

    Returns
    -------
    Array
        Bytes `(rows, columns, 3)`, the longer edge of `EDGE` pixels.

    Raises
    ------
    InputError
        A volume cannot be read or lies on another grid.
    """
    volumes = _volumes(place, description)
    found = volumes.mask
    focus = Focus((0, 0, _abnormal_slice(volumes)), (0.0, 0.0, 0.0), "the most that is flagged")
    box, view = box_of_interest(volumes), VIEWS[0]
    low, high = window_of(volumes)
    flat = cut(volumes.image.data, view, focus, box).astype(np.float32)[::-1]
    grey = np.clip((flat - low) / (high - low), 0, 1)
    up, across = (
        flat.shape[0] * volumes.score.spacing_mm[1],
        flat.shape[1] * volumes.score.spacing_mm[0],
    )
    scale = EDGE / max(up, across)
    size = (max(1, round(across * scale)), max(1, round(up * scale)))
    pixels = np.repeat(np.round(255 * _resized(grey, size))[..., None], 3, axis=2).astype(np.uint8)
    if found is not None:
        inside = _resized(cut(found.data, view, focus, box)[::-1].astype(np.float32), size) > 0.5
        # The line lies around the flagged part and not upon it, so that a small one stays visible.
        outline = ndimage.binary_dilation(inside, iterations=LINE) & ~inside
        pixels[outline] = [int(FOUND[i : i + 2], 16) for i in (1, 3, 5)]
    return pixels


def _volumes(place: Path, description: Mapping[str, Any]) -> ScanVolumes:
    """Read only what the thumbnail needs; the method's own mask where there is no calibrated."""
    score = io.read(place / FILES["score_map"], "score")
    there = {
        "image": io.read(description["image"]),
        "brain": io.read(place / FILES["brain"], "mask"),
    }
    mask = next((m for m in ("mask", "own_mask") if (place / FILES[m]).exists()), None)
    if mask is not None:
        there["mask"] = io.read(place / FILES[mask], "mask")
    for volume in there.values():
        score.require_same_grid(volume)
    turned = {name: volume.canonical() for name, volume in there.items()}
    return ScanVolumes(score=score.canonical(), **turned)


def _abnormal_slice(volumes: ScanVolumes) -> int:
    score, brain, found = volumes.score.data, volumes.brain.data, volumes.mask
    if found is not None and found.data.any():
        above = np.where(found.data, score - score[found.data].min(), 0)
        # A little for every voxel too: of slices with equal scores the one with more of them.
        return int((above + 1e-6 * found.data).sum(axis=(0, 1)).argmax())
    highest = np.where(brain, score, -np.inf) if brain.any() else score
    return int(highest.max(axis=(0, 1)).argmax())


def _resized(values: Array, size: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))


def _encoded(pixels: Array, mark: str) -> bytes:
    for quality in QUALITIES:
        stream = memory.BytesIO()
        Image.fromarray(pixels).save(stream, "WEBP", quality=quality, method=4, xmp=mark.encode())
        if stream.tell() <= MOST_BYTES:
            break
    return stream.getvalue()


def _kept(path: Path, mark: str) -> bytes | None:
    """Give the picture of an earlier page; None if it is of other results, or damaged."""
    try:
        picture = path.read_bytes()
        with Image.open(memory.BytesIO(picture)) as image:
            same = image.format == "WEBP" and image.info.get("xmp") == mark.encode()
    except (OSError, ValueError):
        return None
    return picture if same and len(picture) <= MOST_BYTES else None
