"""Options of the published diffusion experiments (cDDPM, pDDPM, MHD) and what they are called here.

Their configuration is a tree of keys such as `model.cfg.unet_dim=128`. A key is understood with or
without what stands before its last dot. Each one is either taken over (`TAKEN`), answered because
the same is reached in another way (`ANSWERED`), accepted for the one value that is what we do
(`FIXED`), or refused because the published code never reads it (`DEAD`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from atypia.errors import SettingsError, unknown_name

Stage = Literal["spark", "train", "evaluate"]
Values = dict[str, Any]
"""Dotted names of ours -> values."""

STAGES: tuple[Stage, ...] = ("spark", "train", "evaluate")
PREFIXES = ("model", "datamodule", "trainer", "logger", "callbacks", "cfg", "wandb", "csv")


@dataclass(frozen=True)
class Experiment:
    """One published experiment.

    Parameters
    ----------
    preset
        Of `atypia.detectors.diffusion.DiffusionSettings`.
    variant
        Of the network; a model of another one cannot be evaluated so.
    published
        What its file of configuration is called.
    """

    preset: str
    variant: str
    published: tuple[str, ...]


EXPERIMENTS: Mapping[str, Experiment] = {
    "cddpm": Experiment(
        "reference", "conditioned", ("cDDPM/DDPM_cond_spark_2D", "cDDPM/Spark_2D_pretrain")
    ),
    "ddpm": Experiment("ddpm", "unconditioned", ("cDDPM/DDPM",)),
    "pddpm": Experiment("pddpm", "patched", ("cDDPM/DDPM_patched",)),
    "mhd": Experiment("mahalanobis", "conditioned", ("MHD/cDDPM_MHD",)),
}
CDDPM_CODE = ("cddpm", "ddpm", "pddpm")
"""Experiments of the repository of cDDPM; the fourth is of that of MHD."""


@dataclass(frozen=True)
class Option:
    """A key that is taken over.

    Parameters
    ----------
    convert
        The text of the value -> our names and values. Those that begin with `run.` or `plan.` are
        of the run or of the preprocessing, the others settings of the stage.
    ours
        What to call it in the documentation.
    stages, experiments
        For which it means something.
    """

    convert: Callable[[str], Values]
    ours: str
    stages: tuple[Stage, ...] = STAGES
    experiments: tuple[str, ...] = tuple(EXPERIMENTS)


@dataclass(frozen=True)
class PublishedOptions:
    """What the options of a command say.

    Parameters
    ----------
    experiment
        A name in `EXPERIMENTS`.
    settings
        Of the stage, nested.
    run
        Modality, folds, and whatever else is not of the method.
    plan
        What differs from the published preprocessing.
    """

    experiment: str
    settings: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)


def whole(text: str) -> int:
    """Read a whole number."""
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError("is no whole number")
    return int(text)


def number(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError as error:
        raise ValueError("is no number") from error


def flag(text: str) -> bool:
    """Read True or False."""
    return bool(one_of(true=True, false=False)(text.lower()))


def words(text: str) -> list[str]:
    """Read a list, in brackets or not."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    return [word.strip().strip("'\"") for word in inner.split(",") if word.strip()]


def wholes(text: str) -> tuple[int, ...]:
    """Read a list of whole numbers."""
    return tuple(whole(word) for word in words(text))


def one_of(**values: Any) -> Callable[[str], Any]:
    """Make a reader of words that stand for values."""

    def read(text: str) -> Any:
        if text not in values:
            raise ValueError(f"is none of {', '.join(values)}")
        return values[text]

    return read


def to(
    name: str,
    read: Callable[[str], Any] = str,
    stages: tuple[Stage, ...] = STAGES,
    experiments: tuple[str, ...] = tuple(EXPERIMENTS),
) -> Option:
    """Make an option that is one value of ours."""
    ours = name.removeprefix("run.").removeprefix("plan.")
    return Option(lambda text: {name: read(text)}, ours, stages, experiments)


def _devices(text: str) -> Values:
    count = whole(text)
    if count == 0:
        return {"training.device": "cpu"}
    if count < 0:
        import torch

        count = max(1, torch.cuda.device_count())
    return {"training.device": "auto", "training.devices": count}


