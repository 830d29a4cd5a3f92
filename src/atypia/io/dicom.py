"""DICOM series: told apart, put in order by where their slices lie, and read as volumes.

A series is named by its folder; where a folder holds several, by `FOLDER#KEY`, where KEY is a
digest, as an error about the folder lists them. Neither file names nor tags of the patient get
into a `Volume`, an error or a name; what folders are called is the user's business.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia import files
from atypia.errors import InputError
from atypia.io.dicom_frames import MALFORMED, Frame, frames_of, is_dicom, voxels_of
from atypia.volume import Array, Kind, Volume

LPS = np.array([-1.0, -1.0, 1.0])
"""Turns LPS, the world of DICOM, into RAS+."""

TOLERANCE = 0.05
"""How far a slice may lie from its place, as a part of the distance between slices."""


@dataclass(frozen=True)
class Series:
    """One stack of slices.

    Parameters
    ----------
    path
        Names it: the folder, or `FOLDER#KEY` where that holds other series as well.
    frames
        Ordered along the normal of the slices.
    """

    path: Path
    frames: tuple[Frame, ...]

    @property
    def description(self) -> str:
        """What the scanner's operator called it."""
        return self.frames[0].description

    @property
    def localiser(self) -> bool:
        """Whether the scanner says that it is a localiser."""
        return self.frames[0].localiser

    def __str__(self) -> str:
        first = self.frames[0]
        echo = f", echo {first.echo}" if first.echo else ""
        what = first.description or "no description"
        return f"{self.path.name} ({what}, {len(self.frames)} slices{echo})"

    def read(self, kind: Kind = "image") -> Volume:
        """Read the volume.

        Raises
        ------
        InputError
            Missing slices, several slices at one place, or voxels that cannot be decoded.
        """
        affine = _affine(self.frames, self.path)
        return Volume(_voxels(self.frames, self.path), affine, kind, str(self.path))


def read(path: Path, kind: Kind = "image", affine: ArrayLike | None = None) -> Volume:
    """Read the one series of a folder, the series of one slice, or one multi-frame file."""
    if affine is not None:
        raise InputError(path, "has its own affine", "Leave the affine option out")
    folder, key = addressed(path)
    within = folder.parent if folder.is_file() else folder
    found = find_series(within)
    if folder.is_file():
        found = [s for s in found if any(f.file.samefile(folder) for f in s.frames)]
    if key:
        found = [s for s in found if s.path.name.endswith(f"#{key}")]
    if not found:
        what = "is no slice" if folder.is_file() else "is a folder without slices"
        raise InputError(path, f"{what} of a DICOM volume", "Name an image, or a folder of slices")
    if len(found) > 1:
        listed = "; ".join(map(str, found))
        raise InputError(path, f"holds {len(found)} series: {listed}", "Name one of these")
    return found[0].read(kind)


def addressed(path: Path) -> tuple[Path, str]:
    """Divide `FOLDER#KEY` into both; the key is empty for any other path."""
    folder, mark, key = str(path).rpartition("#")
    if not mark or path.exists() or not Path(folder or ".").is_dir():
        return path, ""
    return Path(folder or "."), key


def files_of(folder: Path) -> list[Path]:
    """Give the DICOM files of a folder and its subfolders in the order of their names."""
    found = []
    for place, subfolders, names in os.walk(folder):
        subfolders.sort()
        visible = [Path(place, name) for name in sorted(names) if not name.startswith(".")]
        found += [path for path in visible if is_dicom(path)]
    return found


