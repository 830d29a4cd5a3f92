"""Experiments of the reference's implicit fields as model folders of ours.

Source: the public code of IFL (arXiv 2106.05214). An experiment is a folder::

    EXPERIMENT/
      specs.json                    network and training
      ModelParameters/latest.pth    weights of the decoder
      LatentCodes/latest.pth        codes of the training subjects

Their volumes lie with the axes (from below to above, from front to back, from right to left). The
first layers are rewritten for (from left to right, from back to front, from below to above), which
is how volumes lie here: a mirrored coordinate turns each pair of sine and cosine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atypia import files
from atypia.cohort.scan import Cohort
from atypia.detectors.implicit_field import REFERENCE, ImplicitField, ImplicitFieldSettings
from atypia.detectors.model_folder import save_detector
from atypia.errors import InputError
from atypia.preprocessing import make_plan


def import_experiment(experiment: Path, output: Path, which: str = "latest") -> ImplicitField:
    """Write the model folder of an experiment.

    Parameters
    ----------
    experiment
        Folder with specs.json.
    output
        The model folder.
    which
        ``"latest"``, or the epoch of a snapshot.

    Raises
    ------
    InputError
        A file is missing, pickled in an unsafe way, or does not fit specs.json.
    """
    specs = _specs(experiment / "specs.json")
    settings = _settings(specs, experiment / "specs.json")
    codes_path = experiment / "LatentCodes" / f"{which}.pth"
    weights_path = experiment / "ModelParameters" / f"{which}.pth"
    codes = _codes(_tensors(codes_path), codes_path, settings.code_length)
    stored = _tensors(weights_path)
    detector = ImplicitField(settings)
    empty = Cohort((), "ifl")
    detector.plan = make_plan(empty, preset="ifl", modality="T2w")
    detector._build()
    weights = _renamed(_state(stored, weights_path), settings.depth)
    expected = detector.network_.state_dict()
    missing, unknown = sorted(expected.keys() - weights), sorted(weights.keys() - expected)
    wrong = [n for n in expected if n in weights and weights[n].shape != expected[n].shape]
    if missing or unknown or wrong:
        raise InputError(
            weights_path,
            f"does not fit specs.json (missing {missing[:3]}, unknown {unknown[:3]}, of another"
            f" shape {wrong[:3]})",
            "Give the files of one experiment",
        )
    size = detector._working_grid().shape[0]
    detector.network_.load_state_dict(_turned(weights, settings, size))
    detector.network_.eval()
    detector.codes_ = codes.numpy()
    planned = detector._planned_classes()
    assert planned is not None
    detector.centres_ = np.array(planned.centres)
    detector.trained_on = {
        "cohort": f"{experiment.name} of the reference",
        "scans": len(codes),
        "modality": "T2w",
        "identity": files.digest(files.sha256(weights_path), files.sha256(codes_path)),
        # Not in the experiment: whether calibration scans were used for training cannot be seen.
        "people": [],
    }
    output.mkdir(parents=True, exist_ok=True)
    save_detector(detector, output)
    return detector


def _specs(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(path, "does not exist", "Name the folder of an experiment")
    try:
        specs = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(path, f"is no JSON ({error})", "Mend it") from error
    lacking = [key for key in ("NetworkSpecs", "CodeLength") if key not in specs]
    if lacking:
        raise InputError(path, f"lacks {', '.join(lacking)}", "Give an experiment's specs.json")
    return dict(specs)


def _settings(specs: dict[str, Any], path: Path) -> ImplicitFieldSettings:
    """Translate specs.json; what no published experiment uses is refused."""
    network = specs["NetworkSpecs"]
    widths = network.get("dims", [])
    hidden = list(range(len(widths)))
    octaves = specs.get("L", 10)
    problems = []
    if len(set(widths)) != 1:
        problems.append("dims of different widths")
    if len(network.get("latent_in", [])) != 1:
        problems.append("latent_in with other than one layer")
    if network.get("xyz_in_all") or network.get("latent_dropout"):
        problems.append("xyz_in_all or latent_dropout")
    if not network.get("weight_norm") or sorted(network.get("norm_layers", [])) != hidden:
        problems.append("anything but weight normalisation of all hidden layers")
    if octaves is None:
        problems.append("positions that are not encoded (L null)")
    if network.get("dim_out") != 10:
        problems.append("other than the ten published classes")
    if problems:
        raise InputError(
            path,
            f"has {'; '.join(problems)}, which no published experiment has",
            "Train it here: atypia fit implicit_field --preset reference",
        )
    values = {
        **REFERENCE,
        "width": widths[0],
        "depth": len(widths),
        "skip": network["latent_in"][0],
        "code_length": specs["CodeLength"],
        "octaves": octaves,
        "dropout": network.get("dropout_prob", 0.0) if network.get("dropout") else 0.0,
        "code_bound": specs.get("CodeBound") or 1.0,
        "code_weight": specs.get("CodeRegularizationLambda", 0.0),
    }
    return ImplicitFieldSettings.make(values)


def _tensors(path: Path) -> dict[str, Any]:
    """Read a file of torch's without running anything that is in it."""
    import pickle

    if not path.exists():
        raise InputError(path, "does not exist", "Give a complete experiment, or another --epoch")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            path,
            "holds more than tensors, or is damaged: to read it would run whatever is in it",
            "Save its state_dict with torch.save, which is read safely",
        ) from error
    if not isinstance(stored, dict):
        raise InputError(path, "holds no dictionary", "Give a file that the reference wrote")
    return stored


