"""What each artefact does to an image by its physics, on phantoms where that is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from atypia.simulation import SimulatedSubject, add_artefact, artefact_kspace, sample_artefact
from atypia.volume import Volume

SEEDS = range(4)


@pytest.fixture
def block() -> Volume:
    """A uniform box of 100 in an empty field, 2 mm."""
    data = np.zeros((40, 50, 36), dtype=np.float32)
    data[10:-10, 8:-8, 8:-8] = 100
    return Volume(data, np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.fixture
def lines_of(
    healthy: SimulatedSubject, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, float, int], NDArray[np.complex64]]:
    """Look at the k-space lines of an artefact before the magnitude is taken."""
    seen: list[NDArray[np.complex64]] = []
    plain = artefact_kspace._magnitude

    def watched(lines: NDArray[np.complex64]) -> NDArray[np.float32]:
        seen.append(lines.copy())
        return plain(lines)

    monkeypatch.setattr(artefact_kspace, "_magnitude", watched)

    def look(name: str, severity: float, seed: int) -> NDArray[np.complex64]:
        add_artefact(healthy.image, name, severity, seed, healthy.brain)
        return seen.pop()

    return look


def strength(name: str, severity: float) -> float:
    return sample_artefact(name, severity, np.random.default_rng(0)).strength


@pytest.mark.parametrize("seed", SEEDS)
def test_folding_brings_the_front_to_the_back_and_loses_no_signal(seed: int, block: Volume) -> None:
    length = block.shape[1] - 16
    missing = length * strength("folding", 5)
    plain = add_artefact(block, "folding", 5, seed).data
    np.testing.assert_allclose(plain.sum(), block.data.sum(), rtol=0.03)
    profile = plain[20, :, 18]
    seen = np.flatnonzero(profile)
    assert abs(len(seen) - (length - missing)) <= 2
    assert abs((profile > 150).sum() - missing) <= 3
    # A bright mark at the very front lies on top of the back afterwards.
    marked = block.data.copy()
    marked[:, -10:-8] *= 3
    mark = add_artefact(block.with_data(marked), "folding", 5, seed).data - plain
    rows = np.flatnonzero(mark[20, :, 18] > 20)
    assert len(rows) in (2, 3)
    assert rows.max() < 25
    np.testing.assert_allclose(rows.mean(), block.shape[1] - 9.5 - (length - missing), atol=0.6)


@pytest.mark.parametrize("seed", SEEDS)
def test_gibbs_overshoots_at_edges_along_y(seed: int, block: Volume) -> None:
    ringing = add_artefact(block, "gibbs", 3, seed).data
    blurred = add_artefact(block, "smoothing", 5, seed).data
    assert blurred.max() < 100.5
    assert 105 < ringing.max() < 120
    # The ripples run along y and decay from the edge: none across x, fewer in the middle.
    assert np.ptp(ringing[10:-10, 25, 18]) < 1e-3
    ripple = np.abs(ringing[20, :, 18] - 100)
    assert ripple[9:13].max() > 2 * ripple[22:28].max()
    assert ringing[20, :7, 18].max() > 3


def test_gibbs_empties_the_outer_lines(lines_of: Callable[..., NDArray[np.complex64]]) -> None:
    lines = lines_of("gibbs", 3, 1)
    empty = ~lines.any(axis=(0, 2))
    number = np.abs(np.fft.fftfreq(len(empty)))
    assert abs(empty.mean() - strength("gibbs", 3)) < 0.07
    assert number[empty].min() > number[~empty].max()


@pytest.mark.parametrize("seed", SEEDS)
def test_bad_line_changes_a_few_lines_and_not_their_mirrors(
    seed: int, healthy: SimulatedSubject, lines_of: Callable[..., NDArray[np.complex64]]
) -> None:
    weak, strong = (lines_of("bad_line", severity, seed) for severity in (2, 5))
    grown = np.abs(strong - weak).max(axis=(0, 2))
    bad = np.flatnonzero(grown > 1e-3)
    assert 1 <= len(bad) <= 3
    assert 0 not in bad
    # A single line is a wave of the same size all along y, also where there is no head.
    changed = add_artefact(healthy.image, "bad_line", 5, seed, healthy.brain).data
    assert changed[:, 0].max() > 0.1 * np.percentile(healthy.image.data, 99)


def test_bad_point_adds_a_few_waves_from_anywhere_in_k_space() -> None:
    data = np.ones((24, 30, 20), dtype=np.float32)
    data[0, 0, 0] = 0
    volume = Volume(data)
    reach = []
    for seed in SEEDS:
        change = add_artefact(volume, "bad_point", 1, seed).data - data
        power = np.abs(np.fft.fftn(change - change.mean())) ** 2
        largest = np.sort(power.ravel())[::-1]
        # The magnitude of a wave on a bright ground shows the point and its mirror point.
        assert largest[:16].sum() > 0.97 * power.sum()
        places = np.argwhere(power > largest[0] / 20)
        freq = np.abs((places / data.shape + 0.5) % 1 - 0.5)
        reach += list(freq.max(axis=1))
    assert min(reach) < 0.3
    assert max(reach) > 0.45


@pytest.mark.parametrize("seed", SEEDS)
def test_empty_lines_are_empty_nested_and_spare_the_middle(
    seed: int, lines_of: Callable[..., NDArray[np.complex64]]
) -> None:
    empty = [~lines_of("empty_line", s, seed).any(axis=(0, 2)) for s in (1, 2, 3, 4, 5)]
    size = len(empty[0])
    for severity, now in enumerate(empty, start=1):
        assert now.sum() == np.ceil(strength("empty_line", severity) * size)
        assert not now[[0, 1, -1]].any()
    for weaker, stronger in pairwise(empty):
        assert (stronger | ~weaker).all()
        assert stronger.sum() > weaker.sum()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_line_shift_moves_one_block_by_its_strength(
    seed: int, severity: int, block: Volume
) -> None:
    shape = block.shape
    result = add_artefact(block, "line_shift", severity, seed).data
    changed = np.abs(result - block.data) > 1e-3
    along = [axis for axis in (1, 2) if not changed.any(axis=(0, 3 - axis)).all()]
    runs = [np.flatnonzero(changed.any(axis=(0, 3 - axis))) for axis in along]
    axis, rows = min(zip(along, runs, strict=True), key=lambda pair: len(pair[1]))
    assert len(rows) == rows[-1] - rows[0] + 1
    assert 0.1 < len(rows) / (shape[axis] - 16) < 0.25
    x = 2.0 * np.arange(shape[0])
    before, after = (
        np.average(x, weights=np.take(data, rows, axis=axis).sum(axis=(1, 2)))
        for data in (block.data, result)
    )
    assert abs(after - before) == pytest.approx(strength("line_shift", severity), rel=0.02)


@pytest.mark.parametrize("seed", SEEDS)
def test_susceptibility_is_local_piles_up_signal_and_drops_it(seed: int) -> None:
    data = np.zeros((60, 90, 70), dtype=np.float32)
    data[10:-10, 8:-8, 8:-8] = 100
    volume = Volume(data, np.diag([2.0, 2.0, 2.0, 1.0]))
    result = add_artefact(volume, "susceptibility", 4, seed).data
    np.testing.assert_allclose(result[:, :, 35:], data[:, :, 35:], rtol=1e-5)
    assert result[data > 0].min() < 30
    assert result.max() > 115
    # Displacement moves signal along y, within its column; drop-out takes some of it away.
    sums = result.sum(axis=1) / np.maximum(data.sum(axis=1), 1)
    assert sums.max() < 1.01
    assert 0.3 < sums[10:-10, 8].min() < 0.9
    assert (np.abs(sums[10:-10, 8:-8] - 1) < 1e-4).mean() > 0.5