def _checkpoint(text: str) -> Values:
    # Without validation the last weights are those that are kept.
    kept: Values = one_of(best={}, last={"validation_share": 0.0})(text)
    return kept


def _width(text: str) -> Values:
    return {"base": whole(text), "context": 4 * whole(text)}


def _threshold(text: str) -> Values:
    return {"run.threshold": None if text == "auto" else number(text)}


def _sample(text: str) -> Values:
    return {"run.sample": flag(text)}


def _ridge(text: str) -> Values:
    return {"rules.ridge": number(text)}


def _augmented(text: str) -> Values:
    shares = {"gamma": 0.5, "bias": 0.25, "blur": 0.25, "ghosting": 0.5}
    return {f"augmentation.{name}": share * flag(text) for name, share in shares.items()}


def _share(name: str, share: float) -> Option:
    return to(name, lambda text: share * flag(text), TRAIN)


SPARK: tuple[Stage, ...] = ("spark",)
LEARNT: tuple[Stage, ...] = ("spark", "train")
TRAIN: tuple[Stage, ...] = ("train",)
SCORED: tuple[Stage, ...] = ("train", "evaluate")
EVALUATE: tuple[Stage, ...] = ("evaluate",)
PRECISIONS = {"16": "16-mixed", "32": "32-true", "bf16": "bf16-mixed"}
MODALITIES = {"t1": "T1w", "t2": "T2w"}
FACTORS = {"ssim": "ssim", "l1": "absolute", "l2": "squared"}
RESNETS = {"resnet18": 18, "resnet34": 34, "resnet50": 50}

TAKEN: Mapping[str, Option] = {
    # run
    "num_folds": to("run.folds", whole),
    "start_fold": to("run.first_fold", whole),
    "seed": to("seed", whole, LEARNT),
    "load_checkpoint": to("run.models", str, EVALUATE),
    "checkpoint": Option(_checkpoint, "validation_share", LEARNT),
    # trainer
    "gpus": Option(_devices, "training.device, training.devices", LEARNT),
    "max_epochs": to("training.epochs", whole, LEARNT),
    "precision": to("training.precision", one_of(**PRECISIONS), LEARNT),
    "check_val_every_n_epoch": to("run.validate_every_epochs", whole, TRAIN),
    # data
    "imageDim": to("plan.size", wholes, LEARNT),
    "rescaleFactor": to("plan.factor", whole, LEARNT),
    "perc_low": to("plan.low", number, LEARNT),
    "perc_high": to("plan.high", number, LEARNT),
    "mode": to("run.modality", one_of(**MODALITIES)),
    "batch_size": to("training.batch_size", whole, LEARNT),
    "lr": to("training.learning_rate", number, LEARNT),
    "sample_set": Option(_sample, "the first 50, 8 and 4 scans"),
    "testsets": to("run.test_sets", words, EVALUATE),
    "aug_intensity": Option(_augmented, "augmentation", TRAIN),
    "random_gamma": _share("augmentation.gamma", 0.5),
    "random_bias": _share("augmentation.bias", 0.25),
    "random_blur": _share("augmentation.blur", 0.5),
    "random_ghosting": _share("augmentation.ghosting", 0.5),
    "random_noise": _share("augmentation.noise", 0.5),
    "random_flip": to("flip_share", lambda text: 0.5 * flag(text), LEARNT),
    # model
    "unet_dim": Option(_width, "base, and context = 4 base as published", TRAIN),
    "dim_mults": to("multipliers", wholes, TRAIN),
    "num_res_blocks": to("blocks", whole, TRAIN),
    "timesteps": to("diffusion_steps", whole, TRAIN),
    "objective": to("predicts", one_of(pred_x0="clean", pred_noise="noise"), TRAIN),
    "loss": to("loss", one_of(l1="l1", l2="l2"), TRAIN),
    "version": to("encoder_depth", one_of(**RESNETS), LEARNT),
    "pretrained_encoder": to("run.pretrained", flag, TRAIN),
    "encoder_path": to("run.encoder", str, TRAIN),
    # restoring and scoring
    "test_timesteps": to("run.time", whole, SCORED),
    "step_ensemble": to("run.times", wholes, SCORED, CDDPM_CODE),
    "noise_ensemble": to("run.ensemble", flag, SCORED, CDDPM_CODE),
    "num_mc_samples": to("samples", whole, SCORED, ("mhd",)),
    "mh_regu": Option(_ridge, "rules.ridge", SCORED, ("mhd",)),
    "residualmode": to("rules.multiply_by", one_of(**FACTORS), SCORED, ("mhd",)),
    "ssim_sigma": to("rules.ssim_sigma", number, SCORED, ("mhd",)),
    "erodeBrainmask": to("rules.erosion", lambda text: 3 * flag(text), SCORED, CDDPM_CODE),
    "medianFiltering": to("run.median", flag, SCORED, CDDPM_CODE),
    "kernelsize_median": to("run.median_size", whole, SCORED, CDDPM_CODE),
    "threshold": Option(_threshold, "the threshold of the labelled Dice", EVALUATE),
    # SparK
    "mask_ratio": to("hidden_share", number, SPARK),
    "loss_on_mask": to("everywhere", lambda text: not flag(text), SPARK),
    "delta_mask": to("hidden_weight", number, SPARK),
    "weight_decay": to("training.weight_decay", number, SPARK),
    # pDDPM
    "patch_size": to("box_size", whole, TRAIN, ("pddpm",)),
    "grid_boxes": to("random_boxes", lambda text: not flag(text), TRAIN, ("pddpm",)),
    "overlap": to("run.overlap", flag, TRAIN, ("pddpm",)),
    "agg_overlap": to("overlap", one_of(cut="cut", avg="average"), TRAIN, ("pddpm",)),
}
"""Key of the reference -> how it is taken over."""

