"""Commands that tell: `atypia methods` and `atypia doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from atypia import __version__
from atypia.registry import METHODS

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "nibabel",
    "SimpleITK",
    "pydicom",
    "nilearn",
    "lightning-fabric",
)
OPTIONAL = ("tensorboard",)


def methods() -> int:
    """List the detectors."""
    width = max(len(name) for name in METHODS)
    for name, line in METHODS.items():
        notes = [f"also: {', '.join(line.aliases)}"] if line.aliases else []
        notes += ["baseline"] if line.baseline else []
        print(f"{name:<{width}}  {line.summary}" + (f" ({'; '.join(notes)})" if notes else ""))
    return 0


def doctor() -> int:
    """Tell what is installed, which devices there are, and which data are found."""
    print(f"atypia {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in (*PACKAGES, *OPTIONAL):
        print(f"  {name:<18} {_version(name)}{' (optional)' if name in OPTIONAL else ''}")
    print("Devices:")
    for line in _devices():
        print(f"  {line}")
    print("Template MNI152:")
    print(f"  {_template()}")
    data = data_folder()
    print(f"Real scans (ATYPIA_DATA, default {data}):")
    print(f"  {_scans_in(data)}")
    return 0


def data_folder() -> Path:
    """Give the folder of real scans: the environment variable ATYPIA_DATA, or ../shared/data."""
    return Path(os.environ.get("ATYPIA_DATA", "../shared/data"))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _devices() -> list[str]:
    import torch

    found = [f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads"]
    found += [
        f"cuda:{i}: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        found.append("mps: Apple")
    return found


def _template() -> str:
    from atypia.errors import AtypiaError
    from atypia.templates import mni152

    try:
        return f"found, {'x'.join(map(str, mni152().t1w.shape))} voxels of 1 mm"
    except AtypiaError as error:
        return str(error)


def _scans_in(folder: Path) -> str:
    if not folder.is_dir():
        return "not found; everything but the benchmarks on real scans works without"
    count = sum(1 for _ in folder.rglob("*.nii*"))
    return f"{count} images in {', '.join(sorted(p.name for p in folder.iterdir() if p.is_dir()))}"
