"""Methods that restore in one pass: priors, the box, scores, learning, resuming, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atypia.cohort import Cohort
from atypia.cohort.simulated import simulated_cohort
from atypia.detectors import load_detector, restorer, save_detector
from atypia.detectors.denoising_autoencoder import (
    DenoisingAutoencoder,
    DenoisingAutoencoderSettings,
)
from atypia.detectors.restorer import Restorer, RestorerSettings, _rescaled
from atypia.detectors.synthetic_restoration import (
    SyntheticRestoration,
    SyntheticRestorationSettings,
)
from atypia.detectors.tissue_prior import require_template, tissues_on
from atypia.detectors.unfinished import load_unfinished
from atypia.errors import SettingsError
from atypia.preprocessing import Prepared
from atypia.scoring.tissue_fit import expected_scans, fit_tissues
from atypia.simulation import SimulationSettings
from atypia.simulation.tissue import tissue_maps
from atypia.training import synthetic_anomalies
from atypia.training.loop import seeded
from atypia.volume import Geometry
from tests.phantoms import phantom_cohort, phantom_scan

BOTH = [DenoisingAutoencoder, SyntheticRestoration]
FEW = {"training": {"steps": 4, "validate_every": 2, "checkpoint_every": 1}}


def of(kind: type[Restorer], **values) -> Restorer:
    return kind(kind.settings_class.make(values, "tiny"))


def any_scans(first: int, count: int) -> Cohort:
    settings = SimulationSettings(modality="any", spacing_mm=6)
    return simulated_cohort(settings, range(first, first + count))


@pytest.fixture(scope="module")
def learnt() -> Restorer:
    """A denoising autoencoder of any contrast."""
    rate = {"steps": 30, "validate_every": 15, "learning_rate": 5e-3, "warmup_steps": 3}
    return of(DenoisingAutoencoder, modality="any", training=rate).fit(any_scans(0, 3))


@pytest.fixture(scope="module")
def seen(learnt: Restorer) -> list[Prepared]:
    """Scans that nothing was learnt from, as the detector sees them."""
    return [learnt._prepared(scan, None)[1] for scan in any_scans(50, 2)]


def with_a_bump(prepared: Prepared) -> tuple[Prepared, np.ndarray]:
    """Raise a ball of 18 mm in one hemisphere."""
    brain = prepared.brain.data
    middle = np.argwhere(brain).mean(0) + np.array([4, 0, 0])
    index = np.stack(np.indices(brain.shape), axis=-1)
    ball = (np.linalg.norm(index - middle, axis=-1) < 3) & brain
    changed = np.where(ball, prepared.image.data + np.float32(2.5), prepared.image.data)
    return replace(prepared, image=prepared.image.with_data(changed)), ball


def corrupted_by(
    detector: Restorer, prepared: Prepared, seed: int, box: tuple[slice, ...] = (slice(None),) * 3
) -> tuple[Prepared, np.ndarray]:
    """Corrupt a scan as in training, normalised again; give also where."""
    image = torch.from_numpy(np.array(prepared.image.data))
    brain = torch.from_numpy(np.array(prepared.brain.data))
    where = torch.zeros_like(brain)
    image[box], where[box] = detector._corrupted(image[box], brain[box], seeded(5, seed))
    image, _ = _rescaled(image, image, brain)
    return replace(prepared, image=prepared.image.with_data(image.numpy())), where.numpy()


def ranked(score: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> float:
    """Share of pairs in which the voxel inside scores higher."""
    order = np.sort(score[outside])
    return float(np.searchsorted(order, score[inside]).mean() / order.size)


def test_a_denoiser_learns_and_finds_a_bump_in_any_contrast(learnt, seen) -> None:
    untrained = DenoisingAutoencoder(learnt.settings)
    untrained.plan = learnt.plan
    untrained._build()
    with torch.inference_mode():
        before = untrained._validation(untrained.network_, seen)
        after = learnt._validation(learnt.network_, seen)
    assert after < 0.9 * before
    for prepared in seen:
        changed, ball = with_a_bump(prepared)
        score = learnt._score(changed).score
        assert ranked(score, ball, prepared.brain.data & ~ball) > 0.65
        assert score[ball].mean() > 1.2 * learnt._score(prepared).score[ball].mean()


def test_a_restorer_learns_to_take_out_levels_of_any_place(monkeypatch) -> None:
    monkeypatch.setattr(synthetic_anomalies, "KINDS", ("level",))
    rules = {"none_share": 0.0, "smallest_mm": 20.0, "largest_mm": 30.0, "most": 1}
    rate = {"steps": 100, "validate_every": 50, "learning_rate": 1e-2, "warmup_steps": 5}
    detector = of(
        SyntheticRestoration, spacing_mm=10.0, prior="mean", anomalies=rules, training=rate
    )
    detector.fit(phantom_cohort(range(5)))
    ranks = []
    for seed in range(50, 55):
        prepared = detector._prepared(phantom_scan(seed), None)[1]
        changed, where = corrupted_by(detector, prepared, seed)
        healthy = prepared.brain.data & ~where
        ranks.append(ranked(detector._score(changed).score, where, healthy))
    assert np.mean(ranks) > 0.75
    assert min(ranks) > 0.5


def test_evidence_learns_where_a_scan_was_corrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One corruption, learnt by heart: wherever it is, neither sign nor place may be mistaken."""

    def always_the_same(self, image, brain, rng):
        rules = self.settings.anomalies
        return synthetic_anomalies.corrupt(image, brain, (6.0, 6.0, 6.0), rules, seeded(12))

    monkeypatch.setattr(SyntheticRestoration, "_corrupted", always_the_same)
    rules = {"none_share": 0.0, "smallest_mm": 15.0}
    rate = {"steps": 30, "validate_every": 15, "learning_rate": 1e-2, "warmup_steps": 5}
    detector = of(SyntheticRestoration, flip_share=0.0, anomalies=rules, training=rate)
    detector.fit(phantom_cohort(range(1)))
    prepared = detector._prepared(phantom_scan(0), None)[1]
    box = detector._box(torch.from_numpy(np.array(prepared.brain.data)))
    changed, where = corrupted_by(detector, prepared, 0, box)
    brain = prepared.brain.data
    _, evidence = detector.restore(changed)
    assert evidence is not None
    assert ranked(evidence, where, brain & ~where) > 0.95
    np.testing.assert_allclose(
        detector.but(score_from="evidence")._score(changed).score[brain],
        np.log1p(np.exp(evidence[brain].astype(np.float64))),
        rtol=1e-5,
    )
    residual = detector._score(changed)
    both = detector.but(score_from="both")._score(changed)
    assert ranked(both.score, where, brain & ~where) > 0.95
    np.testing.assert_allclose(
        both.score[brain], np.logaddexp(0, evidence)[brain] * residual.score[brain], rtol=1e-5
    )