def find_series(folder: str | Path) -> list[Series]:
    """Find the series in a folder and its subfolders; voxels are not read.

    Slices of one SeriesInstanceUID are of different series when size, spacing, orientation or
    echo differ. Copies of a slice count once. Reports, screenshots and other images that lie
    nowhere in space are passed over.

    Parameters
    ----------
    folder
        Searched with all subfolders; what is not DICOM is passed over.

    Returns
    -------
    list of Series
        In the order of their series numbers.

    Raises
    ------
    InputError
        A DICOM file is damaged.
    """
    folder = Path(folder)
    stacks: list[list[Frame]] = []
    seen = set()
    paths = files_of(folder)
    for number, file in enumerate(paths, start=1):
        try:
            frames = frames_of(file)
        except MALFORMED as error:
            raise InputError(
                folder,
                f"DICOM file {number} of {len(paths)} (in the order of names) is damaged or lacks "
                f"what a slice must say ({type(error).__name__})",
                "Copy the series again",
            ) from None  # the cause may quote what the file says
        for frame in frames:
            if (frame.instance, frame.index) in seen:
                continue
            seen.add((frame.instance, frame.index))
            stack = next((s for s in reversed(stacks) if frame.fits(s[0])), None)
            if stack is None:
                stacks.append([frame])
            else:
                stack.append(frame)
    homes = [_home(stack) for stack in stacks]
    series = []
    for stack, home in zip(stacks, homes, strict=True):
        alone = sum(_reaches(other, home) for other in stacks) == 1
        path = home if alone else Path(f"{home}#{_key(stack[0])}")
        series.append(Series(path, tuple(sorted(stack, key=_height))))
    return sorted(series, key=lambda s: (s.frames[0].number, str(s.path)))


def _home(stack: list[Frame]) -> Path:
    return Path(os.path.commonpath([frame.file.parent for frame in stack]))


def _reaches(stack: list[Frame], folder: Path) -> bool:
    return any(parent.is_relative_to(folder) for parent in {frame.file.parent for frame in stack})


def _key(frame: Frame) -> str:
    own = "" if frame.index is None else frame.instance
    turn = np.round(frame.orientation, 2) + 0.0
    return files.digest(frame.series, own, str(frame.size), frame.echo, str(turn))[:8]


def _height(frame: Frame) -> float:
    """Where a slice lies along the normal of its plane, in mm."""
    normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    return float(normal @ frame.position)


def _affine(frames: tuple[Frame, ...], path: Path) -> NDArray[np.float64]:
    if len(frames) < 2:
        raise InputError(path, "holds one slice", "Give a series of slices")
    gaps = np.diff([_height(frame) for frame in frames])
    usual = float(np.median(gaps))
    if gaps.min() < 0.01:
        raise InputError(
            path,
            f"has {int((gaps < 0.01).sum())} slices at the place of another, as a time series, "
            "several contrasts or several acquisitions in one series have",
            "Export each volume as a series of its own",
        )
    worst = int(np.abs(gaps - usual).argmax())
    if abs(gaps[worst] - usual) > TOLERANCE * usual:
        raise InputError(
            path,
            f"has a gap of {gaps[worst]:.2f} mm between slices {worst + 1} and {worst + 2} of "
            f"{len(frames)}, where {usual:.2f} mm is usual: slices are missing or irregular",
            "Copy the whole series again",
        )
    places = np.array([frame.position for frame in frames])
    step = (places[-1] - places[0]) / (len(frames) - 1)
    expected = places[0] + np.arange(len(frames))[:, None] * step
    if np.linalg.norm(places - expected, axis=1).max() > 2 * TOLERANCE * usual:
        raise InputError(path, "has slices that lie on no straight line", "Give a straight stack")
    turn = np.reshape(frames[0].orientation, (2, 3))
    affine = np.eye(4)
    affine[:3, 0] = LPS * turn[0] * frames[0].spacing_mm[0]
    affine[:3, 1] = LPS * turn[1] * frames[0].spacing_mm[1]
    affine[:3, 2] = LPS * step
    affine[:3, 3] = LPS * places[0]
    return affine


def _voxels(frames: tuple[Frame, ...], path: Path) -> Array:
    order = sorted(range(len(frames)), key=lambda i: (frames[i].file, i))
    slices: dict[int, Array] = {}
    for file, numbers in groupby(order, key=lambda i: frames[i].file):
        these = list(numbers)
        try:
            voxels = voxels_of(file, [frames[i] for i in these], path)
            slices.update(zip(these, voxels, strict=True))
        except (*MALFORMED, NotImplementedError, RuntimeError) as error:
            raise InputError(
                path,
                f"the voxels of slice {these[0] + 1} of {len(frames)} are damaged or truncated "
                f"({type(error).__name__})",
                "Copy the series again",
            ) from None
    stack = [slices[i] for i in range(len(frames))]
    # Scaled slices are float32; one scaled slice makes a volume of them.
    kinds = {piece.dtype for piece in stack}
    return np.stack(
        stack, axis=-1, dtype=kinds.pop() if len(kinds) == 1 else np.float32, casting="unsafe"
    )
