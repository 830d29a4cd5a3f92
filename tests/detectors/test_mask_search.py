"""The search against the literal, published one; where it is quicker, the result stays the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atypia.detectors.mask_search import MaskSearch, SearchRules, _steadied
from tests.oracles.itermask3d import literal_knee, literal_search

PUBLISHED = {
    "scale_free": False,
    "phase_a": "every_step",
    "without_knee": "lowest_threshold",
    "most_rounds": 100,
}
GAMMA = 0.02


def scene(seed: int = 0, lesion: float = 2.5) -> tuple[Tensor, Tensor, Tensor]:
    """Make an image, its fine part and a brain, with a bright blob; `(X, Y, Z)`, float64."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (22, 26, 20)), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    brain = radius < 0.9
    texture = rng.normal(size=brain.shape)
    smooth = np.cos(3 * axes[0]) * np.cos(2 * axes[1])
    blob = lesion * (((axes[0] - 0.3) ** 2 + axes[1] ** 2 + axes[2] ** 2) < 0.06)
    image = np.where(brain, smooth + 0.3 * texture + blob, 0)
    fine = np.where(brain, 0.3 * texture, 0)
    return torch.from_numpy(image), torch.from_numpy(fine), torch.from_numpy(brain)


def network(x: Tensor) -> Tensor:
    """A fixed "network": a smooth of what is visible and most of the fine image."""
    return 0.9 * torch.nn.functional.avg_pool3d(x[:, :1], 5, 1, 2) + 0.7 * x[:, 1:2]


def search_of(
    image: Tensor, fine: Tensor, brain: Tensor, noise: torch.Generator | None = None, **values
) -> MaskSearch:
    def restore(hidden: Tensor) -> Tensor:
        filling = torch.zeros_like(image)
        if noise is not None:
            filling = torch.randn(image.shape, generator=noise).to(image.dtype)
        visible = torch.where(hidden[0, 0], filling, image)
        return network(torch.stack([visible, fine])[None])

    rules = SearchRules.make({**PUBLISHED, **values})
    return MaskSearch(
        restore, image[None, None], brain[None, None], rules, repeatable=noise is None
    )


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * (first & second).sum() / max(first.sum() + second.sum(), 1)


@pytest.mark.parametrize("seed", range(3))
def test_published_rules_give_the_literal_result(seed: int) -> None:
    image, fine, brain = scene(seed)
    literal = literal_search(network, image, fine, brain.double(), GAMMA)
    result = search_of(image, fine, brain).run(GAMMA)
    np.testing.assert_allclose(result.curve.threshold, literal.curve, rtol=1e-9)
    assert result.knee == literal.knee
    mask = result.mask[0, 0].numpy()
    assert 0 < mask.sum() < brain.sum()
    np.testing.assert_array_equal(mask, literal.mask)
    np.testing.assert_allclose(result.restored[0, 0].numpy(), literal.restored, rtol=1e-9)


def test_published_rules_with_noise_draw_as_often_as_the_literal_search() -> None:
    image, fine, brain = scene()
    draws = torch.Generator().manual_seed(5)
    literal = literal_search(
        network,
        image,
        fine,
        brain.double(),
        GAMMA,
        lambda: torch.randn(image.shape, generator=draws),
    )
    result = search_of(image, fine, brain, torch.Generator().manual_seed(5)).run(GAMMA)
    np.testing.assert_allclose(result.curve.threshold, literal.curve, rtol=1e-6)
    np.testing.assert_array_equal(result.mask[0, 0].numpy(), literal.mask)
    assert result.forwards == literal.forwards


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("gamma", [0.01, 0.02, 0.05])
def test_coarse_to_fine_finds_the_same_mask_with_a_fraction_of_the_forwards(
    seed: int, gamma: float
) -> None:
    image, fine, brain = scene(seed)
    slow = search_of(image, fine, brain).run(gamma)
    fast = search_of(image, fine, brain, phase_a="coarse_to_fine").run(gamma)
    assert fast.forwards < slow.forwards / 2.5
    # A blur of all that is visible: the mask hangs on its own history more than a network does.
    assert overlap(fast.mask.numpy(), slow.mask.numpy()) > 0.9
    assert fast.knee is not None
    assert slow.knee is not None
    assert abs(fast.knee - slow.knee) <= 1
    assert fast.curve.measured[fast.knee]


@pytest.mark.parametrize("step", [5.0, 10.0])
def test_every_step_reconstructs_once_for_each_share(step: float) -> None:
    image, fine, brain = scene()
    search = search_of(image, fine, brain, percent_step=step)
    assert search.threshold_curve().measured.all()
    assert search.forwards == 100 / step  # the first, and one for each share but the last