LOGS = "training.jsonl in every model folder, and tensorboard = true under [training] in --config"
RESUMES = "Run the same command again: it goes on from where it was"
SLICES = "Slices are drawn from all with brain; least_brain in --config says with how much"
NO_DROPOUT = "The networks here have none"
DECODER = "The decoder has the published widths; there is no other one here"

ANSWERED: Mapping[str, str] = {
    "onlyEval": "Run `atypia published evaluate`",
    "resume_train": RESUMES,
    "ckpt_path": RESUMES,
    "new_wandb_run": f"Nothing is sent anywhere; see {LOGS}",
    "resume_wandb": f"Nothing is sent anywhere; see {LOGS}",
    "test_after_training": "Run `atypia published evaluate` after `atypia published train`",
    "pickle_preds": "fold*/evaluation.json holds the figures of every scan, "
    "`atypia predict OUTPUT/fold0/model` writes maps",
    "debug": "Use --debug for the traceback of an error, sample_set=True for a few scans",
    "print_config": "Look at settings.toml in every model folder",
    "ignore_warnings": "Set PYTHONWARNINGS=ignore",
    "log_every_n_steps": f"Every step is logged: {LOGS}",
    "benchmark": "cuDNN chooses as torch is set up; there is no switch here",
    "num_workers": "Use --workers: processes that prepare scans, which is done once",
    "droplast": "All batches are full; what is left of an epoch goes into the next batch",
    "unisotropic_sampling": "Scans always come onto one grid; write your own plan as JSON and name "
    "it as preprocessing in --config",
    "startslice": SLICES,
    "sequentialslices": SLICES,
    "unique_slice": SLICES,
    "random_motion": "There is no motion of slices here; random_ghosting comes next to it",
    "random_elastic": "Slices are not bent here; random_flip mirrors them",
    "random_affine": "Slices are not turned here; random_flip mirrors them",
    "att_res": "Attention is in the middle block only, which is what the published values give",
    "sampling_timesteps": "It never changed a restoration; sampler_steps in --config does",
    "cond_dim": "It was overwritten by 4 times unet_dim; set context in --config",
    "num_eval_slices": "All slices of a scan are evaluated; there is no choice here",
    "saveOutputImages": "`atypia predict OUTPUT/fold0/model SCANS -o RESULTS` writes NIfTI, "
    "`atypia report RESULTS` pictures",
    "save_to_disc": "`atypia predict OUTPUT/fold0/model SCANS -o RESULTS` writes NIfTI",
    "use_postprocessed_score": "Scores are judged as they are reported; medianFiltering=False and "
    "erodeBrainmask=False leave them as they were",
    "mask_ratio2": "mask_ratio is the one share of hidden cells",
    "uniform": "mask_ratio is the one share of hidden cells",
    "pe": "The encoder is convolutional and has no position embedding here",
    "dec_dim": DECODER,
    "double": DECODER,
    "hea": DECODER,
    "cmid": DECODER,
}
"""Key that had an effect -> by what the same, or the nearest, is reached; where there is nothing
of the kind, the answer says so."""