def _state(stored: dict[str, Any], path: Path) -> dict[str, Tensor]:
    state = stored.get("model_state_dict", stored)
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(path, "holds no weights", "Give a file of ModelParameters")
    # Trained on several devices, names begin with "module."; "L_mult" holds constants.
    bare = {name.removeprefix("module."): value for name, value in state.items()}
    return {name: value for name, value in bare.items() if name != "L_mult"}


def _codes(stored: dict[str, Any], path: Path, length: int) -> Tensor:
    codes = stored.get("latent_codes")
    codes = codes.get("weight") if isinstance(codes, dict) else codes
    if not isinstance(codes, Tensor) or codes.reshape(len(codes), -1).shape[1] != length:
        raise InputError(
            path, f"holds no codes of length {length}", "Give the codes of the same experiment"
        )
    return codes.reshape(len(codes), length).float()


def _renamed(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Give the weights our names, those of hidden layers and of the head."""
    parts = {
        "weight_g": "parametrizations.weight.original0",
        "weight_v": "parametrizations.weight.original1",
    }
    renamed = {}
    for name, value in state.items():
        layer, _, part = name.partition(".")
        number = layer.removeprefix("lin")
        if layer == f"lin{depth}":
            renamed[f"head.{part}"] = value
        elif number.isdigit():
            renamed[f"hidden.{number}.{parts.get(part, part)}"] = value
        else:
            renamed[name] = value
    return renamed


def _turned(
    weights: dict[str, Tensor], settings: ImplicitFieldSettings, size: int
) -> dict[str, Tensor]:
    """Rewrite the layers that see positions for our order of axes.

    With `q` their position and `p` ours, `q = (p_z, -p_y - 2/N, -p_x - 2/N)`: index `N - 1 - i`
    lies at `2 (N - 1 - i) / N - 1`. Turning columns keeps the norms of rows, and with them weight
    normalisation.
    """
    octaves = settings.octaves
    shift = 2 / size
    angle = shift * torch.pi * 2.0 ** torch.arange(octaves, dtype=torch.float64)
    cosine, sine = angle.cos(), angle.sin()
    turned = dict(weights)
    for layer in (0, settings.skip):
        name = f"hidden.{layer}.parametrizations.weight.original1"
        matrix = weights[name].double().clone()
        waves = matrix[:, -6 * octaves :].reshape(len(matrix), 2, 3, octaves)
        ours = torch.empty_like(waves)
        ours[:, :, 2] = waves[:, :, 0]
        for their, our in ((1, 1), (2, 0)):
            by_sine, by_cosine = waves[:, 0, their], waves[:, 1, their]
            # sin(-a - d) = -sin(a) cos(d) - cos(a) sin(d); cos(-a - d) = cos(a) cos(d) - ...
            ours[:, 0, our] = -by_sine * cosine - by_cosine * sine
            ours[:, 1, our] = -by_sine * sine + by_cosine * cosine
        matrix[:, -6 * octaves :] = ours.reshape(len(matrix), -1)
        turned[name] = matrix.to(weights[name].dtype)
    return turned
