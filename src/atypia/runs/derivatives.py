"""BIDS derivatives: the results of scans that have BIDS names, under such names once more.

::

    OUT/derivatives/atypia/
      dataset_description.json
      sub-01/[ses-1/]anat/
        sub-01_desc-atypiaScore_T1w.nii.gz       anomaly score
        sub-01_label-anomaly_desc-atypia_mask.nii.gz
        sub-01_label-anomaly_desc-atypiaOwn_mask.nii.gz
        sub-01_desc-restored_T1w.nii.gz
        sub-01_desc-brain_mask.nii.gz
        ... and a .json beside each

The images are hard links to those of the results folder where the disk can link, so that they take
no room. The folder `atypia` can be moved into `derivatives/` of the data set as it is.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from atypia import __version__, files, io
from atypia.cohort.bids import entities
from atypia.cohort.scan import MODALITIES, Cohort, Scan

FOLDER = Path("derivatives") / "atypia"
BIDS_VERSION = "1.10.0"
NAME = re.compile(r"sub-[a-zA-Z0-9]+(_[a-z]+-[a-zA-Z0-9+]+)*_[a-zA-Z0-9]+")

KINDS: dict[str, tuple[str, str, str, str]] = {
    "score_map": ("", "atypiaScore", "", "Anomaly score, higher is more abnormal, 0 outside brain"),
    "mask": ("anomaly", "atypia", "mask", "Voxels above the calibrated threshold"),
    "own_mask": ("anomaly", "atypiaOwn", "mask", "The method's own label-free mask"),
    "restoration": ("", "restored", "", "The scan as it would look healthy"),
    "brain": ("", "brain", "mask", "Brain mask that was used"),
}
"""Volume of a prediction -> label, desc, suffix (empty for that of the scan) and description."""


@dataclass(frozen=True)
class BidsName:
    """What the name of an image in BIDS tells.

    Parameters
    ----------
    path
        The image.
    entities
        Key -> value, in the order of the name.
    suffix
        E.g. ``"T1w"``.
    """

    path: Path
    entities: dict[str, str]
    suffix: str

    @classmethod
    def of(cls, image: Any) -> Self | None:
        """Read a name; None for an image that has none in BIDS."""
        if not isinstance(image, Path):
            return None
        stem = io.stem_of(image)
        suffix = stem.rpartition("_")[2]
        if not NAME.fullmatch(stem) or suffix not in MODALITIES:
            return None
        return cls(image, entities(stem), suffix)

    @property
    def folder(self) -> Path:
        """Where results about it lie below the root of a data set."""
        parts = [f"{key}-{self.entities[key]}" for key in ("sub", "ses") if key in self.entities]
        return Path(*parts, "anat")

    @property
    def root(self) -> Path | None:
        """The data set in whose tree it lies; None for a file that lies by itself."""
        depth = len(self.folder.parts)
        place = self.path.absolute().parent
        return place.parents[depth - 1] if place.parts[-depth:] == self.folder.parts else None

    def derived(self, label: str, desc: str, suffix: str) -> str:
        """Give the name of something made from it, without an ending."""
        own = dict(self.entities)
        before = own.pop("desc", "")
        own.pop("label", None)
        # A scan that is a derivative itself keeps telling it.
        desc = before + desc[0].upper() + desc[1:] if before else desc
        own |= ({"label": label} if label else {}) | {"desc": desc}
        return "_".join([*(f"{k}-{v}" for k, v in own.items()), suffix or self.suffix])


class Derivatives:
    """The derivatives of one results folder.

    Parameters
    ----------
    output
        The results folder.
    cohort
        Its scans; those without names in BIDS are passed over.
    modality
        Which images.
    """

    def __init__(self, output: Path, cohort: Cohort, modality: str) -> None:
        self.output = output
        self.modality = modality
        roots = {name.root for scan in cohort if (name := self.name_of(scan))} - {None}
        ordered = sorted(str(root) for root in roots)
        self.links = {
            root: "raw" if len(ordered) == 1 else f"raw{i}" for i, root in enumerate(ordered, 1)
        }

    def name_of(self, scan: Scan) -> BidsName | None:
        """Give the BIDS name of a scan's image, if it has one."""
        image = scan.images.get(self.modality, next(iter(scan.images.values()), None))
        return BidsName.of(image)

    def write(
        self, scan: Scan, place: Path, volumes: dict[str, str], method: str, detector: str
    ) -> None:
        """Write the derivatives of one finished scan; what is there already is kept.

        Parameters
        ----------
        place
            Its folder of results.
        volumes
            Volume of a prediction -> its file in that folder, whether it is there or not.
        method, detector
            Name of the method, and digest of the model.

        Raises
        ------
        OutputError
            A file cannot be written.
        """
        name = self.name_of(scan)
        if name is None:
            return
        found = files.read_json(place / "scan.json")
        folder = self.output / FOLDER / name.folder
        for volume, (label, desc, suffix, _) in KINDS.items():
            target = folder / f"{name.derived(label, desc, suffix)}.nii.gz"
            sidecar = target.with_name(target.name.replace(".nii.gz", ".json"))
            source = place / volumes[volume]
            if not source.exists():
                target.unlink(missing_ok=True)
                sidecar.unlink(missing_ok=True)
            elif not sidecar.exists() or not _same(source, target):
                _link(source, target)
                files.write_json(sidecar, self._sidecar(volume, name, found, method, detector))

    def describe(self) -> None:
        """Write `dataset_description.json`, if there are derivatives."""
        if not (self.output / FOLDER).is_dir():
            return
        description: dict[str, Any] = {
            "Name": "atypia anomaly detection",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [
                {
                    "Name": "atypia",
                    "Version": __version__,
                    "Description": "Unsupervised anomaly detection; not for diagnosis",
                }
            ],
        }
        if self.links:
            description["DatasetLinks"] = {
                name: Path(root).as_uri() for root, name in self.links.items()
            }
        files.write_json(self.output / FOLDER / "dataset_description.json", description)

    def _sidecar(
        self, volume: str, name: BidsName, found: dict[str, Any], method: str, detector: str
    ) -> dict[str, Any]:
        source = self._address(name)
        values: dict[str, Any] = {
            "Description": KINDS[volume][-1],
            "Sources": [source],
            "SpatialReference": source,
            "Model": {"Method": method, "Digest": detector},
        }
        if volume in ("mask", "own_mask", "brain"):
            values["Type"] = "Brain" if volume == "brain" else "ROI"
        if volume in ("score_map", "mask"):
            threshold = found["threshold"]
            values["Threshold"] = None if threshold is None else threshold["value"]
            values["ThresholdProvenance"] = None if threshold is None else threshold["provenance"]
        if volume == "score_map":
            values |= {"SubjectScore": found["score"], "PValue": found["p_value"]}
        if volume == "restoration":
            values["SkullStripped"] = True
        return values

    def _address(self, name: BidsName) -> str:
        if name.root is None:
            return name.path.name
        return f"bids:{self.links[str(name.root)]}:{(name.folder / name.path.name).as_posix()}"


def _same(source: Path, target: Path) -> bool:
    """Tell whether the target is the source or a copy of it."""
    if not target.exists():
        return False
    one, other = source.stat(), target.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _link(source: Path, target: Path) -> None:
    with files.replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)
