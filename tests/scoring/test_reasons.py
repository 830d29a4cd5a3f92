"""Figures of a scan: what each of them answers to, and what none of them does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from atypia.scoring.reasons import FIGURES, figures_of
from atypia.scoring.spectrum import highest_point
from atypia.volume import Array

SPACING = (4.5, 4.5, 4.5)
SHAPE = (36, 40, 32)


def brain() -> Array:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return np.asarray(sum(axis**2 for axis in axes) < 0.8)


def scan(seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2)
    image = 100 + 20 * smooth / smooth.std() + rng.normal(size=SHAPE)
    return np.where(brain(), image, 0).astype(np.float32)


def score(seed: int = 1) -> Array:
    return np.abs(np.random.default_rng(seed).normal(size=SHAPE)).astype(np.float32) * brain()


def figures(image: Array | None = None, scores: Array | None = None) -> dict[str, float]:
    image = scan() if image is None else image
    return figures_of(image, score() if scores is None else scores, brain(), SPACING)


def blob(x: float) -> Array:
    """Give a ball of 16 mm radius, `x` voxels from the middle."""
    centre = np.array(SHAPE) / 2 + [x, 3, 2]
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    return np.asarray(((index - centre) ** 2).sum(-1) < 16)


def test_every_figure_is_told_and_finite() -> None:
    found = figures()
    assert list(found) == list(FIGURES)
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize("constant", ["image", "score"])
def test_a_constant_image_or_score_gives_finite_figures(constant: str) -> None:
    flat = brain().astype(np.float32)
    found = figures(flat) if constant == "image" else figures(None, flat)
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize(("factor", "offset"), [(0.01, 0.0), (37.0, 0.0), (2.0, -300.0)])
def test_figures_do_not_depend_on_the_scale_of_intensities(factor: float, offset: float) -> None:
    changed = np.where(brain(), factor * scan() + offset, 0)
    assert figures(changed) == pytest.approx(figures(), rel=1e-3, abs=1e-3)


def test_places_do_not_depend_on_the_scale_of_scores() -> None:
    before, after = figures(), figures(None, np.where(brain(), 5 * score() - 3, 0))
    for name in ("focus", "one_side"):
        assert after[name] == pytest.approx(before[name], abs=1e-3)


def test_what_lies_outside_the_brain_does_not_count() -> None:
    outside = np.where(brain(), scan(), 9999)
    assert figures(outside, np.where(brain(), score(), 50)) == pytest.approx(figures())


def spiked() -> Array:
    wave = np.cos(2 * np.pi * np.arange(SHAPE[1]) * 10 / SHAPE[1])[None, :, None]
    return np.where(brain(), scan() + 5 * wave, 0)


def ghosted() -> Array:
    lines = np.fft.fft(scan(), axis=1)
    lines[:, 1::2] *= 0.8
    return np.where(brain(), np.abs(np.fft.ifft(lines, axis=1)), 0)


def slices_lost() -> Array:
    lost = scan()
    lost[:, :, 16:18] = 0
    return lost


def shaded() -> Array:
    return np.asarray(scan() * np.linspace(0.5, 1.5, SHAPE[0])[:, None, None])


def noisy() -> Array:
    return np.where(brain(), scan() + np.random.default_rng(3).normal(0, 8, SHAPE), 0)


def blurred() -> Array:
    return np.asarray(ndimage.gaussian_filter(scan(), 1.5))


@pytest.mark.parametrize(
    ("image", "name", "sign"),
    [
        (spiked(), "kspace_point", 1),
        (ghosted(), "kspace_lines_y", 1),
        (slices_lost(), "slice_jump_z", 1),
        (shaded(), "shading", 1),
        (noisy(), "noise", 1),
        (blurred(), "noise", -1),
        (blurred(), "rim", -1),
    ],
)
def test_an_artefact_moves_its_figure_beyond_all_healthy_scans(
    image: Array, name: str, sign: int
) -> None:
    healthy = [figures(scan(seed))[name] for seed in range(10, 22)]
    assert sign * figures(image)[name] > max(sign * value for value in healthy)


def test_a_raised_score_everywhere_is_global_and_no_place() -> None:
    before, after = figures(), figures(None, 3 * score())
    assert after["global_score"] == pytest.approx(3 * before["global_score"], rel=1e-4)
    assert after["focus"] == pytest.approx(before["focus"], abs=1e-3)


def test_a_place_is_focal_and_a_slab_is_not() -> None:
    plain = figures()["focus"]
    place = figures(None, score() + 4 * (blob(8) & brain()))["focus"]
    slab = score()
    slab[:, :, 14:17] += 4 * brain()[:, :, 14:17]
    assert place > plain + 0.5
    assert figures(None, slab)["focus"] < plain + 0.1


def test_one_side_is_not_both_sides() -> None:
    left, right = blob(-8) & brain(), blob(7) & brain()
    one = figures(None, score() + 4 * left)["one_side"]
    both = figures(None, score() + 4 * left + 4 * right)["one_side"]
    assert one > both + 0.5
    assert one > figures()["one_side"] + 0.5


def test_the_highest_point_against_a_literal_search() -> None:
    image = np.where(brain(), scan(), 0).astype(np.float64)
    power = np.log(np.abs(np.fft.fftn(image)) ** 2)
    thick = max(1 / (n * SPACING[0]) for n in SHAPE)
    shells: dict[int, list[tuple[float, float]]] = {}
    for place in np.ndindex(*SHAPE):
        waves = [min(i, n - i) / (n * SPACING[0]) for i, n in zip(place, SHAPE, strict=True)]
        radius = float(np.sqrt(sum(w * w for w in waves)))
        shells.setdefault(int(radius / thick + 1e-9), []).append((radius, float(power[place])))
    literal = 0.0
    for shell in shells.values():
        usual = sum(value for _, value in shell) / len(shell)
        beyond = [value - usual for radius, value in shell if radius > 1 / 25]
        literal = max(literal, *beyond, 0.0)
    found = highest_point(scan(), brain(), SPACING)
    # Points that lie on the border of two shells may count to either.
    assert found == pytest.approx(literal, abs=0.02)
