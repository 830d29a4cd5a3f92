"""Files of pre-trained encoders: safetensors beside a JSON description.

::

    ENCODER/
      encoder.safetensors    weights of the encoder without its head
      encoder.json           format, versions, shape, settings, scans, digest of the weights
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from atypia import files
from atypia.errors import InputError, ModelError
from atypia.networks.resnet import ResNetEncoder, encoder_weights, load_encoder_weights

WEIGHTS = "encoder.safetensors"
DESCRIPTION = "encoder.json"
FORMAT = 1
"""Grows when an encoder of an older atypia cannot be read any more."""

_WRITER = "Give the folder that `atypia fit spark` wrote"


def save_encoder(encoder: ResNetEncoder, folder: str | Path, description: dict[str, Any]) -> None:
    """Write an encoder without its head; the description comes last, and makes it complete.

    Parameters
    ----------
    description
        What to tell besides the encoder's format, depth, width, inputs and digest.
    """
    folder = Path(folder)
    with files.replacing(folder / WEIGHTS) as temporary:
        save_file({k: v.contiguous() for k, v in encoder_weights(encoder).items()}, temporary)
        temporary.chmod(folder.stat().st_mode & 0o666)
    own = {"format": FORMAT, **_shape(encoder), "weights_sha256": files.sha256(folder / WEIGHTS)}
    files.write_json(folder / DESCRIPTION, own | description)


def load_encoder(place: str | Path, encoder: ResNetEncoder | None) -> None:
    """Fill an encoder from a folder, or from the safetensors file itself; the head stays.

    Raises
    ------
    ModelError
        There is no such file or it is damaged, there is no encoder to fill, or their shapes differ.
    """
    path = _weights_path(place)
    if encoder is None:
        raise ModelError(path, "this variant has no encoder", "Use --variant conditioned")
    described = describe_encoder(place)
    if described is not None:
        _require_shape(path, described, _shape(encoder))
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(path, f"is no file of weights ({error})", _WRITER) from error
    load_encoder_weights(encoder, weights, str(path))


def describe_encoder(place: str | Path) -> dict[str, Any] | None:
    """Give the description of a finished encoder; None if there is none.

    Parameters
    ----------
    place
        Folder, or the safetensors file in it.

    Raises
    ------
    ModelError
        It is damaged, of another version, or of other weights than those beside it.
    """
    path = _weights_path(place)
    told = path.with_name(DESCRIPTION)
    if path.name != WEIGHTS or not told.exists():
        return None
    try:
        description: dict[str, Any] = files.read_json(told)
    except InputError as error:
        raise ModelError(told, "is damaged", "Pre-train the encoder again") from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        problem = f"has format {found!r}, this version of atypia reads {FORMAT}"
        raise ModelError(told, problem, "Pre-train the encoder again")
    if _digest(path) != description.get("weights_sha256"):
        problem = "is damaged or not the one that encoder.json describes"
        raise ModelError(path, problem, "Pre-train the encoder again")
    return description


def encoder_origin(place: str | Path) -> tuple[list[str], list[str]]:
    """Give the digest of an encoder's weights, and the people it learnt from if that is told.

    Raises
    ------
    ModelError
        There is no such file, or it is damaged.
    """
    described = describe_encoder(place)
    people = [] if described is None else described.get("people", [])
    return [_digest(_weights_path(place))], people


def _weights_path(place: str | Path) -> Path:
    place = Path(place)
    return place / WEIGHTS if place.is_dir() else place


def _digest(path: Path) -> str:
    try:
        return files.sha256(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(path, f"cannot be read ({reason})", _WRITER) from error


def _shape(encoder: ResNetEncoder) -> dict[str, int]:
    return {
        "depth": encoder.depth,
        "width": encoder.width,
        "inputs": encoder.inputs,
        "axes": encoder.axes,
        "stem_stride": encoder.strides[0],
    }


def _require_shape(path: Path, described: dict[str, Any], own: dict[str, int]) -> None:
    if all(described.get(name) == value for name, value in own.items()):
        return
    theirs, ours = (
        ", ".join(f"{name} {shape.get(name)}" for name in own) for shape in (described, own)
    )
    raise ModelError(
        path,
        f"has {theirs}, but the encoder it should start has {ours}",
        f"Use --encoder-depth {described.get('depth')} --encoder-width {described.get('width')} "
        f"(patch methods: --network resnet{described.get('depth')} --network-width "
        f"{described.get('width')} --stem-stride {described.get('stem_stride')}), "
        "or pre-train an encoder of this shape",
    )
