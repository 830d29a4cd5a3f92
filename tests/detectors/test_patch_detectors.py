"""Methods that judge patches: every source of features, every autoencoder, what a score means."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from atypia.detectors.base import Detector
from atypia.detectors.memory_bank import MemoryBank
from atypia.detectors.model_folder import load_detector, save_detector
from atypia.detectors.padim import Padim
from atypia.detectors.patch_autoencoder import PatchAutoencoder, PatchAutoencoderSettings
from atypia.errors import ModelError, SettingsError
from atypia.networks.cnn3d import SimpleCNN
from atypia.networks.vector_autoencoder import AUTOENCODERS
from atypia.registry import detector_class
from tests.phantoms import phantom_cohort

SEEDS = range(5)


def made(method: str, **values) -> Detector:
    kind = detector_class(method)
    return kind(kind.settings_class.make(values, preset="tiny"))


@cache
def fitted(method: str) -> Detector:
    return made(method).fit(phantom_cohort(SEEDS))


def same_after_saving(detector: Detector, folder: Path) -> Detector:
    """Save, load, and compare the scores of a scan bit for bit."""
    save_detector(detector, folder)
    again = load_detector(folder)
    scan = phantom_cohort([77])[0]
    np.testing.assert_array_equal(again.score_map(scan).data, detector.score_map(scan).data)
    assert not list(folder.rglob("*.pkl"))
    assert not list(folder.rglob("*.pt*"))
    return again


@pytest.mark.parametrize(
    ("kind", "embedding", "network"),
    [
        *product(AUTOENCODERS, ("pool", "flatten", "mlp"), ("simple", "resnet18")),
        ("standard", "pool", "resnet34"),
        ("standard", "pool", "resnet50"),
    ],
)
def test_every_autoencoder_embedding_and_network(
    kind: str, embedding: str, network: str, tmp_path: Path
) -> None:
    detector = made(
        "patch_autoencoder",
        features="random",
        network=network,
        autoencoder=kind,
        embedding=embedding,
        embedding_hidden=(8,),
        embedding_length=6,
        training={"steps": 4, "batch_size": 1, "validate_every": 2},
    ).fit(phantom_cohort(SEEDS))
    same_after_saving(detector, tmp_path)


@pytest.mark.parametrize("fusion", ["sum", "attention"])
@pytest.mark.parametrize("pooling", ["max", "adaptive"])
def test_every_fusion_and_pooling(fusion: str, pooling: str, tmp_path: Path) -> None:
    detector = made(
        "patch_autoencoder", features="random", network="simple", fusion=fusion, pooling=pooling
    )
    same_after_saving(detector.fit(phantom_cohort(SEEDS)), tmp_path)


@pytest.mark.parametrize("method", ["patch_autoencoder", "memory_bank", "padim"])
def test_the_encoder_learns_from_the_cohort_itself(method: str, tmp_path: Path) -> None:
    values = {"features": "self_supervised", "network_width": 8}
    untrained = made(method, **values)
    untrained._build()
    before = untrained.features_.network.stem.weight.clone()
    detector = made(method, **values).fit(phantom_cohort(SEEDS))
    assert not torch.equal(detector.features_.network.stem.weight, before)
    same_after_saving(detector, tmp_path)


def test_only_a_resnet_can_hide_cubes() -> None:
    with pytest.raises(SettingsError, match="resnet"):
        made("padim", features="self_supervised", network="simple").fit(phantom_cohort(SEEDS))


def test_weights_of_your_own_must_fit_exactly(tmp_path: Path) -> None:
    torch.manual_seed(3)
    weights = SimpleCNN((4, 8, 16)).state_dict()
    save_file(weights, tmp_path / "own.safetensors")
    values = {"features": "file", "network": "simple", "weights": tmp_path / "own.safetensors"}
    detector = made("padim", **values).fit(phantom_cohort(SEEDS))
    first = "stages.0.0.weight"
    assert torch.equal(detector.features_.network.state_dict()[first], weights[first])
    same_after_saving(detector, tmp_path / "model")
    save_file({first: weights[first]}, tmp_path / "own.safetensors")
    with pytest.raises(ModelError, match="Missing"):
        made("padim", **values).fit(phantom_cohort(SEEDS))
    (tmp_path / "own.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="own.safetensors"):
        made("padim", **values).fit(phantom_cohort(SEEDS))
    with pytest.raises(SettingsError, match="--weights"):
        made("padim", features="file").fit(phantom_cohort(SEEDS))


@pytest.mark.parametrize("donor", ["mask_refinement", "diffusion", "padim"])
def test_the_encoder_of_another_model(donor: str, tmp_path: Path) -> None:
    values = {"features": "self_supervised"} if donor == "padim" else {}
    other = made(donor, **values).fit(phantom_cohort(SEEDS))
    save_detector(other, tmp_path / "donor")
    detector = made(
        "memory_bank", features="detector", weights=tmp_path / "donor", layers=(0, 1)
    ).fit(phantom_cohort(SEEDS))
    theirs, ours = other.encoder(), detector.encoder()
    assert theirs is not None
    for (name, one), two in zip(
        theirs.state_dict().items(), ours.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name
    people = set(detector.trained_on["people"])
    assert set(other.trained_on["people"]) <= people
    # The donor is not needed any more.
    for file in (tmp_path / "donor").rglob("*.*"):
        file.unlink()
    same_after_saving(detector, tmp_path / "model")


def test_the_encoder_of_a_model_whose_encoder_came_from_another(tmp_path: Path) -> None:
    first = made("padim", features="self_supervised").fit(phantom_cohort(SEEDS))
    save_detector(first, tmp_path / "first")
    values = {"features": "detector", "weights": tmp_path / "first"}
    second = made("padim", **values).fit(phantom_cohort(SEEDS))
    save_detector(second, tmp_path / "second")
    third = made("padim", features="detector", weights=tmp_path / "second")
    third.fit(phantom_cohort(SEEDS))
    for folder in ("first", "second"):
        for file in (tmp_path / folder).rglob("*.*"):
            file.unlink()
    same_after_saving(third, tmp_path / "third")


def test_fitting_again_gives_the_same(tmp_path: Path) -> None:
    save_detector(made("mask_refinement").fit(phantom_cohort(SEEDS)), tmp_path)
    detector = made("padim", features="detector", weights=tmp_path)
    scan = phantom_cohort([77])[0]
    once = detector.fit(phantom_cohort(SEEDS)).score_map(scan).data
    np.testing.assert_array_equal(detector.fit(phantom_cohort(SEEDS)).score_map(scan).data, once)


def test_a_model_on_another_grid_cannot_give_its_encoder(tmp_path: Path) -> None:
    save_detector(made("mask_refinement", spacing_mm=8.0).fit(phantom_cohort(SEEDS)), tmp_path)
    with pytest.raises(ModelError, match="another grid"):
        made("padim", features="detector", weights=tmp_path).fit(phantom_cohort(SEEDS))


def test_what_was_learnt_cannot_be_changed_and_the_map_can() -> None:
    detector = fitted("padim")
    scan = phantom_cohort([77])[0]
    changed = detector.but(score_map="max")
    assert not np.array_equal(changed.score_map(scan).data, detector.score_map(scan).data)
    with pytest.raises(SettingsError, match="learnt"):
        detector.but(patch_size=2)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"features": "random", "network": "simple", "layers": (3,)}, "layers"),
        ({"patch_size": 500}, "patch_size"),
    ],
)
def test_settings_that_do_not_fit_are_named(values, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        made("padim", **values).fit(phantom_cohort(SEEDS))


@pytest.mark.parametrize("name", ["layers", "descriptors", "scales_mm"])
def test_something_must_be_described(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        made("padim", **{name: ()})


def test_a_model_without_an_encoder_cannot_give_one(tmp_path: Path) -> None:
    save_detector(made("zscore").fit(phantom_cohort(SEEDS)), tmp_path)
    with pytest.raises(ModelError, match="zscore has no encoder"):
        made("padim", features="detector", weights=tmp_path).fit(phantom_cohort(SEEDS))


def test_a_variational_score_needs_the_divergence() -> None:
    values = {"autoencoder": "variational", "normalise": False, "score_map": "mean"}
    detector = made("patch_autoencoder", **values).fit(phantom_cohort(SEEDS))
    assert isinstance(detector, PatchAutoencoder)
    scan = phantom_cohort([77])[0]
    _, prepared = detector._prepared(scan, None)
    patches = detector._patches(prepared)
    with torch.no_grad():
        expected = detector.network_.error(torch.from_numpy(patches.vectors)).numpy()
    np.testing.assert_allclose(detector._judge(patches), expected, rtol=1e-5)


def test_distances_of_the_memory_bank() -> None:
    """Written out for every patch, in float64."""
    detector = fitted("memory_bank").but(neighbours=2)
    assert isinstance(detector, MemoryBank)
    _, prepared = detector._prepared(phantom_cohort([77])[0], None)
    patches = detector._patches(prepared)
    places = detector.places_mm(patches)
    expected = []
    for vector, place in zip(patches.vectors, places, strict=True):
        apart = np.linalg.norm(detector.places_.astype(float) - place, axis=1)
        distance = np.linalg.norm(detector.bank_.astype(float) - vector, axis=1)
        near = distance[apart <= detector.settings.radius_mm]
        if len(near) < 2:
            near = distance[np.argsort(apart, kind="stable")[:2]]
        expected.append(np.sort(near)[:2].mean())
    np.testing.assert_allclose(detector._judge(patches), expected, rtol=1e-3)


def test_places_of_padim_do_not_need_to_be_the_same_in_every_scan() -> None:
    detector = fitted("padim")
    assert isinstance(detector, Padim)
    _, prepared = detector._prepared(phantom_cohort([77])[0], None)
    patches = detector._patches(prepared)
    everywhere = np.arange(patches.grid.count)
    vectors = np.zeros((len(everywhere), patches.vectors.shape[1]), np.float32)
    widened = type(patches)(vectors, everywhere, patches.grid)
    assert np.isfinite(detector._judge(widened)).all()


def test_healthy_scans_score_about_zero_everywhere_when_normalised() -> None:
    scan = phantom_cohort([88])[0]
    for method in ("patch_autoencoder", "memory_bank", "padim"):
        found = made(method, normalise=True).fit(phantom_cohort(SEEDS)).score_map(scan).data
        assert abs(float(np.median(found[found != 0]))) < 2.5


def test_the_published_settings_are_valid() -> None:
    for method in ("patch_autoencoder", "memory_bank", "padim"):
        detector_class(method).settings_class.make(preset="published")
    assert PatchAutoencoderSettings.make(preset="published").features == "random"