FIXED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "condition": (("True",), "Use --experiment ddpm for a network without a condition"),
    "backbone": (("spark", "Spark_Encoder_2D"), "The encoder is a ResNet; choose it by version"),
    "pretrained_backbone": (("False",), "No weights are downloaded; use atypia published spark"),
    "dp": (("0", "0.0"), NO_DROPOUT),
    "dropout_unet": (("0", "0.0"), NO_DROPOUT),
    "p2_gamma": (("0", "0.0"), 'Set weighting = "min_snr" in --config for weights of times'),
    "noisetype": (("simplex",), "Set noise in --config"),
    "masked_mhd": (("True",), "Only the brain is scored"),
    "resizedEvaluation": (("False",), "Scores are compared with labels on the scans' own grid"),
    "evalSeg": (("True",), "Scans with lesion masks are always compared with them"),
    "pix_norm": (("False",), "Pixels are not normalised cell by cell here"),
    "dense_loss": (("False",), "Use loss_on_mask=False for a loss over the whole slice"),
    "loss_l2": (("True",), "The loss of hidden cells is squared, that of whole slices absolute"),
    "pyramid": (("4",), "The decoder takes four maps"),
    "inpaint": (("True",), "What lies outside the box stays clean, as in the experiment"),
}
"""Key that had an effect -> the values that say what is done here, and what to do for others."""

SMOOTH = "Scores of mhd were not filtered; set median_size under [rules] in --config to do so"
DENOISED = "Scans were always denoised; write your own plan to leave that out"
FITTED = "Set patience under [training] in --config to stop early"
TURNED = "Use random_flip=True, or aug_intensity=True for intensities"
RATES = 'Set schedule = "drop" under [training] in --config'

DEAD: Mapping[str, str] = {
    "OpenaiUnet": "",
    "camstrat": "Maps are multiplied; see residualmode",
    "mc_ensemble": "Use num_mc_samples",
    "smooth_cam": "Set smoothing_sigma under [rules] in --config",
    "no_postproc": SMOOTH,
    "ssim_kernel": "Use ssim_sigma",
    "pad": "Use imageDim",
    "cropMode": "Use imageDim",
    "interRes": "Set interpolation in a plan of your own",
    "preLoad": "Prepared scans are kept in --cache",
    "curvatureFlow": DENOISED,
    "percentile": "Use perc_low and perc_high",
    "randomRotate": TURNED,
    "rotateDegree": TURNED,
    "horizontalFlip": TURNED,
    "randomBrightness": TURNED,
    "brightnessRange": TURNED,
    "randomContrast": TURNED,
    "contrastRange": TURNED,
    "earlyStopping": FITTED,
    "patienceStopping": FITTED,
    "scheduleLR": RATES,
    "patienceLR": RATES,
    "learned_variance": "",
    "learned_sinusoidal_cond": "",
    "dropRate": "",
    "en_de_norm": "",
    "en_de_lin": "",
    "sbn": "",
    "conv_resample": "",
    "scale_patch": "",
    "patch_stride": "Use overlap=True",
    "SimCLR_pretraining": "Use atypia published spark",
    "pretrained": "Use pretrained_encoder",
}
"""Key that the published code accepts and never reads -> what to use instead, if anything."""


