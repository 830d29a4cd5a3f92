"""Implicit fields: coordinates, codes, scores, and that lesions stand out."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from atypia.detectors.code_fit import (
    CodeFitRules,
    CodePrior,
    Observation,
    fit_codes,
    soft_targets,
)
from atypia.detectors.implicit_field import ImplicitField, ImplicitFieldSettings
from atypia.errors import SettingsError
from atypia.networks.implicit_decoder import FixedDecoder, ImplicitDecoder
from atypia.preprocessing import Prepared
from atypia.scoring.smooth import least_then_mean
from atypia.volume import Geometry
from tests.oracles.ifl import literal_decode, literal_fit, literal_score
from tests.phantoms import phantom_cohort, phantom_scan


@cache
def fitted() -> ImplicitField:
    detector = ImplicitField(ImplicitFieldSettings.tiny())
    return detector.fit(phantom_cohort(range(6)))


def prepared(seed: int, lesion: bool = False) -> Prepared:
    return fitted()._prepared(phantom_scan(seed, lesion=lesion), None)[1]


def test_the_reference_is_as_published() -> None:
    settings = ImplicitFieldSettings.make({}, "reference")
    detector = ImplicitField(settings)
    detector._build()
    # Ten classes: the plan of `ifl` has the published centres; without a plan ten are asked for.
    assert sum(p.numel() for p in detector.network_.parameters()) == 1_847_698
    assert settings.fit_steps == (501, 101)
    assert settings.training.schedule == "halve"


def test_a_lesion_stands_out_and_its_restoration_looks_healthy() -> None:
    scan = prepared(300, lesion=True)
    lesion = phantom_scan(300, lesion=True).lesion()
    assert lesion is not None
    found = fitted().predict(phantom_scan(300, lesion=True))
    brain = scan.native_brain.data
    inside, outside = lesion.data & brain, ~lesion.data & brain
    score = found.score_map.data
    ranks = np.searchsorted(np.sort(score[outside]), score[inside]) / outside.sum()
    assert ranks.mean() > 0.9
    image = phantom_scan(300, lesion=True).image().data
    assert found.restoration is not None
    change = image[inside].mean() - found.restoration.data[inside].mean()
    assert change > 40  # of the 90 that the blob is brighter
    assert found.scores["code_distance"] > 0


def test_codes_lie_within_their_bound_and_fitting_changes_no_weight() -> None:
    detector = fitted()
    assert detector.codes_.shape == (6, 16)
    assert np.linalg.norm(detector.codes_, axis=1).max() <= 1 + 1e-6
    before = {k: v.clone() for k, v in detector.network_.state_dict().items()}
    codes = detector.fit_codes([prepared(301)]).codes
    assert float(codes.norm()) <= 1 + 1e-6
    for name, weight in detector.network_.state_dict().items():
        assert torch.equal(weight, before[name])


def test_codes_of_several_scans_are_those_of_each() -> None:
    scans = [prepared(seed) for seed in (302, 303)]
    together = fitted().fit_codes(scans).codes
    for row, scan in enumerate(scans):
        alone = fitted().fit_codes([scan]).codes[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-3, atol=1e-3)


def test_other_grids_give_the_same_field() -> None:
    detector, code = fitted(), fitted().codes_[0]
    grid = detector._working_grid()
    whole = detector.field(code, grid).reshape(*grid.shape, -1)
    # Every second voxel, from the second on.
    shift = np.eye(4)
    shift[:3, :3] *= 2
    shift[:3, 3] = 1
    half = Geometry(tuple(len(range(1, n, 2)) for n in grid.shape), grid.affine @ shift)
    found = detector.field(code, half).reshape(*half.shape, -1)
    np.testing.assert_allclose(found, whole[1::2, 1::2, 1::2], atol=1e-4)
    chosen = np.zeros(grid.shape, bool)
    chosen[3:6, 5:9, 4] = True
    np.testing.assert_allclose(detector.field(code, grid, chosen), whole[chosen], atol=1e-4)


def test_published_coordinates_decode_another_field_than_they_learn() -> None:
    values = {**ImplicitFieldSettings.presets["tiny"], "coordinates": "published"}
    detector = ImplicitField(ImplicitFieldSettings.make(values))
    grid = Geometry((8, 8, 8), np.eye(4))
    learnt = detector.positions(grid)
    assert learnt.min() == -1
    assert learnt.max() == pytest.approx(1 - 2 / 8)
    assert detector.positions(grid, decoding=True).max() == 1


def test_codes_between_codes_are_brains() -> None:
    detector = fitted()
    first, second = detector.codes_[:2]
    brains = [detector.brain_of((1 - t) * first + t * second) for t in (0, 0.5, 1)]
    shares = [float((b.data != 0).mean()) for b in brains]
    assert all(0.1 < share < 0.6 for share in shares)
    apart = np.abs(brains[0].data - brains[2].data).mean()
    assert np.abs(brains[1].data - brains[0].data).mean() < apart


@pytest.mark.parametrize(
    "values",
    [
        {"score_from": "surprise", "smoothing": "edges"},
        {"score_from": "likelihood", "smoothing": "brain"},
        {"smoothing": "none"},
    ],
)
def test_other_scores(values: dict) -> None:
    other = fitted().but(**values)
    scan = phantom_scan(300, lesion=True)
    score, lesion, brain = other.score_map(scan).data, scan.lesion(), scan.brain()
    assert lesion is not None
    assert brain is not None
    inside = lesion.data & brain.data
    assert score[inside].mean() > 1.5 * score[brain.data & ~inside].mean()


@pytest.mark.parametrize("values", [{"class_width": 1.0}, {"background": "lowest"}])
def test_other_ways_to_learn(values: dict) -> None:
    base = ImplicitFieldSettings.presets["tiny"]
    quick = {**base, "training": {**base["training"], "steps": 40}, **values}
    detector = ImplicitField(ImplicitFieldSettings.make(quick)).fit(phantom_cohort(range(3)))
    assert np.isfinite(detector.score_map(phantom_scan(9)).data).all()


def test_targets() -> None:
    torch.testing.assert_close(soft_targets(4, 0, True), torch.eye(4))
    near = soft_targets(4, 1.0, True)
    torch.testing.assert_close(near.sum(dim=1), torch.ones(4))
    assert float(near[0, 0]) == 1
    assert near[1, 2] > near[1, 3] > 0
    assert soft_targets(4, 1.0, False)[0, 1] > 0


def test_stages_need_as_many_steps_as_points() -> None:
    with pytest.raises(SettingsError, match="fit_points"):
        ImplicitFieldSettings.make({"fit_steps": (10, 10), "fit_points": (5,)})


@pytest.mark.parametrize("values", [{"skip": 6}, {"width": 100}])
def test_networks_that_cannot_be_are_refused(values: dict) -> None:
    with pytest.raises(SettingsError, match=next(iter(values))):
        ImplicitFieldSettings.make(values)


# -- the published fit --------------------------------------------------------------------------

PUBLISHED = CodeFitRules(
    fit_steps=(30, 10),
    fit_points=(200, 400),
    fit_rate=1e-3,
    fit_schedule="constant",
    fit_start="random",
    prior_weight=0.0,
    bound_at_test=False,
    trim_share=0.0,
    plateau=0.0,
)


def cube() -> tuple[ImplicitDecoder, np.ndarray]:
    torch.manual_seed(0)
    decoder = ImplicitDecoder(5, 8, 48, 4, 2, 3).eval()
    return decoder, np.random.default_rng(0).integers(0, 5, (10, 10, 10))


def test_sparing_gradients_that_nobody_uses_changes_nothing() -> None:
    decoder, classes = cube()
    stages = ((12, 100), (4, 200))
    wasteful = literal_fit(decoder, classes, 3, stages)
    torch.testing.assert_close(literal_fit(decoder, classes, 3, stages, frozen=True), wasteful)


def test_the_published_fit_comes_to_the_same_loss() -> None:
    """Draws differ, so codes do; what they explain of all voxels does not."""
    decoder, classes = cube()
    axis = 2 * torch.arange(10) / 10 - 1
    points = torch.cartesian_prod(axis, axis, axis)
    seen = Observation(points, torch.from_numpy(classes.ravel()))
    prior = CodePrior(torch.zeros(8), torch.ones(8), 1.0)
    found = fit_codes(FixedDecoder(decoder), [seen], PUBLISHED, prior, torch.eye(5), 0)
    literal = literal_fit(decoder, classes, 0, ((30, 200), (10, 400)))

    def loss(code: torch.Tensor) -> float:
        with torch.no_grad():
            logits = decoder(points[None], code[None])[0]
        return float(torch.nn.functional.cross_entropy(logits, seen.classes))

    assert len(found.losses) == 40
    assert loss(found.codes[0]) == pytest.approx(loss(literal), abs=0.01)


def test_the_published_score() -> None:
    decoder, _ = cube()
    classes = np.random.default_rng(1).integers(0, 5, (16, 16, 16))
    code = torch.randn(8)
    logits = literal_decode(decoder, code, 16)
    assert logits.shape == (16, 16, 16, 5)
    axis = torch.linspace(-1, 1, 16)
    points = torch.cartesian_prod(axis, axis, axis)
    ours = torch.cat(list(FixedDecoder(decoder).decode(points, code)))
    torch.testing.assert_close(ours, logits.reshape(-1, 5), rtol=1e-5, atol=1e-5)
    logarithms = ours.log_softmax(dim=-1).numpy()
    surprise = -logarithms[np.arange(16**3), classes.ravel()].reshape(16, 16, 16)
    expected = literal_score(logits, classes)
    np.testing.assert_allclose(least_then_mean(surprise, 3, 15), expected, rtol=1e-4, atol=1e-5)


def test_the_published_preprocessing_and_coordinates_work_from_scan_to_score() -> None:
    values = {
        **ImplicitFieldSettings.presets["reference"],
        "spacing_mm": 6.0,
        "width": 96,
        "depth": 4,
        "skip": 2,
        "code_length": 16,
        "octaves": 5,
        "points": 1024,
        "fit_steps": (40, 5),
        "fit_points": (500, 1000),
        "fit_rate": 1e-2,
        "mean_mm": 18.0,
        "training": {"steps": 150, "batch_size": 3, "learning_rate": 3e-3},
    }
    detector = ImplicitField(ImplicitFieldSettings.make(values)).fit(phantom_cohort(range(6)))
    scan = phantom_scan(300, lesion=True)
    found = detector.predict(scan)
    image, brain, lesion = scan.image().data, scan.brain(), scan.lesion()
    assert brain is not None
    assert lesion is not None
    assert found.restoration is not None
    score = found.score_map.data
    assert np.isfinite(score).all()
    # Classes come back as intensities of the scan.
    inside = brain.data & ~lesion.data
    assert np.corrcoef(found.restoration.data[inside], image[inside])[0, 1] > 0.5
    assert len(found.details["fit_loss"]) == 45
