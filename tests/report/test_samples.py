"""Samples: each snapshot restores with its own weights, the scan is prepared as for the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from atypia.cli import main
from atypia.cohort.scan import Scan
from atypia.detectors.model_folder import load_detector
from atypia.errors import InputError, ModelError
from atypia.preprocessing import prepare
from atypia.report.samples import samples_of
from atypia.report.snapshots import MOST, fitting, read_counts, read_weights, spread
from tests.cli.test_errors import write_phantoms

QUICK = ["--preset", "tiny", "--workers", "1", "--training.steps", "6"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with three snapshots, and a scan of somebody else."""
    root = tmp_path_factory.mktemp("samples")
    write_phantoms(root / "healthy", range(3))
    write_phantoms(root / "others", range(50, 51))
    fit = ["fit", "mask_refinement", str(root / "healthy"), "-o", str(root / "model"), *QUICK]
    assert main.run([*fit, "--training.snapshot-epochs", "1"]) == 0
    return root


def scan_of(place: Path, folder: str = "others") -> Path:
    return sorted((place / folder).glob("*_T2w.nii.gz"))[0]


def test_each_snapshot_restores_with_its_own_weights(place: Path) -> None:
    samples = samples_of(place / "model", scan_of(place))
    snapshots = sorted((place / "model" / "snapshots").glob("*.safetensors"))
    assert len(snapshots) == 3
    assert [p.title for p in samples.pictures] == ["scan", "step 2", "step 4", "step 6", "kept"]
    assert not samples.learnt_from
    # By hand: load the middle snapshot into the network and compare with the prepared scan.
    detector = load_detector(place / "model")
    weights = load_file(snapshots[1])
    kept = {k.removeprefix("network."): v for k, v in weights.items() if k.startswith("network.")}
    detector.network_.load_state_dict(kept)
    prepared = prepare(Scan.of(scan_of(place)), detector.plan, "T2w")
    restored = detector._score_alone(prepared).restoration
    brain = prepared.brain.data
    error = np.abs(prepared.image.data[brain].astype(float) - restored[brain]).mean()
    assert samples.pictures[2].error == pytest.approx(error, rel=1e-5)
    assert len({p.error for p in samples.pictures[1:4]}) == 3
    assert samples.pictures[0].error is None


def test_a_scan_that_was_learnt_from_is_told(place: Path) -> None:
    assert samples_of(place / "model", place / "healthy").learnt_from
    assert not samples_of(place / "model", place / "others").learnt_from


def test_weights_of_a_part_are_found_under_another_name(place: Path, tmp_path: Path) -> None:
    path = sorted((place / "model" / "snapshots").glob("*.safetensors"))[0]
    with safe_open(path, "pt") as file:
        told = file.metadata()
    weights = load_file(path)
    network = load_detector(place / "model").network_
    inner = {k.replace("network.", "network.inner."): v for k, v in weights.items()}
    save_file(inner, tmp_path / "a.safetensors", told)
    found = read_weights(tmp_path / "a.safetensors")
    assert read_counts(tmp_path / "a.safetensors").step == json.loads(told["training"])["step"]
    assert set(fitting(found, network, path)) == set(network.state_dict())
    with pytest.raises(ModelError, match="of another network"):
        fitting({"other": next(iter(found.values()))}, network, path)


def test_a_damaged_snapshot_and_an_unfinished_model_are_errors(place: Path, tmp_path: Path) -> None:
    import shutil

    model = Path(shutil.copytree(place / "model", tmp_path / "model"))
    (model / "snapshots" / "epoch-0002.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="no whole snapshot"):
        samples_of(model, scan_of(place))
    (model / "detector.json").unlink()
    with pytest.raises(ModelError):
        samples_of(model, scan_of(place))


def test_a_method_without_restorations_is_refused(place: Path, tmp_path: Path) -> None:
    fit = ["fit", "intensity", str(place / "healthy"), "-o", str(tmp_path / "m"), "--workers", "1"]
    assert main.run([*fit, "--spacing-mm", "6", "--align", "none"]) == 0
    with pytest.raises(InputError, match="makes no restorations"):
        samples_of(tmp_path / "m", scan_of(place))


def test_many_snapshots_are_thinned_evenly() -> None:
    places = [Path(f"{i}") for i in range(25)]
    chosen = spread(places)
    assert len(chosen) == MOST
    assert (chosen[0], chosen[-1]) == (places[0], places[-1])
    assert spread(places[:3]) == places[:3]
