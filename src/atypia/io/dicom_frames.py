"""DICOM files as frames: where one slice lies, to what it belongs, and its voxels.

A classic file holds one frame, an enhanced multi-frame file many; from here on they are the same.
pydicom reads them, because it tells every slice's own tags, which the series readers built on GDCM
hide. Only the tags named here are ever looked at: none of them says who the patient is.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atypia.errors import InputError, MissingDependencyError
from atypia.volume import Array

GROUPS = ["PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"]
SCALING = ["RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", *GROUPS]
HEADER: list[Any] = [
    *GROUPS,
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "EchoTime",
    "EchoNumbers",
]

MALFORMED = (AttributeError, EOFError, IndexError, KeyError, OSError, TypeError, ValueError)
"""What pydicom and numpy raise over damaged files; the texts may quote tags and are not shown."""


@dataclass(frozen=True)
class Frame:
    """One slice.

    Parameters
    ----------
    file, index
        The file, and the number of the frame in it; None in a classic file.
    instance, series
        SOPInstanceUID and SeriesInstanceUID.
    number
        SeriesNumber, 0 for none.
    description
        SeriesDescription, or else ProtocolName.
    localiser
        Whether the scanner says that it is one.
    size
        Number of voxels along a row and along a column.
    spacing_mm
        Between voxels along a row and along a column.
    orientation
        Directions of a row and of a column, LPS.
    position
        Centre of the first voxel in mm, LPS.
    echo
        Echo time and number, empty for none.
    """

    file: Path
    index: int | None
    instance: str
    series: str
    number: int
    description: str
    localiser: bool
    size: tuple[int, int]
    spacing_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    echo: str

    def fits(self, other: Frame) -> bool:
        """Tell whether both can be slices of the same volume; a multi-frame file stands alone."""
        return (
            (self.series, self.size, self.echo) == (other.series, other.size, other.echo)
            and (self.index is None or self.file == other.file)
            and np.allclose(self.orientation, other.orientation, atol=1e-3)
            and np.allclose(self.spacing_mm, other.spacing_mm, rtol=1e-3)
        )


def is_dicom(path: Path) -> bool:
    """Tell whether a file begins as DICOM files do, whatever its name is."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def frames_of(file: Path) -> list[Frame]:
    """Give the frames of a file that lie somewhere in space; none for reports and screenshots.

    Raises
    ------
    those in `MALFORMED`
        The file is damaged, or lacks what a slice must say.
    """
    import pydicom

    with _quiet():
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=HEADER)
        storage = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
        if storage and not storage.name.endswith("Image Storage"):
            return []
        if not storage or "Rows" not in header:
            raise EOFError  # the file ends within its header
        if "PerFrameFunctionalGroupsSequence" in header:
            count = len(header.PerFrameFunctionalGroupsSequence)
            return [_enhanced(header, file, i) for i in range(count)]
        if "ImagePositionPatient" not in header or int(header.get("NumberOfFrames") or 1) > 1:
            return []
        position, orientation = header.ImagePositionPatient, header.ImageOrientationPatient
        echo = _echo(header.get("EchoTime"), header.get("EchoNumbers"))
        return [_frame(header, file, None, header.PixelSpacing, orientation, position, echo)]


def voxels_of(file: Path, frames: Iterable[Frame], folder: Path) -> Iterator[Array]:
    """Give the rescaled voxels `(along a row, along a column)` of frames of one file.

    Parameters
    ----------
    folder
        Named in errors.

    Raises
    ------
    InputError
        Colours, or voxels that cannot be decoded.
    MissingDependencyError
        The compression needs another package.
    """
    import pydicom
    from pydicom.datadict import tag_for_keyword
    from pydicom.pixels.processing import apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    header = pydicom.Dataset()
    tags: Any = [tag_for_keyword(name) for name in SCALING]
    with _quiet():
        _require_decoder(file, folder)
        stored = pixel_array(file, ds_out=header, specific_tags=tags, raw=True)
        colours = header.get("PhotometricInterpretation")
        if colours not in ("MONOCHROME1", "MONOCHROME2"):
            raise InputError(folder, "holds colours", "Give the series of grey images")
        if colours == "MONOCHROME1":
            bits = int(header.BitsStored)  # dark means much: turned, so that bright does
            stored = (-1 if header.PixelRepresentation else 2**bits - 1) - stored
        for frame in frames:
            values = stored if frame.index is None or stored.ndim == 2 else stored[frame.index]
            scale = header
            if frame.index is not None:
                scale = _group(header, frame.index, "PixelValueTransformationSequence") or header
            slope = float(scale.get("RescaleSlope") or 1)
            intercept = float(scale.get("RescaleIntercept") or 0)
            if "ModalityLUTSequence" in scale:
                values = apply_modality_lut(values, scale).astype(np.float32)
            elif (slope, intercept) != (1, 0):
                values = (values * slope + intercept).astype(np.float32)
            yield values.T


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom's warnings back: they quote the values of odd tags."""
    logger = logging.getLogger("pydicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _require_decoder(file: Path, folder: Path) -> None:
    from pydicom.filereader import read_file_meta_info
    from pydicom.pixels.decoders.base import get_decoder

    syntax = read_file_meta_info(file).TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise MissingDependencyError(
            folder, f"is compressed ({syntax.name})", "pip install 'atypia[dicom]' brings decoders"
        )


def _enhanced(header: Any, file: Path, index: int) -> Frame:
    measures = _group(header, index, "PixelMeasuresSequence")
    plane = _group(header, index, "PlaneOrientationSequence")
    place = _group(header, index, "PlanePositionSequence")
    echo = _group(header, index, "MREchoSequence")
    return _frame(
        header,
        file,
        index,
        measures.PixelSpacing,
        plane.ImageOrientationPatient,
        place.ImagePositionPatient,
        _echo(None if echo is None else echo.get("EffectiveEchoTime")),
    )


def _frame(
    header: Any,
    file: Path,
    index: int | None,
    spacing: Any,
    orientation: Any,
    position: Any,
    echo: str,
) -> Frame:
    down, across = map(float, spacing)  # DICOM names the distance between rows first
    frame = Frame(
        file=file,
        index=index,
        instance=str(header.SOPInstanceUID),
        series=str(header.SeriesInstanceUID),
        number=int(header.get("SeriesNumber") or 0),
        description=str(header.get("SeriesDescription") or header.get("ProtocolName") or ""),
        localiser="LOCALIZER" in (header.get("ImageType") or ()),
        size=(int(header.Columns), int(header.Rows)),
        spacing_mm=(across, down),
        orientation=tuple(map(float, orientation)),
        position=tuple(map(float, position)),
        echo=echo,
    )
    if len(frame.orientation) != 6 or len(frame.position) != 3 or min(across, down) <= 0:
        raise ValueError("geometry")
    return frame


def _group(header: Any, index: int, name: str) -> Any:
    """Give a functional group of a frame: its own, or the one that all frames share."""
    own = header.PerFrameFunctionalGroupsSequence[index]
    shared = header.get("SharedFunctionalGroupsSequence") or [{}]
    found = own.get(name) or shared[0].get(name)
    return found[0] if found else None


def _echo(time: Any, number: Any = None) -> str:
    parts = [f"{float(time):.1f} ms"] if time not in (None, "") else []
    return ", ".join(parts + ([f"number {number}"] if number not in (None, "") else []))
