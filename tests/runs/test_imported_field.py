"""Experiments of the reference become models; what is unsafe or does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from atypia.detectors import load_detector
from atypia.detectors.implicit_field import ImplicitField
from atypia.errors import InputError
from atypia.runs.imported_field import import_experiment

WIDTH, LENGTH, OCTAVES = 96, 12, 4
SPECS: dict[str, Any] = {
    "NetworkSpecs": {
        "dims": [WIDTH] * 4,
        "dim_out": 10,
        "dropout": [0, 1, 2, 3],
        "dropout_prob": 0.2,
        "norm_layers": [0, 1, 2, 3],
        "latent_in": [2],
        "xyz_in_all": False,
        "latent_dropout": False,
        "weight_norm": True,
    },
    "CodeLength": LENGTH,
    "L": OCTAVES,
    "CodeBound": 1.0,
    "CodeRegularizationLambda": 1e-4,
}


def state(prefix: str = "") -> dict[str, torch.Tensor]:
    """Weights as the reference names them."""
    torch.manual_seed(0)
    inputs = LENGTH + 6 * OCTAVES
    found = {"L_mult": torch.pi * 2.0 ** torch.arange(OCTAVES).reshape(1, 1, -1)}
    for place in range(4):
        wide = inputs if place == 0 else WIDTH
        layer = nn.Linear(wide, WIDTH - inputs if place == 1 else WIDTH)
        found[f"lin{place}.weight_g"] = torch.rand(layer.out_features, 1) + 0.5
        found[f"lin{place}.weight_v"] = layer.weight.detach()
        found[f"lin{place}.bias"] = layer.bias.detach()
    last = nn.Linear(WIDTH, 10)
    found |= {"lin4.weight": last.weight.detach(), "lin4.bias": last.bias.detach()}
    return {f"{prefix}{name}": value for name, value in found.items()}


def experiment(folder: Path, specs: dict[str, Any] | None = None, prefix: str = "") -> Path:
    (folder / "ModelParameters").mkdir(parents=True)
    (folder / "LatentCodes").mkdir()
    (folder / "specs.json").write_text(json.dumps(specs or SPECS))
    weights = {"epoch": 3, "model_state_dict": state(prefix)}
    torch.save(weights, folder / "ModelParameters" / "latest.pth")
    codes = {"epoch": 3, "latent_codes": {"weight": 0.1 * torch.randn(5, LENGTH)}}
    torch.save(codes, folder / "LatentCodes" / "latest.pth")
    return folder


def literal(weights: dict[str, torch.Tensor], code: torch.Tensor, place: np.ndarray) -> np.ndarray:
    """The reference's network at one of its own positions, written out."""
    position = torch.as_tensor(place, dtype=torch.float64)
    angles = torch.pi * 2.0 ** torch.arange(OCTAVES, dtype=torch.float64)
    waves = (position[:, None] * angles).flatten()
    given = torch.cat([code.double(), waves.sin(), waves.cos()])
    features = given
    for layer in range(4):
        if layer == 2:
            features = torch.cat([features, given])
        direction = weights[f"lin{layer}.weight_v"].double()
        matrix = weights[f"lin{layer}.weight_g"] * direction / direction.norm(dim=1, keepdim=True)
        features = (matrix @ features + weights[f"lin{layer}.bias"]).relu()
    return (weights["lin4.weight"].double() @ features + weights["lin4.bias"]).numpy()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_model_answers_as_the_reference_does(tmp_path: Path, prefix: str) -> None:
    import_experiment(experiment(tmp_path / "ifl", prefix=prefix), tmp_path / "model")
    model = load_detector(tmp_path / "model")
    assert isinstance(model, ImplicitField)
    assert model.codes_.shape == (5, LENGTH)
    grid = model._working_grid()
    assert grid.shape == (160, 160, 160)
    code, weights = torch.from_numpy(model.codes_[1]), state()
    points = model.positions(grid)
    for index in ((0, 0, 0), (10, 80, 159), (33, 150, 7)):
        x, y, z = index
        theirs = 2 * np.array([z, 159 - y, 159 - x]) / 160 - 1
        found = model.network_(torch.from_numpy(points[index])[None, None], code[None])[0, 0]
        expected = literal(weights, code, theirs)
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-3, atol=1e-4)


def test_what_would_run_when_read_is_refused(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "ifl")
    told = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (told,))

    torch.save({"model_state_dict": Trap()}, folder / "ModelParameters" / "latest.pth")
    with pytest.raises(InputError, match=r"latest\.pth.*more than tensors"):
        import_experiment(folder, tmp_path / "model")
    assert not told.exists()
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": [96, 64, 96, 96]}, "different widths"),
        ({"latent_in": []}, "latent_in"),
        ({"xyz_in_all": True}, "xyz_in_all"),
        ({"weight_norm": False}, "weight normalisation"),
        ({"dim_out": 11}, "ten published classes"),
        ({"dims": [64] * 4}, "does not fit specs.json"),
    ],
)
def test_other_networks_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    specs = {**SPECS, "NetworkSpecs": {**SPECS["NetworkSpecs"], **change}}
    with pytest.raises(InputError, match=message):
        import_experiment(experiment(tmp_path / "ifl", specs), tmp_path / "model")


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"specs\.json"):
        import_experiment(tmp_path, tmp_path / "model")
    folder = experiment(tmp_path / "ifl")
    with pytest.raises(InputError, match=r"100\.pth"):
        import_experiment(folder, tmp_path / "model", "100")
    torch.save({"latent_codes": torch.zeros(3, 7)}, folder / "LatentCodes" / "latest.pth")
    with pytest.raises(InputError, match="length 12"):
        import_experiment(folder, tmp_path / "model")
    (folder / "specs.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        import_experiment(folder, tmp_path / "model")