def test_a_small_anomaly_weighs_as_much_as_the_brain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Averaged over the brain alone, a network would do best to restore nothing."""
    detector = of(SyntheticRestoration, flip_share=0.0, prior="none", **FEW)
    detector.fit(phantom_cohort(range(1)))
    prepared = detector._prepared(phantom_scan(0), None)[1]
    box = detector._box(torch.from_numpy(np.array(prepared.brain.data)))
    inside = np.argwhere(prepared.brain.data[box])
    place = tuple(inside[len(inside) // 2])

    def one_voxel(self, image, brain, rng):
        where = torch.zeros_like(brain)
        where[place] = True
        return image + 3.0 * where, where

    monkeypatch.setattr(SyntheticRestoration, "_corrupted", one_voxel)
    monkeypatch.setattr(restorer, "_rescaled", lambda corrupted, clean, brain: (corrupted, clean))

    def restores_nothing(channels):
        return torch.zeros(1, 2, *channels.shape[2:])

    loss = detector._loss_of(restores_nothing, prepared, seeded(0))
    assert float(loss) == pytest.approx(3.0 / len(inside) + 3.0 + np.log(2), rel=1e-5)


@pytest.mark.parametrize("kind", BOTH)
def test_interrupted_and_resumed_gives_the_same_weights(
    kind: type[Restorer], tmp_path: Path
) -> None:
    cohort = phantom_cohort(range(3))

    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        if task == "train" and done == 2:
            raise KeyboardInterrupt

    unbroken = of(kind, **FEW).fit(cohort)
    with pytest.raises(KeyboardInterrupt):
        of(kind, **FEW).fit(cohort, folder=tmp_path, progress=interrupt)
    began: list[int] = []
    resumed = of(kind, **FEW).fit(
        cohort,
        folder=tmp_path,
        progress=lambda task, done, total, note="": began.append(done) if task == "train" else None,
    )
    assert min(began) > 1
    weights = unbroken.network_.state_dict()
    assert any(bool(value.any()) for name, value in weights.items() if name.startswith("last"))
    for name, value in resumed.network_.state_dict().items():
        assert torch.equal(value, weights[name]), name
    np.testing.assert_array_equal(resumed.spread_, unbroken.spread_)


@pytest.mark.parametrize("prior", ["tissues", "mean"])
def test_an_unfinished_fit_can_restore_already(prior: str, tmp_path: Path) -> None:
    detector = of(DenoisingAutoencoder, prior=prior, **FEW)
    detector.fit(phantom_cohort(range(3)), folder=tmp_path)
    unfinished = load_unfinished(tmp_path)
    unfinished.network_.load_state_dict(detector.network_.state_dict())
    prepared = detector._prepared(phantom_scan(9), None)[1]
    restored = unfinished._restore_alone(prepared)
    assert restored is not None
    np.testing.assert_array_equal(restored, detector._score(prepared).restoration)


def test_saved_and_loaded_scores_the_same_in_any_contrast(learnt, tmp_path: Path) -> None:
    save_detector(learnt, tmp_path / "model")
    loaded = load_detector(tmp_path / "model")
    assert loaded.trained_on["modality"] == "any"
    for scan in (any_scans(60, 1)[0], phantom_scan(60)):
        np.testing.assert_array_equal(loaded.score_map(scan).data, learnt.score_map(scan).data)


def test_the_expected_scan_is_of_the_scan_itself(learnt, seen) -> None:
    prior = learnt._prior(torch.device("cpu"))
    assert prior is not None
    assert prior.shape == (1, 4, *seen[0].image.shape)
    given: list[torch.Tensor] = []

    def listening(channels: torch.Tensor) -> torch.Tensor:
        given.append(channels)
        return torch.zeros_like(channels[:, :1])

    for prepared in seen:
        image = torch.from_numpy(np.array(prepared.image.data))
        brain = torch.from_numpy(np.array(prepared.brain.data))
        restored, pointed = learnt._restored(listening, image, brain, prior)
        expected, _ = fit_tissues(image, brain, tissues_on(prepared.image.geometry)[0])
        assert torch.equal(given[-1][0, 0], image)
        assert torch.equal(given[-1][0, 1], expected)
        assert torch.equal(restored, image)
        assert pointed is None
        # It follows the contrast: upside down where the scan is.
        turned = expected_scans(-image[None, None], brain[None, None], prior)[0, 0]
        torch.testing.assert_close(turned, -expected, rtol=1e-4, atol=1e-4)


def test_flipped_scans_meet_flipped_tissues(learnt, seen, monkeypatch) -> None:
    monkeypatch.setattr(
        DenoisingAutoencoder, "_corrupted", lambda self, image, brain, rng: (image, brain)
    )
    given: list[torch.Tensor] = []

    def listening(channels: torch.Tensor) -> torch.Tensor:
        given.append(channels[0])
        return torch.zeros_like(channels[:, :1])

    for share in (0.0, 1.0):
        loss = learnt.but(flip_share=share)._loss_of(listening, seen[0], seeded(1))
        assert float(loss) == pytest.approx(0, abs=1e-6)
    straight, mirrored = (_brains_own(channels) for channels in given)
    torch.testing.assert_close(mirrored.flip(1), straight, rtol=0, atol=1e-4)
    assert float((mirrored - straight).abs().max()) > 1


def _brains_own(channels: torch.Tensor) -> torch.Tensor:
    """Cut channels to the brain's box, without a margin."""
    places = (channels[0] != 0).nonzero()
    x, y, z = (
        slice(int(low), int(high) + 1)
        for low, high in zip(places.amin(0), places.amax(0), strict=True)
    )
    return channels[:, x, y, z]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("prior", ["mean", "none"])