def read_options(
    given: Iterable[str], stage: Stage, experiment: str | None = None
) -> PublishedOptions:
    """Read options in the reference's spelling.

    Parameters
    ----------
    given
        `KEY=VALUE`, e.g. ``"model.cfg.unet_dim=64"``.
    stage
        What is going to be run.
    experiment
        A name in `EXPERIMENTS`; cddpm, or that of `experiment=...`, if None.

    Raises
    ------
    SettingsError
        A key is unknown, had no effect, has another mechanism or a value that does not fit.
    """
    pairs = [_pair(word) for word in given]
    named = [value for key, value in pairs if key == "experiment"]
    chosen = experiment or (experiment_named(named[-1]) if named else "cddpm")
    if chosen not in EXPERIMENTS:
        raise unknown_name("experiment", chosen, EXPERIMENTS)
    flat: Values = {}
    for key, value in pairs:
        if key != "experiment":
            flat |= _taken(key, value, stage, chosen)
    options = PublishedOptions(chosen)
    for name, value in flat.items():
        for part in ("run", "plan"):
            if name.startswith(f"{part}."):
                getattr(options, part)[name.removeprefix(f"{part}.")] = value
                break
        else:
            _put(options.settings, name, value)
    _combine(options)
    return options


def experiment_named(name: str) -> str:
    """Give our name of an experiment for its published one, e.g. ``"MHD/cDDPM_MHD"``."""
    for ours, experiment in EXPERIMENTS.items():
        if name.lower() in (ours, *(published.lower() for published in experiment.published)):
            return ours
    known = [name for experiment in EXPERIMENTS.values() for name in experiment.published]
    raise unknown_name("experiment", name, [*EXPERIMENTS, *known])


def _pair(word: str) -> tuple[str, str]:
    key, sign, value = word.lstrip("+").partition("=")
    if not sign or not key:
        raise SettingsError(word, "is not KEY=VALUE", "Write e.g. model.cfg.unet_dim=128")
    *before, last = key.split(".")
    if strange := [part for part in before if part not in PREFIXES]:
        raise unknown_name(f"group of {word}", strange[0], PREFIXES)
    return last, value.strip().strip("'\"")


def _taken(key: str, value: str, stage: Stage, experiment: str) -> Values:
    where = f"{key}={value}"
    if key in FIXED:
        accepted, remedy = FIXED[key]
        if value.lower() in (one.lower() for one in accepted):
            return {}
        raise SettingsError(where, f"only {accepted[0]} is possible here", remedy)
    if key in ANSWERED:
        raise SettingsError(where, "is reached in another way here, if at all", ANSWERED[key])
    if key not in TAKEN:
        raise _without_effect(key, where)
    option = TAKEN[key]
    if experiment not in option.experiments:
        remedy = DEAD.get(key) or "Leave it out"
        raise SettingsError(
            where, f"had no effect in the reference's experiment {experiment}", remedy
        )
    if stage not in option.stages:
        stages = " or ".join(f"`atypia published {one}`" for one in option.stages)
        raise SettingsError(where, f"is no option of {stage}", f"Give it to {stages}")
    try:
        return option.convert(value)
    except ValueError as error:
        raise SettingsError(where, str(error), "Correct this value") from error


def _without_effect(key: str, where: str) -> SettingsError:
    if key in DEAD:
        instead = f". {DEAD[key]}" if DEAD[key] else ""
        return SettingsError(where, "had no effect in the reference", f"Leave it out{instead}")
    known = [*TAKEN, *ANSWERED, *FIXED, *DEAD]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return SettingsError(where, "unknown option", f"{guess}See docs/published-diffusion.md")


def _combine(options: PublishedOptions) -> None:
    """Work out what several options say together."""
    run, settings = options.run, options.settings
    time, times, ensemble = (run.pop(name, None) for name in ("time", "times", "ensemble"))
    if options.experiment == "mhd":
        # The published code takes one off twice.
        if time is not None:
            settings["test_times"] = (time - 2,)
    elif (time, times, ensemble) != (None, None, None):
        together = options.experiment == "cddpm" if ensemble is None else ensemble
        chosen = (times or (250, 500, 750)) if together else (time or 500,)
        settings["test_times"] = tuple(one - 1 for one in chosen)
    filtered, size = run.pop("median", None), run.pop("median_size", None)
    if (filtered, size) != (None, None):
        _put(settings, "rules.median_size", 1 if filtered is False else size or 5)
    if run.pop("overlap", False):
        settings["box_stride"] = settings.get("box_size", 48) // 2


def _put(settings: dict[str, Any], name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        settings = settings.setdefault(group, {})
    settings[last] = value