def test_the_swing_after_a_leap_is_taken_out() -> None:
    known = [10, 20, 21, 22, 23, 24, 40, 96, 97, 98]
    smooth = np.exp(0.05 * np.array(known))
    swing = np.array([1, 1, 1.04, 1 / 1.04, 1.04, 1, 1, 1, 1.5, 1])
    steadied = _steadied(known, np.array(known) + 1.0, smooth * swing)
    np.testing.assert_allclose(steadied[3], smooth[3], rtol=1e-12)
    changed = steadied != smooth * swing
    np.testing.assert_array_equal(np.array(known)[changed], [21, 22, 23])
    # Neighbours that are far apart say nothing about each other.
    np.testing.assert_array_equal(_steadied(known, 5.0 * np.array(known), swing), swing)


@given(st.sampled_from([1.0, 2.0, 5.0, 10.0]), st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_the_first_threshold_is_the_exact_percentile(step: float, seed: int) -> None:
    image, fine, brain = scene(seed)
    search = search_of(image, fine, brain, percent_step=step)
    error = (image - search.first[0, 0])[brain].square()
    curve = search.threshold_curve()
    assert len(curve.threshold) == 100 / step
    assert curve.percent[-1] == 100
    assert int((error > curve.threshold[0]).sum()) == len(error) - round(len(error) * step / 100)


@given(st.floats(0.01, 100), st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_the_unit_of_intensity_does_not_matter_when_scale_free(factor: float, seed: int) -> None:
    image, fine, brain = scene(seed)
    rules = {"scale_free": True, "phase_a": "coarse_to_fine", "without_knee": "nothing_abnormal"}
    one = search_of(image, fine, brain, **rules).run(0.3)
    other = search_of(factor * image, factor * fine, brain, **rules).run(0.3)
    assert one.knee == other.knee
    np.testing.assert_array_equal(one.mask.numpy(), other.mask.numpy())


def test_cropping_to_the_brain_changes_nothing_but_the_border() -> None:
    image, fine, brain = scene(1)
    margin = (slice(2, -2), slice(2, -2), slice(1, -1))
    assert not brain[:1].any()
    whole = search_of(image, fine, brain).run(GAMMA)
    box = search_of(image[margin], fine[margin], brain[margin]).run(GAMMA)
    assert int(brain[margin].sum()) >= 0.97 * int(brain.sum())
    assert overlap(box.mask[0, 0].numpy(), whole.mask[0, 0][margin].numpy()) > 0.97


def test_a_scan_without_a_knee() -> None:
    image, fine, brain = scene()
    nothing = search_of(image, fine, brain, without_knee="nothing_abnormal").run(1e9)
    assert nothing.outcome == "nothing abnormal"
    assert nothing.knee is None
    assert not nothing.mask.any()
    assert nothing.mean_error > 0
    # As published: the first, lowest threshold, without a word.
    published = search_of(image, fine, brain).run(1e9)
    assert published.knee == 0
    assert published.mask.sum() > 0.5 * brain.sum()


@pytest.mark.parametrize("phase_a", ["every_step", "coarse_to_fine"])
def test_starting_from_the_mask_of_the_knee(phase_a: str) -> None:
    image, fine, brain = scene()
    rules = {"phase_a": phase_a, "shrinking_start_mask": "best_threshold_mask"}
    result = search_of(image, fine, brain, **rules).run(GAMMA)
    whole = search_of(image, fine, brain, phase_a=phase_a).run(GAMMA)
    assert result.outcome == "mask refined"
    assert result.rounds <= whole.rounds
    assert overlap(result.mask.numpy(), whole.mask.numpy()) > 0.8


def test_refinement_is_capped() -> None:
    image, fine, brain = scene()
    assert search_of(image, fine, brain, most_rounds=1).run(GAMMA).rounds == 1


def test_a_poor_fit_gives_way_to_differences() -> None:
    image, fine, brain = scene()
    strict = search_of(image, fine, brain, least_determination=1.0).run(GAMMA)
    assert strict.curve.fit.fitted is None
    lenient = search_of(image, fine, brain, least_determination=-1e9).run(GAMMA)
    assert lenient.curve.fit.fitted is not None


def test_names_of_the_reference_are_understood() -> None:
    rules = SearchRules.make({"fit_funtion_y_limit": 7.0, "shrinking_start_mask": "brain_mask"})
    assert rules.fit_function_y_limit == 7
    assert SearchRules.make({"fit_function_y_limit": 7.0}) == rules
    assert SearchRules.make(rules.to_json()) == rules


def test_the_literal_knee_of_a_known_curve() -> None:
    percent = np.arange(1.0, 101.0)
    a, b = 0.3, 0.0151
    slope = a * b / np.cos(b * percent) ** 2
    assert literal_knee(a * np.tan(b * percent), 0.02) == int(np.argmax(slope > 0.02))