def test_other_priors_train_and_score(kind: type[Restorer], prior: str) -> None:
    detector = of(kind, prior=prior, align="none", **FEW).fit(phantom_cohort(range(3)))
    assert hasattr(detector, "prior_") == (prior == "mean")
    found = detector._score(detector._prepared(phantom_scan(9), None)[1])
    assert np.isfinite(found.score).all()
    assert found.scores["mean_error"] > 0


def test_signs_split_the_residual_and_precision_changes_it_little(learnt, seen) -> None:
    both, bright, dark = (
        learnt.but(sign=sign)._score(seen[0]).score for sign in ("both", "bright", "dark")
    )
    np.testing.assert_allclose(bright + dark, both, atol=1e-6)
    short = learnt.but(precision="bfloat16")._score(seen[0]).score
    assert not np.array_equal(short, both)
    brain = seen[0].brain.data
    assert np.corrcoef(short[brain], both[brain])[0, 1] > 0.99


def test_a_random_contrast_is_trained_on(learnt, seen) -> None:
    network = learnt.network_
    with torch.inference_mode():
        plain, bent = (
            float(learnt.but(contrast_share=share)._loss_of(network, seen[0], seeded(2)))
            for share in (0.0, 1.0)
        )
    assert plain != bent


def test_what_comes_corrupted_is_normalised_and_the_target_follows() -> None:
    brain = torch.zeros(8, 8, 8, dtype=torch.bool)
    brain[2:7, 2:7, 2:7] = True
    clean = torch.randn(8, 8, 8, generator=seeded(0)) * brain
    corrupted = (clean + 2 * torch.rand(8, 8, 8, generator=seeded(1))) * brain
    found, target = _rescaled(corrupted, clean, brain)
    assert float(found[brain].mean()) == pytest.approx(0, abs=1e-6)
    assert float(found[brain].std()) == pytest.approx(1, abs=1e-5)
    ratio = (corrupted - clean)[brain] / (found - target)[brain]
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(corrupted[brain].std())))
    assert not found[~brain].any()
    assert not target[~brain].any()


