"""Files of pre-trained encoders: safetensors beside a JSON description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from atypia import files
from atypia.errors import ModelError
from atypia.networks.resnet import ResNetEncoder, encoder_weights, load_encoder_weights

WEIGHTS = "encoder.safetensors"
DESCRIPTION = "encoder.json"


def save_encoder(encoder: ResNetEncoder, folder: str | Path, description: dict[str, Any]) -> None:
    """Write an encoder without its head; the description comes last, and makes it complete."""
    folder = Path(folder)
    with files.replacing(folder / WEIGHTS) as temporary:
        save_file({k: v.contiguous() for k, v in encoder_weights(encoder).items()}, temporary)
        temporary.chmod(folder.stat().st_mode & 0o666)
    files.write_json(folder / DESCRIPTION, description)


def load_encoder(place: str | Path, encoder: ResNetEncoder | None) -> None:
    """Fill an encoder from a folder, or from the safetensors file itself; the head stays.

    Raises
    ------
    ModelError
        There is no such file, there is no encoder to fill, or their shapes differ.
    """
    place = Path(place)
    path = place / WEIGHTS if place.is_dir() else place
    if encoder is None:
        raise ModelError(path, "this variant has no encoder", "Use --variant conditioned")
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            path,
            f"is no file of weights ({error})",
            "Give the folder that `atypia fit spark` wrote",
        ) from error
    load_encoder_weights(encoder, weights, str(path))
