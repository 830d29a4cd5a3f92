"""Options of the reference: each key that it documents is taken over, answered or refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atypia.detectors.diffusion import DiffusionSettings
from atypia.errors import SettingsError
from atypia.runs.published_diffusion import diffusion_settings, published_plan
from atypia.runs.published_options import (
    ANSWERED,
    DEAD,
    EXPERIMENTS,
    FIXED,
    STAGES,
    TAKEN,
    read_options,
)

WITH_EFFECT = [
    "num_folds",
    "start_fold",
    "seed",
    "onlyEval",
    "resume_train",
    "load_checkpoint",
    "checkpoint",
    "new_wandb_run",
    "resume_wandb",
    "ckpt_path",
    "test_after_training",
    "pickle_preds",
    "debug",
    "print_config",
    "ignore_warnings",
    "gpus",
    "max_epochs",
    "precision",
    "log_every_n_steps",
    "check_val_every_n_epoch",
    "benchmark",
    "imageDim",
    "rescaleFactor",
    "mode",
    "batch_size",
    "num_workers",
    "lr",
    "droplast",
    "sample_set",
    "testsets",
    "resizedEvaluation",
    "unisotropic_sampling",
    "perc_low",
    "perc_high",
    "aug_intensity",
    "startslice",
    "sequentialslices",
    "unique_slice",
    "random_bias",
    "random_motion",
    "random_noise",
    "random_ghosting",
    "random_blur",
    "random_gamma",
    "random_elastic",
    "random_affine",
    "random_flip",
    "unet_dim",
    "dim_mults",
    "num_res_blocks",
    "att_res",
    "dropout_unet",
    "timesteps",
    "sampling_timesteps",
    "objective",
    "loss",
    "p2_gamma",
    "condition",
    "backbone",
    "version",
    "cond_dim",
    "pretrained_encoder",
    "encoder_path",
    "pretrained_backbone",
    "dp",
    "noisetype",
    "test_timesteps",
    "step_ensemble",
    "noise_ensemble",
    "num_mc_samples",
    "mh_regu",
    "masked_mhd",
    "residualmode",
    "ssim_sigma",
    "num_eval_slices",
    "kernelsize_median",
    "erodeBrainmask",
    "medianFiltering",
    "threshold",
    "evalSeg",
    "saveOutputImages",
    "save_to_disc",
    "use_postprocessed_score",
    "mask_ratio",
    "mask_ratio2",
    "uniform",
    "pe",
    "pix_norm",
    "dense_loss",
    "loss_l2",
    "pyramid",
    "dec_dim",
    "double",
    "hea",
    "cmid",
    "loss_on_mask",
    "delta_mask",
    "weight_decay",
    "patch_size",
    "grid_boxes",
    "inpaint",
    "overlap",
    "agg_overlap",
]
WITHOUT_EFFECT = [
    "OpenaiUnet",
    "camstrat",
    "mc_ensemble",
    "smooth_cam",
    "no_postproc",
    "ssim_kernel",
    "pad",
    "cropMode",
    "interRes",
    "preLoad",
    "curvatureFlow",
    "percentile",
    "randomRotate",
    "rotateDegree",
    "horizontalFlip",
    "randomBrightness",
    "brightnessRange",
    "randomContrast",
    "contrastRange",
    "earlyStopping",
    "patienceStopping",
    "scheduleLR",
    "patienceLR",
    "learned_variance",
    "learned_sinusoidal_cond",
    "dropRate",
    "en_de_norm",
    "en_de_lin",
    "sbn",
    "conv_resample",
    "scale_patch",
    "patch_stride",
    "SimCLR_pretraining",
    "pretrained",
]
VALUES = {
    "checkpoint": "last",
    "precision": "16",
    "imageDim": "[160,192,160]",
    "mode": "t1",
    "testsets": "[Brats21,MSLUB]",
    "dim_mults": "[1,2,2]",
    "objective": "pred_noise",
    "loss": "l2",
    "version": "resnet18",
    "step_ensemble": "[250,500]",
    "residualmode": "l2",
    "agg_overlap": "avg",
    "load_checkpoint": "models",
    "encoder_path": "encoder",
    "gpus": "0",
    "threshold": "0.3",
    "lr": "1e-5",
}
FLAGS = [
    "sample_set",
    "aug_intensity",
    "random_gamma",
    "random_bias",
    "random_blur",
    "random_ghosting",
    "random_noise",
    "random_flip",
    "pretrained_encoder",
    "noise_ensemble",
    "erodeBrainmask",
    "medianFiltering",
    "loss_on_mask",
    "grid_boxes",
    "overlap",
]


@pytest.mark.parametrize("key", WITH_EFFECT)
def test_a_key_with_an_effect_is_taken_over_or_answered(key: str) -> None:
    assert (key in TAKEN) + (key in ANSWERED) + (key in FIXED) == 1
    if key in TAKEN:
        option = TAKEN[key]
        value = VALUES.get(key, "True" if key in FLAGS else "2")
        found = read_options([f"{key}={value}"], option.stages[0], option.experiments[-1])
        assert found.settings or found.run or found.plan
        with pytest.raises(SettingsError, match=f"{key}=nonsense!"):
            reads_anything = key in ("load_checkpoint", "encoder_path", "testsets")
            wrong = "nonsense!" if not reads_anything else "nonsense!.x=1"
            word = f"{key}={wrong}" if not reads_anything else f"strange.{key}={wrong}"
            read_options([word], option.stages[0], option.experiments[-1])
    elif key in ANSWERED:
        with pytest.raises(SettingsError, match=f"{key}=1: is reached in another way") as error:
            read_options([f"model.cfg.{key}=1"], "train")
        assert len(error.value.remedy) > 20
    else:
        accepted, _ = FIXED[key]
        assert not read_options([f"{key}={accepted[0]}"], "train").settings
        with pytest.raises(SettingsError, match="is possible here"):
            read_options([f"{key}=other"], "train")


@pytest.mark.parametrize("key", WITHOUT_EFFECT)
def test_a_key_without_effect_is_refused_by_name(key: str) -> None:
    for stage in STAGES:
        with pytest.raises(SettingsError, match=f"{key}=1: had no effect in the reference. Leave"):
            read_options([f"datamodule.cfg.{key}=1"], stage)


def test_the_lists_are_complete() -> None:
    assert sorted([*TAKEN, *ANSWERED, *FIXED]) == sorted(WITH_EFFECT)
    assert sorted(DEAD) == sorted(WITHOUT_EFFECT)


@pytest.mark.parametrize("key", ["noise_ensemble", "erodeBrainmask", "medianFiltering"])
def test_what_only_one_repository_read(key: str) -> None:
    with pytest.raises(SettingsError, match="no effect in the reference's experiment mhd"):
        read_options([f"{key}=True"], "evaluate", "mhd")
    with pytest.raises(SettingsError, match="no effect in the reference's experiment ddpm"):
        read_options(["mh_regu=0.1"], "evaluate", "ddpm")


def settings(*words: str, experiment: str | None = None, **options: str) -> DiffusionSettings:
    return diffusion_settings(read_options(words, "train", experiment), "T2w", **options)


def test_the_experiments_are_the_presets() -> None:
    for name, experiment in EXPERIMENTS.items():
        preset = DiffusionSettings.make({"modality": "T2w"}, experiment.preset)
        assert settings(experiment=name) == preset
        assert settings(f"experiment={experiment.published[0]}") == preset
        assert preset.variant == experiment.variant


@pytest.mark.parametrize(
    ("words", "experiment", "times"),
    [
        ((), "cddpm", (249, 499, 749)),
        (("noise_ensemble=False",), "cddpm", (499,)),
        (("noise_ensemble=False", "test_timesteps=300"), "cddpm", (299,)),
        (("step_ensemble=[100,200]",), "cddpm", (99, 199)),
        (("noise_ensemble=True",), "ddpm", (249, 499, 749)),
        (("test_timesteps=400",), "pddpm", (399,)),
        ((), "mhd", (498,)),
        (("test_timesteps=400",), "mhd", (398,)),
    ],
)
def test_times(words: tuple[str, ...], experiment: str, times: tuple[int, ...]) -> None:
    assert settings(*words, experiment=experiment).test_times == times


def test_values_are_converted() -> None:
    found = settings(
        "model.cfg.unet_dim=64",
        "+model.cfg.dim_mults=[1,2,4]",
        "trainer.max_epochs=3",
        "trainer.precision=16",
        "datamodule.cfg.aug_intensity=True",
        "kernelsize_median=3",
        "erodeBrainmask=False",
        "loss=l2",
        "objective=pred_noise",
    )
    assert (found.base, found.context, found.multipliers) == (64, 256, (1, 2, 4))
    assert (found.training.epochs, found.training.precision) == (3, "16-mixed")
    assert (found.loss, found.predicts) == ("l2", "noise")
    assert found.augmentation.to_json() == {
        "gamma": 0.5, "bias": 0.25, "blur": 0.25, "ghosting": 0.5, "noise": 0.0,
    }  # fmt: skip
    assert (found.rules.erosion, found.rules.median_size) == (0, 3)
    assert found.rules.deviation == "absolute"  # the rest of the experiment's rules
    assert settings("medianFiltering=False").rules.median_size == 1
    mhd = settings("mh_regu=0.5", "residualmode=l1", "num_mc_samples=4", experiment="mhd")
    assert (mhd.rules.ridge, mhd.rules.multiply_by, mhd.samples) == (0.5, "absolute", 4)
    boxes = settings("patch_size=32", "overlap=True", "grid_boxes=False", experiment="pddpm")
    assert (boxes.box_size, boxes.box_stride, boxes.random_boxes) == (32, 16, True)


def test_a_preset_replaces_the_network_and_keeps_the_score() -> None:
    found = settings(experiment="mhd", preset="tiny")
    assert (found.base, found.preprocessing, found.test_times) == (8, "atypia", (498,))
    assert found.rules.multiply_by == "ssim"
    assert settings(preset="tiny", config={"base": 4}).base == 4
    assert settings("unet_dim=16", preset="tiny", config={"base": 4}).base == 16
    assert settings(experiment="pddpm", preset="default").variant == "patched"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("unet_dims=1", "Did you mean 'unet_dim'"),
        ("models.cfg.unet_dim=1", "Did you mean 'model'"),
        ("unet_dim", "is not KEY=VALUE"),
        ("unet_dim=many", "is no whole number"),
        ("experiment=MHD/cDDPM", "Did you mean"),
        ("threshold=0.1", "Give it to `atypia published evaluate`"),
    ],
)
def test_wrong_words(word: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        read_options([word], "train")


def test_the_published_grid_can_be_changed() -> None:
    options = read_options(
        ["imageDim=[160,192,160]", "rescaleFactor=4", "perc_low=2", "perc_high=98"], "train"
    )
    plan = published_plan(options.plan)
    assert plan.grid.shape == (40, 48, 40)
    assert plan.grid.spacing_mm == (4.0, 4.0, 4.0)
    usual = published_plan({})
    assert usual.grid.shape == (96, 96, 50)
    middles = [
        grid.affine[:3, :3] @ [(n - 1) / 2 for n in grid.shape] + grid.affine[:3, 3]
        for grid in (plan.grid, usual.grid)
    ]
    assert middles[0] == pytest.approx(middles[1])
    assert next(s for s in plan.steps if s.step == "scale_range").percentiles == (2, 98)
    with pytest.raises(SettingsError, match="Give three"):
        published_plan({"size": (1, 2)})


def test_every_key_is_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "published-diffusion.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+)`", page))
    assert not {*TAKEN, *ANSWERED, *FIXED, *DEAD} - named