def test_tissues_on_a_grid_are_the_templates() -> None:
    maps = tissue_maps()
    shape = maps.geometry.shape
    grid = Geometry(
        (shape[0] // 4, shape[1] // 4, shape[2] // 4),
        maps.geometry.affine @ np.diag([4.0, 4.0, 4.0, 1.0]),
    )
    found = tissues_on(grid)[0].numpy()
    white, gray, deep, fluid = (64 * float(share.sum()) for share in found)
    # A blur of 2 mm moves what is at the borders; over the whole brain little is lost.
    assert white == pytest.approx(float((maps.brain - maps.gray - maps.csf).sum()), rel=0.02)
    assert gray == pytest.approx(float((maps.gray * (1 - maps.deep)).sum()), rel=0.02)
    assert deep == pytest.approx(float((maps.gray * maps.deep).sum()), rel=0.02)
    assert fluid == pytest.approx(float(maps.csf.sum()), rel=0.02)


@pytest.mark.parametrize("kind", BOTH)
def test_tissues_need_the_template(kind: type[Restorer]) -> None:
    with pytest.raises(SettingsError, match=r"MNI152.*--align"):
        of(kind, align="none", **FEW).fit(phantom_cohort(range(2)))
    aligned = of(kind, **FEW).settings
    require_template(aligned.plan_for(phantom_cohort(range(1)), "T2w"), "x")


@pytest.mark.parametrize("kind", [DenoisingAutoencoderSettings, SyntheticRestorationSettings])
def test_a_mean_brain_has_one_contrast(kind: type[RestorerSettings]) -> None:
    with pytest.raises(SettingsError, match="contrast_share"):
        kind.make({"prior": "mean", "contrast_share": 0.1})
    assert kind.make({"prior": "tissues", "contrast_share": 0.1}).contrast_share == 0.1


def test_the_published_rules_of_the_denoiser() -> None:
    settings = DenoisingAutoencoderSettings.make({}, "published")
    assert (settings.prior, settings.normalise, settings.floor) == ("none", False, 0)
    assert settings.noise == 1
