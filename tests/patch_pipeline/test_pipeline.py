"""The pipeline object: every part fits, places are right, thresholds honest, folders faithful."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import atypia.patch_pipeline.pipeline as implementation
from atypia.errors import InputError, ModelError, NotFittedError, SettingsError
from atypia.patch_pipeline import (
    MODALITIES,
    AnomalyDetectionPipeline,
    create_pipeline_for_modality,
    create_resnet_pipeline,
    create_simple_pipeline,
    ensemble_inference,
)
from tests.patch_pipeline.scans import QUICK, Means, blob, scan, small, volumes


@pytest.fixture(scope="module")
def fitted() -> AnomalyDetectionPipeline:
    return small().fit(volumes(5))


# -- F2: places -----------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "aggregation"), [("simple", "interpolated"), ("own", "mean")])
def test_the_peak_of_the_map_is_where_the_lesion_is(network: str, aggregation: str) -> None:
    """Within half a stride, at 50 places.

    Places are a patch away from the border: beyond the centres of the outermost patches the map is
    constant, and has no peak of its own.
    """
    edge, stride = 24, 4
    kind = {"type": "simple", "args": {"feature_dims": [8, 16]}}
    if network == "own":
        kind = {"type": Means(), "layer_names": ["layer1"]}
    pipeline = AnomalyDetectionPipeline(
        kind,
        {"embedding_method": "flatten"},
        {"type": "standard", "args": {"hidden_dims": [64], "latent_dim": 16}},
        {"patch_size": 8, "stride": stride, "aggregation": aggregation},
        {"num_epochs": 6},
        device="cpu",
    )
    pipeline.fit(volumes(6, edge))
    rng = np.random.default_rng(5)
    for number in range(50):
        place = rng.integers(8, edge - 8, 3)
        found, _ = pipeline.score_map(scan(100 + number, edge) + 12 * blob(place, edge))
        peak = np.argwhere(found.numpy() >= float(found.max()) * (1 - 1e-6)).mean(0)
        assert np.abs(peak - place).max() <= stride / 2, (place, peak)


# -- F6: every part -------------------------------------------------------------------------


@pytest.mark.parametrize("embedding", ["flatten", "pool", "mlp"])
@pytest.mark.parametrize(
    ("kind", "special"),
    [
        ("standard", {}),
        ("variational", {"beta": 0.5}),
        ("denoising", {"noise_factor": 0.2}),
        ("contractive", {"lambda_reg": 1e-3}),
    ],
)
def test_every_autoencoder_and_embedding(
    kind: str, special: dict, embedding: str, tmp_path: Path
) -> None:
    # Of three scans with 27 patches each, batches of 16 leave one over; in bfloat16.
    pipeline = small(kind, embedding, training={"use_amp": True, "batch_size": 16}, **special)
    pipeline.fit(volumes(3), val_volumes=volumes(4)[3:])
    same_after_saving(pipeline, tmp_path)


@pytest.mark.parametrize(
    ("network", "kind", "embedding"),
    [
        ("resnet18", "variational", "mlp"),
        ("resnet34", "contractive", "pool"),
        ("resnet50", "denoising", "flatten"),
    ],
)
def test_every_network(network: str, kind: str, embedding: str, tmp_path: Path) -> None:
    pipeline = small(kind, embedding, network).fit(volumes(2), volumes(3)[2:])
    same_after_saving(pipeline, tmp_path)


def same_after_saving(pipeline: AnomalyDetectionPipeline, folder: Path) -> None:
    """F8: save, load, and compare bit for bit; nothing is pickled."""
    pipeline.save(folder / "model")
    again = AnomalyDetectionPipeline.load(folder / "model", device="cpu")
    found, told = pipeline.score_map(scan(77))
    assert found.shape == (16, 16, 16)
    assert torch.isfinite(found).all()
    assert told["num_patches"] == 27
    assert told["score_map_stats"]["max"] == float(found.max())
    assert torch.equal(again.score_map(scan(77))[0], found)
    assert torch.equal(again.predict(scan(77)), pipeline.predict(scan(77)))
    assert repr(again) == repr(pipeline)
    assert again.get_config() == pipeline.get_config()
    assert again.get_training_history() == pipeline.get_training_history()
    assert again.volume_threshold() == pipeline.volume_threshold()
    names = sorted(path.name for path in (folder / "model").iterdir())
    assert names == ["calibration.npz", "config.json", "weights.safetensors"]


# -- thresholds -----------------------------------------------------------------------------


def test_the_threshold_is_that_of_scans_that_were_held_out() -> None:
    held_out = volumes(9)[7:]
    pipeline = small().fit(volumes(3), val_volumes=held_out, threshold_percentile=90)
    scores = np.concatenate([pipeline.score_map(v)[0].numpy().ravel() for v in held_out])
    assert pipeline.get_threshold() == pytest.approx(np.percentile(scores, 90))
    flagged = [float(pipeline.predict(v).mean()) for v in held_out]
    assert np.mean(flagged) == pytest.approx(0.1, abs=5e-3)
    assert "percentile 90 of the voxel scores of 2 held-out healthy scans" in repr(pipeline)
    assert pipeline.get_threshold("percentile") == pytest.approx(np.percentile(scores, 95))
    mean, spread = scores.mean(dtype=float), scores.std(dtype=float)
    assert pipeline.get_threshold("sigma") == pytest.approx(mean + 3 * spread)
    with pytest.raises(SettingsError, match="mad"):
        pipeline.get_threshold("mat")


def test_without_other_scans_some_of_the_training_are_held_out(fitted) -> None:
    assert "1 of 5 training scans, held out" in repr(fitted)
    known, kept, _ = fitted._divided(volumes(5), None)
    assert (len(known), len(kept)) == (4, 1)
    assert not any(torch.equal(kept[0], one) for one in known)


def test_one_scan_alone_is_told() -> None:
    with pytest.warns(UserWarning, match="too low"):
        pipeline = small().fit(volumes(1), threshold_method="mad", sigma_multiplier=2.0)
    assert "mad of the voxel scores of the one training scan" in repr(pipeline)


def test_a_threshold_by_hand(tmp_path: Path) -> None:
    pipeline = small().fit(volumes(2))
    pipeline.set_threshold(1e9)
    assert pipeline.predict(scan(3)).sum() == 0
    assert "set by hand" in repr(pipeline)
    with pytest.raises(SettingsError, match="finite"):
        pipeline.set_threshold(math.nan)


def test_fitting_twice_is_fitting_once(fitted) -> None:
    again = small().fit(volumes(3)).fit(volumes(5))
    assert torch.equal(again.score_map(scan(9))[0], fitted.score_map(scan(9))[0])


# -- judging --------------------------------------------------------------------------------


def test_evaluation_takes_masks_of_both_shapes_and_says_where_the_threshold_is_from(fitted) -> None:
    places = [np.array([4, 8, 10]), np.array([9, 9, 5])]
    truths = [blob(place, 16, 1.5) > 0.3 for place in places]
    scans = [scan(50 + n) + 12 * blob(place, 16, 1.5) for n, place in enumerate(places)]
    found = fitted.evaluate(scans, [torch.from_numpy(truths[0]), truths[1][None].astype(float)])
    assert found["pixel_auc"] > 0.9
    assert found["threshold"] == fitted.get_threshold()
    assert "held out from training" in found["threshold_provenance"]
    assert found["volume_recall"] == 1
    other = fitted.evaluate(scans, truths, custom_threshold=1e9)
    assert other["pixel_recall"] == 0
    assert other["threshold_provenance"] == "given to evaluate"
    with pytest.warns(UserWarning, match="resized"):
        coarse = fitted.evaluate(scans[:1], [truths[0].repeat(2, 0).repeat(2, 1).repeat(2, 2)])
    fine = fitted.evaluate(scans[:1], truths[:1])
    assert coarse["pixel_auc"] == fine["pixel_auc"]
    with pytest.raises(InputError, match="2 volumes and 1 masks"):
        fitted.evaluate(scans, truths[:1])


def test_batches_are_single_scans(fitted) -> None:
    several = volumes(2)
    maps = fitted.batch_score_maps(several)
    masks = fitted.batch_predict(several)
    for volume, (found, _), mask in zip(several, maps, masks, strict=True):
        assert torch.equal(found, fitted.score_map(volume[0].numpy())[0])
        assert torch.equal(mask, (found > fitted.get_threshold()).float())


def test_an_ensemble_of_copies_votes_as_one_and_at_its_rate(fitted) -> None:
    held_out = fitted._divided(volumes(5), None)[1][0]
    votes = ensemble_inference(held_out, [fitted, fitted, fitted], "voting", rate=0.1)
    assert votes.unique().tolist() == [0, 1]
    assert float(votes.mean()) == pytest.approx(0.1, abs=0.01)
    ranks = ensemble_inference(held_out, [fitted, fitted, fitted])
    wanted = fitted.healthy.ranks(fitted.score_map(held_out)[0].numpy())
    np.testing.assert_allclose(ranks, wanted, rtol=1e-5)
    model = {
        "extractor": fitted.extractor,
        "embedding": fitted.embedding,
        "autoencoder": fitted.autoencoder,
        "device": "cpu",
    }
    scores = fitted.score_map(held_out)[0]
    mixed = ensemble_inference(held_out, [fitted, {**model, "healthy_scores": scores}], "max")
    assert mixed.shape == (16, 16, 16)
    with pytest.raises(InputError, match="healthy_scores"):
        ensemble_inference(held_out, [model])
    with pytest.raises(SettingsError, match="voting"):
        ensemble_inference(held_out, [fitted], "vote")


def test_nothing_is_judged_before_it_is_learnt(tmp_path: Path) -> None:
    pipeline = small()
    assert "not fitted" in repr(pipeline)
    assert pipeline.get_training_history() == {}
    for call in (pipeline.predict, pipeline.score_map, pipeline.save):
        with pytest.raises(NotFittedError, match="fit"):
            call(scan(0))
    with pytest.raises(NotFittedError, match="fit"):
        pipeline.get_threshold()
    with pytest.raises(InputError, match="none"):
        pipeline.fit([])


# -- folders --------------------------------------------------------------------------------


def test_folders_that_are_damaged_are_told(fitted, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing"):
        AnomalyDetectionPipeline.load(tmp_path / "nothing")
    fitted.save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        AnomalyDetectionPipeline.load(tmp_path)
    fitted.save(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**told, "format": 99}))
    with pytest.raises(ModelError, match="format 99"):
        AnomalyDetectionPipeline.load(tmp_path)


def test_a_network_of_ones_own_is_needed_again(tmp_path: Path) -> None:
    pipeline = AnomalyDetectionPipeline(
        {"type": Means(), "layer_names": ["layer1"]}, {}, {}, {"patch_size": 8}, QUICK, "cpu"
    )
    pipeline.fit(volumes(2)).save(tmp_path)
    with pytest.raises(ModelError, match="network"):
        AnomalyDetectionPipeline.load(tmp_path)
    again = AnomalyDetectionPipeline.load(tmp_path, "cpu", network=Means())
    assert torch.equal(again.score_map(scan(4))[0], pipeline.score_map(scan(4))[0])


# -- configurations -------------------------------------------------------------------------


def test_lengths_that_were_declared_wrongly_are_told_once_and_found(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="not") as told:
        pipeline = AnomalyDetectionPipeline(
            {"type": "simple", "args": {"feature_dims": [4, 8]}},
            {"embedding_method": "pool", "input_channels": 512, "patch_size": (4, 4, 4)},
            {"type": "standard", "args": {"input_dim": 512, "hidden_dims": [8], "latent_dim": 2}},
            {"patch_size": (8, 8, 8)},
            QUICK,
            device="cpu",
        )
    assert len(told) == 2
    assert pipeline.get_config()["autoencoder"]["args"]["input_dim"] == 12
    pipeline.fit(volumes(2)).save(tmp_path)
    AnomalyDetectionPipeline.load(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("place", "wrong"),
    [(3, {"patch_size": 8, "strid": 2}), (4, {"epochs": 3}), (3, {"stride": 2})],
)
def test_configurations_with_unknown_words_are_refused(place: int, wrong: dict) -> None:
    parts = [{}, {}, {}, {"patch_size": 8}, {}]
    parts[place] = wrong
    with pytest.raises(SettingsError, match=r"stride|num_epochs|patch_size"):
        AnomalyDetectionPipeline(*parts)


# -- F11: factories -------------------------------------------------------------------------


def test_the_simple_factory_has_the_described_defaults() -> None:
    config = create_simple_pipeline(input_dim=64, device="cpu").get_config()
    assert config["feature_extractor"]["args"] == {"feature_dims": [32, 64, 128]}
    assert config["autoencoder"]["args"]["hidden_dims"] == [128, 64]
    assert config["autoencoder"]["args"]["latent_dim"] == 32
    assert config["patches"]["max_patches"] == 1000
    assert config["training"] == {
        "learning_rate": 1e-3, "batch_size": 32, "num_epochs": 100, "early_stopping_patience": 10
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "network"),
    [("variational", "resnet18"), ("denoising", "resnet34"), ("contractive", "resnet50")],
)
def test_the_residual_factory(kind: str, network: str) -> None:
    pipeline = create_resnet_pipeline(
        autoencoder_type=kind, model_type=network, training_config={"num_epochs": 1}, device="cpu"
    )
    found, _ = pipeline.fit(volumes(2)).score_map(scan(5))
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("modality", ["T1", "T2", "FLAIR", "CT"])
def test_every_modality_has_a_pipeline_that_fits(modality: str) -> None:
    pipeline = create_pipeline_for_modality(
        modality, training_config={"num_epochs": 1}, device="cpu"
    )
    found, _ = pipeline.fit(volumes(2)).score_map(scan(5))
    assert found.shape == (16, 16, 16)
    assert pipeline.get_config()["feature_extractor"]["type"] == MODALITIES[modality]["model_type"]
    with pytest.raises(SettingsError, match="FLAIR"):
        create_pipeline_for_modality("FLARE")


# -- machines -------------------------------------------------------------------------------


def test_memory_bounds_what_is_learnt_from(monkeypatch) -> None:
    monkeypatch.setattr(implementation, "MOST_VALUES", 10_000)
    pipeline = small()
    for count in (1, 5):
        vectors = pipeline._vectors(volumes(count), 0)
        assert 5_000 < vectors.numel() <= 10_000
    assert pipeline.fit(volumes(2)).score_map(scan(3))[1]["num_patches"] == 27


def test_a_gpu_that_is_not_there_is_told(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    small().fit(volumes(2)).save(tmp_path)
    with pytest.warns(UserWarning, match="no GPU"):
        again = AnomalyDetectionPipeline.load(tmp_path, device="cuda")
    assert again.device.type == "cpu"
