"""DICOM files of a volume, as scanners write them: classic slices or one enhanced file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from atypia.volume import Array, Volume

SERIES = "1.2.826.0.1.3680043.8.498.1"
PATIENT = "DOE^JOHN"
"""Must never be seen again."""


def write_slices(
    volume: Volume,
    folder: Path,
    *,
    series: str = SERIES,
    seed: int = 0,
    slopes: Array | None = None,
    prefix: str = "IM",
    leave_out: tuple[int, ...] = (),
    tags: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write one file a slice, in a random order of names and instance numbers.

    Parameters
    ----------
    slopes
        Rescale slope of each slice; the intercept is minus ten times the slope.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = volume.shape[2]
    names = np.random.default_rng(seed).permutation(count)
    written = []
    for k in range(count):
        if k in leave_out:
            continue
        stored = volume.data[:, :, k]
        dataset = _common(volume, series, f"{series}.{seed}.{k + 1}", MRImageStorage)
        for name, value in _plane(volume, k).items():
            setattr(dataset, name, value)
        dataset.InstanceNumber = int(names[-1 - k]) + 1
        dataset.SliceThickness = 99.0  # a lie that nobody may believe
        if slopes is not None:
            dataset.RescaleSlope, dataset.RescaleIntercept = slopes[k], -10 * slopes[k]
        for name, value in (tags or {}).items():
            setattr(dataset, name, value)
        written.append(_save(dataset, stored.T, folder / f"{prefix}{names[k]:04d}"))
    return written


def write_enhanced(
    volume: Volume,
    path: Path,
    *,
    series: str = SERIES,
    slopes: Array | None = None,
    echoes: tuple[float, ...] = (),
    order: Array | None = None,
) -> Path:
    """Write one multi-frame file, its frames in a random order; every echo has all slices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = _common(volume, series, f"{series}.99", EnhancedMRImageStorage)
    frames = [(k, e) for e in echoes or (None,) for k in range(volume.shape[2])]
    if order is not None:
        frames = [frames[i] for i in order]
    dataset.NumberOfFrames = len(frames)
    groups = []
    for k, echo in frames:
        plane, group = _plane(volume, k), Dataset()
        group.PlanePositionSequence = [_with(ImagePositionPatient=plane["ImagePositionPatient"])]
        if slopes is not None:
            scale = _with(RescaleSlope=slopes[k], RescaleIntercept=-10 * slopes[k])
            group.PixelValueTransformationSequence = [scale]
        if echo is not None:
            group.MREchoSequence = [_with(EffectiveEchoTime=echo)]
        groups.append(group)
    shared = Dataset()
    turn = _plane(volume, 0)["ImageOrientationPatient"]
    shared.PlaneOrientationSequence = [_with(ImageOrientationPatient=turn)]
    shared.PixelMeasuresSequence = [_with(PixelSpacing=_plane(volume, 0)["PixelSpacing"])]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = groups
    return _save(dataset, np.stack([volume.data[:, :, k].T for k, _ in frames]), path)


def _with(**values: Any) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def _common(volume: Volume, series: str, instance: str, storage: UID) -> Dataset:
    return _with(
        SOPClassUID=storage,
        SOPInstanceUID=instance,
        SeriesInstanceUID=series,
        PatientName=PATIENT,
        PatientID=PATIENT,
        Modality="MR",
        Rows=volume.shape[1],
        Columns=volume.shape[0],
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=1 if volume.data.dtype.kind == "i" else 0,
    )


def _plane(volume: Volume, k: int) -> dict[str, Any]:
    """Give the tags that say where a slice lies; DICOM's world is LPS."""
    lps = np.diag([-1.0, -1, 1, 1]) @ volume.affine
    across, down, _ = volume.spacing_mm
    turn = [*(lps[:3, 0] / across), *(lps[:3, 1] / down)]
    return {
        "ImagePositionPatient": [_text(v) for v in (lps @ [0, 0, k, 1])[:3]],
        "ImageOrientationPatient": [_text(v) for v in turn],
        "PixelSpacing": [_text(down), _text(across)],
    }


def _text(value: float) -> str:
    return f"{value:.9f}"[:16]


def _save(dataset: Dataset, pixels: Array, path: Path) -> Path:
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path
