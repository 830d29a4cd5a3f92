"""Programs of the reference run with other import lines; so does the page's example."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import atypia.patch_pipeline
from tests.patch_pipeline.scans import blob, scan

PAGE = Path(__file__).parents[2] / "docs" / "patch-pipeline-api.md"


def write(path: Path, data: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)


def test_the_quick_start_from_files_to_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atypia.patch_pipeline import (
        AnomalyDetectionPipeline,
        compute_optimal_threshold,
        create_simple_pipeline,
        load_and_normalize_volume,
        load_dataset,
        plot_roc_curves,
    )

    monkeypatch.chdir(tmp_path)
    train_paths = [f"normal_scan{number}.nii.gz" for number in range(1, 4)]
    for number, path in enumerate(train_paths):
        write(tmp_path / path, scan(number, 18))
    lesion = blob(np.array([9, 9, 9]), 18, 1.5)
    write(tmp_path / "test_scan.nii.gz", scan(9, 18) + 12 * lesion)
    write(tmp_path / "ground_truth_mask.nii.gz", (lesion > 0.5).astype(np.uint8))

    pipeline = create_simple_pipeline(
        patch_size=(8, 8, 8), hidden_dims=[128, 64], latent_dim=32,
        training_config={"num_epochs": 3}, device="cpu",
    )  # fmt: skip
    train_volumes = load_dataset(train_paths, target_shape=(20, 20, 20))
    pipeline.fit(train_volumes)
    test_volume = load_and_normalize_volume("test_scan.nii.gz", target_shape=(20, 20, 20))
    score_map, metadata = pipeline.score_map(test_volume)
    binary_mask = pipeline.predict(test_volume)
    ground_truth = load_and_normalize_volume("ground_truth_mask.nii.gz")
    with pytest.warns(UserWarning, match="resized"):
        metrics = pipeline.evaluate([test_volume], [ground_truth])
    assert f"{metrics['pixel_auc']:.4f} {metrics['pixel_iou']:.4f} {metrics['pixel_dice']:.4f}"
    assert metrics["pixel_auc"] > 0.9
    assert score_map.shape == binary_mask.shape == metadata["original_shape"] == (20, 20, 20)
    assert set(binary_mask.unique().tolist()) <= {0.0, 1.0}

    pipeline.save("./trained_models/brain_anomaly_detector")
    loaded = AnomalyDetectionPipeline.load("./trained_models/brain_anomaly_detector", device="cpu")
    assert torch.equal(loaded.predict(test_volume), binary_mask)

    truth = load_and_normalize_volume("ground_truth_mask.nii.gz", target_shape=(20, 20, 20))
    plot_roc_curves([("Our Method", truth, score_map[None])], save_path="roc_curves.png")
    threshold, value = compute_optimal_threshold([truth[0]], [score_map], metric="f1")
    assert 0 < value <= 1
    assert threshold < score_map.max()


def test_the_described_configuration_runs() -> None:
    from atypia.patch_pipeline import AnomalyDetectionPipeline, ensemble_inference

    feature_config = {"type": "resnet18", "args": {"in_channels": 1, "extract_features": True}}
    embedding_config = {
        "input_channels": 512,
        "patch_size": (4, 4, 4),
        "embedding_method": "mlp",
        "mlp_hidden_dims": [256, 128],
        "output_dim": 64,
    }
    autoencoder_config = {
        "type": "variational",
        "args": {"input_dim": 64, "hidden_dims": [32, 16], "latent_dim": 8, "beta": 0.5},
    }
    patch_config = {
        "patch_size": (4, 4, 4),
        "stride": (2, 2, 2),
        "max_patches": 100,
        "sampling_strategy": "random",
    }
    training_config = {
        "batch_size": 64,
        "num_epochs": 2,
        "learning_rate": 1e-3,
        "scheduler_type": "cosine",
        "early_stopping_patience": 15,
    }
    training_config["use_amp"] = True
    with pytest.warns(UserWarning, match="512|input_dim"):
        pipeline = AnomalyDetectionPipeline(
            feature_extractor_config=feature_config,
            embedding_config=embedding_config,
            autoencoder_config=autoencoder_config,
            patch_config=patch_config,
            training_config=training_config,
            device="cpu",
        )
    pipeline.fit([scan(1), scan(2)])
    volume = torch.from_numpy(scan(3))
    # All patches are scored, however few were learnt from.
    assert pipeline.score_map(volume)[1]["num_patches"] == 7**3
    results = ensemble_inference(volume, [pipeline, pipeline, pipeline])
    assert results.shape == (16, 16, 16)


def test_the_described_parts_run_one_after_the_other() -> None:
    from atypia.patch_pipeline import (
        FeatureEmbedding,
        FeatureExtractor3D,
        VariationalAutoencoder,
        batch_inference,
        compute_threshold_from_normal_scores,
        extract_test_features,
        inference_pipeline,
        train_autoencoder,
    )

    volume = torch.from_numpy(scan(1))[None]
    feature_extractor = FeatureExtractor3D(model_type="resnet18")
    features = feature_extractor.extract_features(volume, layers=["layer2", "layer3"])
    assert [tuple(found.shape[1:]) for found in features.values()] == [(2,) * 3, (1,) * 3]
    embedding = FeatureEmbedding(
        input_channels=256, patch_size=(8, 8, 8), embedding_method="mlp", output_dim=128
    )
    autoencoder = VariationalAutoencoder(
        input_dim=128, hidden_dims=[64, 32], latent_dim=16, beta=1.0
    )
    layers = ["layer1", "layer2"]
    with pytest.warns(UserWarning, match="declared"):
        train_features, _, _ = extract_test_features(
            volume, feature_extractor, embedding, layer_names=layers
        )
    with pytest.warns(UserWarning, match="256 values"):
        history = train_autoencoder(
            autoencoder, train_features, train_features,
            num_epochs=2, learning_rate=1e-3, early_stopping_patience=10, device="cpu",
        )  # fmt: skip
    assert len(history["train_loss"]) == 2
    score_map, metadata = inference_pipeline(
        volume, feature_extractor, embedding, autoencoder, layer_names=layers, device="cpu"
    )
    assert metadata["layer_shapes"] == {"layer1": (64, 4, 4, 4), "layer2": (128, 2, 2, 2)}
    assert metadata["min_error"] <= metadata["mean_error"] <= metadata["max_error"]
    compute_threshold_from_normal_scores(score_map, method="mad", sigma_multiplier=2.0)
    ((again, _),) = batch_inference(
        [volume], feature_extractor, embedding, autoencoder, layer_names=layers, device="cpu"
    )
    assert torch.equal(again, score_map)


def test_the_pages_example_runs_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    said = re.findall(r"print\(.*\)  # (.*)", program)
    assert capsys.readouterr().out.splitlines() == said


def test_the_page_has_a_line_for_every_name() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = {name for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
             for name in re.findall(r"`(\w+)`", row)}  # fmt: skip
    assert table == set(atypia.patch_pipeline.__all__)
