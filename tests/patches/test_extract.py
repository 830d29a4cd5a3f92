"""From volume to patches: padding, cutting out, bounded memory, shares of a mask, sampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atypia.errors import InputError, SettingsError
from atypia.patches import Triple, chunks, extract, mean_inside, padded, patch_grid, sample
from benchmarks import timing

triples = st.tuples(*(st.integers(1, 5) for _ in range(3)))
TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int16, torch.bool]


@given(triples, triples, triples, st.integers(1, 3), st.data())
def test_patches_are_slices_of_the_volume(
    size: Triple, more: Triple, stride: Triple, channels: int, data: st.DataObject
) -> None:
    shape = (size[0] + more[0] - 1, size[1] + more[1] - 1, size[2] + more[2] - 1)
    grid = patch_grid(shape, size, stride)
    dtype = data.draw(st.sampled_from(TYPES))
    volume = (torch.arange(channels * int(np.prod(shape))) % 100).to(dtype).view(channels, *shape)
    numbers = data.draw(st.lists(st.integers(0, grid.count - 1), max_size=6))
    boxes = grid.boxes()
    for wanted, given_numbers in ((range(grid.count), None), (numbers, numbers)):
        patches = extract(volume, grid, given_numbers)
        assert patches.dtype == dtype
        assert patches.shape == (len(wanted), channels, *size)
        for number, patch in zip(wanted, patches, strict=True):
            assert torch.equal(patch, volume[:, *boxes[number]])


def test_any_layout_and_gradients() -> None:
    turned = torch.rand(5, 6, 7, 2).permute(3, 2, 0, 1)
    grid = patch_grid((7, 5, 6), (3, 2, 4), 2)
    plain = extract(turned, grid)
    for box, patch in zip(grid.boxes(), plain, strict=True):
        assert torch.equal(patch, turned[:, *box])
    learnt = turned.clone().requires_grad_()
    cut = extract(learnt, grid, torch.tensor([3, 0, 3]))
    assert torch.equal(cut.detach(), plain[[3, 0, 3]])
    cut.sum().backward()
    times = torch.zeros_like(turned)
    for number in (3, 0, 3):
        times[:, *grid.boxes()[number]] += 1
    assert learnt.grad is not None
    assert torch.equal(learnt.grad, times)
    assert plain.data_ptr() != turned.data_ptr()


def test_refused() -> None:
    grid = patch_grid((4, 4, 4), 2)
    volume = torch.zeros(1, 4, 4, 4)
    with pytest.raises(InputError, match=r"\(1, 4, 4, 5\) is not \(C, 4, 4, 4\)"):
        extract(torch.zeros(1, 4, 4, 5), grid)
    with pytest.raises(InputError, match="volume"):
        extract(volume[0], grid)
    with pytest.raises(SettingsError, match="reach from 0 to 27"):
        extract(volume, grid, [0, 27])
    with pytest.raises(SettingsError, match="reach from -1"):
        extract(volume, grid, [-1])
    with pytest.raises(SettingsError, match="flatnonzero"):
        extract(volume, grid, np.ones(grid.count, bool))
    with pytest.raises(SettingsError, match="megabytes 0"):
        next(chunks(volume, grid, 0))


def test_padding_adds_half_a_patch() -> None:
    volume = torch.rand(2, 4, 5, 6)
    zeros = padded(volume, (2, 3, 5))
    assert zeros.shape == (2, 6, 7, 10)
    assert torch.equal(zeros[:, 1:5, 1:6, 2:8], volume)
    assert zeros.sum() == pytest.approx(volume.sum().item())
    mirrored = padded(volume, 3, "reflect")
    assert np.array_equal(mirrored, np.pad(volume, [(0, 0), *[(1, 1)] * 3], mode="reflect"))
    with pytest.raises(SettingsError, match="too small to mirror"):
        padded(volume, 8, "reflect")
    with pytest.raises(SettingsError, match="padding 'wrap'"):
        padded(volume, 2, "wrap")  # type: ignore[arg-type]


def test_chunks_are_all_patches_in_order() -> None:
    volume = torch.rand(2, 9, 8, 7)
    grid = patch_grid((9, 8, 7), 3)
    numbers = np.arange(0, grid.count, 3)
    parts = list(chunks(volume, grid, 1e-2, numbers))
    assert len(parts) > 2
    assert np.array_equal(np.concatenate([found for found, _ in parts]), numbers)
    assert torch.equal(torch.cat([patches for _, patches in parts]), extract(volume, grid, numbers))
    # One patch is cut even where it is larger than the memory allows.
    assert all(len(found) == 1 for found, _ in chunks(volume, grid, 1e-9, numbers))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux measures the peak")
def test_memory_stays_within_the_bound() -> None:
    bound = 6.0
    volume = torch.rand(1, 184, 184, 184)  # four times the bound, and eight times that in patches
    grid = patch_grid((184, 184, 184), 8, 4)
    assert volume.nbytes / 2**20 > 3.9 * bound
    list(chunks(volume, grid, bound, [0]))
    before = timing.forget_peak()
    total = 0
    for numbers, patches in chunks(volume, grid, bound):
        assert patches.nbytes <= bound / 2 * 2**20
        total += len(numbers)
    grown = timing.memory_mb("VmHWM") - before
    assert total == grid.count
    assert grown < 3 * bound


@given(triples, triples, triples, st.integers(0, 2**32 - 1))
def test_share_of_a_mask(size: Triple, more: Triple, stride: Triple, seed: int) -> None:
    shape = (size[0] + more[0] - 1, size[1] + more[1] - 1, size[2] + more[2] - 1)
    mask = np.random.default_rng(seed).random(shape) < 0.4
    grid = patch_grid(shape, size, stride)
    found = mean_inside(mask, grid)
    assert found.shape == grid.counts
    assert np.allclose(found.ravel(), [mask[box].mean() for box in grid.boxes()], atol=1e-12)


def test_shares_of_nothing_and_everything_are_exact() -> None:
    grid = patch_grid((20, 20, 20), 7, 3)
    assert (mean_inside(np.ones(grid.shape), grid) == 1).all()
    assert (mean_inside(np.zeros(grid.shape), grid) == 0).all()
    with pytest.raises(InputError, match="mask"):
        mean_inside(np.ones((20, 20, 19)), grid)


GRID = patch_grid((16, 16, 16), 4)  # 343 patches


@given(st.integers(1, 400), st.sampled_from(["uniform", "random", "grid"]), st.integers(0, 99))
def test_samples_are_allowed_and_distinct(count: int, strategy: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    allowed = rng.random(GRID.counts) < rng.random()
    chosen = sample(GRID, count, strategy, rng, allowed)  # type: ignore[arg-type]
    assert chosen.dtype == np.int64
    assert allowed.ravel()[chosen].all()
    assert len(set(chosen.tolist())) == len(chosen)
    open_ones = int(allowed.sum())
    if strategy == "grid":
        step = next(k for k in range(1, 500) if len(range(0, open_ones, k)) <= count)
        assert np.array_equal(chosen, np.flatnonzero(allowed)[::step])
    else:
        assert len(chosen) == min(count, open_ones)
    if strategy == "uniform" and 1 < len(chosen) < open_ones:
        places = np.searchsorted(np.flatnonzero(allowed), chosen)
        assert np.ptp(np.diff(places)) <= 1
        # As much is left before the first as behind the last.
        assert abs(places[0] - (open_ones - 1 - places[-1])) <= 1


def test_random_samples_follow_their_generator() -> None:
    first, again, other = (
        sample(GRID, 30, "random", np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    every = sample(GRID, GRID.count, "random", np.random.default_rng(1))
    assert np.array_equal(np.sort(every), np.arange(GRID.count))


def test_samples_refused() -> None:
    with pytest.raises(SettingsError, match="generator"):
        sample(GRID, 3, "random")
    with pytest.raises(SettingsError, match="count 0"):
        sample(GRID, 0)
    with pytest.raises(SettingsError, match="strategy 'evenly'"):
        sample(GRID, 3, "evenly")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="7 values for 343"):
        sample(GRID, 3, allowed=np.ones(7))
