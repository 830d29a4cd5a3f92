"""From patches back to voxels, against loops over voxels; where the peak of a score map lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.errors import InputError, SettingsError
from atypia.patches import (
    Assembler,
    PatchGrid,
    Triple,
    assemble,
    chunks,
    extract,
    interpolated_scores,
    padded,
    patch_grid,
    scaled,
    spread_scores,
)
from atypia.patches.windows import window
from benchmarks import timing
from tests.oracles.patches import (
    literal_boxes,
    literal_interpolation,
    literal_scores,
    literal_window,
)

BLENDINGS = ["uniform", "hann", "gaussian"]
triples = st.tuples(*(st.integers(1, 5) for _ in range(3)))
seeds = st.integers(0, 2**32 - 1)


@given(triples, triples, triples, st.sampled_from([None, "zeros", "reflect"]), st.data())
def test_assembling_gives_the_volume_back(
    size: Triple, more: Triple, stride: Triple, padding: str | None, data: st.DataObject
) -> None:
    shape = (size[0] + more[0] - 1, size[1] + more[1] - 1, size[2] + more[2] - 1)
    border = data.draw(st.sampled_from(["drop", "complete"]))
    blending = data.draw(st.sampled_from(BLENDINGS))
    torch.manual_seed(data.draw(seeds))
    volume = torch.rand(2, *shape, dtype=torch.float64) + 1
    if padding and all(n // 2 < length for n, length in zip(size, shape, strict=True)):
        volume = padded(volume, size, padding)  # type: ignore[arg-type]
    grid = patch_grid(tuple(volume.shape[1:]), size, stride, border)  # type: ignore[arg-type]
    back = assemble(extract(volume, grid), grid, blending)
    times = torch.zeros(grid.shape, dtype=torch.float64)
    for box in grid.boxes():
        times[box] += 1
    exact = 1e-14 if blending == "uniform" else 1e-6
    torch.testing.assert_close(back, torch.where(times > 0, volume, 0), rtol=exact, atol=0)
    if border == "complete" and all(s <= n for s, n in zip(stride, size, strict=True)):
        assert (times > 0).all()
    summed = assemble(extract(volume, grid), grid, aggregation="sum")
    torch.testing.assert_close(summed, volume * times, rtol=1e-14, atol=0)


@pytest.mark.parametrize("blending", BLENDINGS)
def test_unequal_patches_are_blended_as_a_loop_does(blending: str) -> None:
    torch.manual_seed(0)
    grid = patch_grid((9, 7, 8), (4, 3, 5), (2, 3, 2))
    numbers = np.random.default_rng(0).permutation(grid.count)[: grid.count // 3]
    patches = torch.randn(len(numbers), 3, *grid.size)
    sums, total = np.zeros((3, *grid.shape)), np.zeros(grid.shape)
    weight = literal_window(grid.size, blending)
    for number, patch in zip(numbers, patches.double().numpy(), strict=True):
        box = grid.boxes()[number]
        sums[:, *box] += weight * patch
        total[box] += weight
    assert (total == 0).any()
    mean = np.where(total > 0, sums / np.where(total > 0, total, 1), 0)
    found = assemble(patches, grid, blending, numbers=numbers)  # type: ignore[arg-type]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-5)
    found = assemble(patches, grid, blending, "sum", numbers)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, sums, rtol=1e-5, atol=1e-5)


def test_chunks_assemble_like_all_at_once_and_results_can_be_taken_between() -> None:
    volume = torch.rand(2, 12, 11, 10)
    grid = patch_grid((12, 11, 10), 4, 3)
    assembler = Assembler(grid, "hann")
    with pytest.raises(InputError, match="none were added"):
        assembler.result()
    for numbers, patches in chunks(volume, grid, 0.01):
        assembler.add(numbers, patches)
        first = assembler.result()
        assert torch.allclose(first[first > 0], volume[first > 0])
    torch.testing.assert_close(assembler.result(), assemble(extract(volume, grid), grid, "hann"))


def test_a_patch_that_is_added_twice_counts_twice() -> None:
    grid = patch_grid((3, 2, 2), 2, 1)
    patches = torch.tensor([0.0, 0.0, 6.0]).view(3, 1, 1, 1, 1).expand(3, 1, 2, 2, 2)
    found = assemble(patches, grid, numbers=[0, 0, 1])
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([0.0, 2.0, 6.0]))


def test_half_precision_and_whole_numbers_are_summed_in_float32() -> None:
    grid = patch_grid((6, 6, 6), 4, 1)
    for dtype in (torch.bfloat16, torch.int16):
        volume = torch.full((1, 6, 6, 6), 3).to(dtype)
        back = assemble(extract(volume, grid), grid)
        assert back.dtype == torch.float32
        assert (back == 3).all()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux measures the peak")
def test_memory_of_assembling_in_chunks_is_that_of_the_volume() -> None:
    bound = 2.0
    volume = torch.rand(1, 128, 128, 128)
    grid = patch_grid((128, 128, 128), 8, 4)
    size = volume.nbytes / 2**20
    assemble(extract(volume[:, :16, :16, :16], patch_grid((16,) * 3, 8)), patch_grid((16,) * 3, 8))
    before = timing.forget_peak()
    assembler = Assembler(grid)
    for numbers, patches in chunks(volume, grid, bound):
        assembler.add(numbers, patches)
    back = assembler.result()
    grown = timing.memory_mb("VmHWM") - before
    assert torch.allclose(back, volume)
    # Sums, weights and the mean are three volumes; all patches would be eight more.
    assert grown < 5 * size


def test_patches_refused() -> None:
    grid = patch_grid((4, 4, 4), 2)
    assembler = Assembler(grid)
    assembler.add([0], torch.zeros(1, 2, 2, 2, 2))
    for numbers, shape in (
        ([0, 1], (1, 2, 2, 2, 2)),
        ([0], (1, 2, 2, 2, 3)),
        ([0], (2, 2, 2, 2)),
        ([0], (1, 1, 2, 2, 2)),
    ):
        with pytest.raises(InputError, match="patches"):
            assembler.add(numbers, torch.zeros(shape))
    with pytest.raises(SettingsError, match="reach from 27"):
        assembler.add([27], torch.zeros(1, 2, 2, 2, 2))
    with pytest.raises(SettingsError, match="aggregation 'median'"):
        Assembler(grid, aggregation="median")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="blending 'hamm'"):
        Assembler(grid, "hamm")  # type: ignore[arg-type]


@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize("size", [1, 2, 5, 8, 33])
def test_windows_are_symmetric_and_never_zero(blending: str, size: int) -> None:
    weight = window(size, blending)  # type: ignore[arg-type]
    assert (weight > 1e-4).all()
    assert weight.max() <= 1
    np.testing.assert_allclose(weight, weight[::-1], rtol=1e-9)
    np.testing.assert_allclose(weight, literal_window((size, 1, 1), blending)[:, 0, 0], rtol=1e-9)


@given(triples, triples, triples, st.sampled_from(["mean", "max", "min"]), st.data())
@settings(max_examples=40)
def test_spread_scores_equal_a_loop_over_voxels(
    size: Triple, more: Triple, stride: Triple, aggregation: str, data: st.DataObject
) -> None:
    shape = (size[0] + more[0] - 1, size[1] + more[1] - 1, size[2] + more[2] - 1)
    grid = patch_grid(shape, size, stride, data.draw(st.sampled_from(["drop", "complete"])))
    blending = data.draw(st.sampled_from(BLENDINGS))
    rng = np.random.default_rng(data.draw(seeds))
    scores = rng.normal(size=grid.counts).astype(np.float32)
    scores[rng.random(grid.counts) < data.draw(st.sampled_from([0, 0.5, 1]))] = np.nan
    boxes = literal_boxes(grid.starts, size)
    literal = literal_scores(scores, boxes, shape, aggregation, literal_window(size, blending))
    found = spread_scores(scores, grid, aggregation, blending)  # type: ignore[arg-type]
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, literal, rtol=1e-5, atol=1e-5)
    flat = spread_scores(scores.ravel(), grid, aggregation, blending)  # type: ignore[arg-type]
    assert np.array_equal(found, flat)


@given(triples, triples, triples, seeds, st.sampled_from([0, 0.4, 1]))
@settings(max_examples=40)
def test_interpolated_scores_equal_a_loop_over_voxels(
    size: Triple, more: Triple, stride: Triple, seed: int, missing: float
) -> None:
    shape = (size[0] + more[0] - 1, size[1] + more[1] - 1, size[2] + more[2] - 1)
    grid = patch_grid(shape, size, stride)
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=grid.counts).astype(np.float32)
    scores[rng.random(grid.counts) < missing] = np.nan
    centres = [np.array(s) + (n - 1) / 2 for s, n in zip(grid.starts, size, strict=True)]
    literal = literal_interpolation(scores, centres, shape)
    np.testing.assert_allclose(interpolated_scores(scores, grid), literal, rtol=1e-4, atol=1e-5)


def test_interpolation_is_exact_for_a_slope() -> None:
    grid = patch_grid((20, 17, 15), (5, 3, 5), (4, 3, 2))
    slope = grid.centres() @ [1.0, -2.0, 0.5]
    found = interpolated_scores(slope, grid)
    x, y, z = np.indices(grid.shape)
    inside = (slice(2, 18), slice(1, 16), slice(2, 13))
    np.testing.assert_allclose(found[inside], (x - 2.0 * y + 0.5 * z)[inside], atol=1e-5)


@given(seeds, st.sampled_from([3, 4]), st.sampled_from([1, 2, 3]), st.sampled_from([1, 4]))
@settings(max_examples=30)
def test_the_peak_lies_at_the_patch_that_stands_out(
    seed: int, size: int, stride: int, factor: int
) -> None:
    rng = np.random.default_rng(seed)
    cells = patch_grid((12, 11, 10), size, stride, "drop")
    grid = scaled(cells, (factor,) * 3, (12 * factor, 11 * factor, 10 * factor))
    scores = np.full(grid.counts, 0.1)
    place = tuple(int(rng.integers(1, n - 1)) for n in grid.counts)
    scores[place] = 1
    centre = grid.centres()[np.ravel_multi_index(place, grid.counts)]
    found = interpolated_scores(scores, grid)
    peak = np.unravel_index(found.argmax(), found.shape)
    assert np.abs(peak - centre).max() <= 0.5
    box = grid.boxes()[int(np.ravel_multi_index(place, grid.counts))]
    for aggregation in ("mean", "max"):
        spread = spread_scores(scores, grid, aggregation, "hann")  # type: ignore[arg-type]
        at = np.unravel_index(spread.argmax(), spread.shape)
        assert all(part.start <= v < part.stop for part, v in zip(box, at, strict=True))


def test_patches_at_one_place_share_it() -> None:
    grid = PatchGrid((6, 2, 2), (2, 2, 2), ((0, 4, 4), (0,), (0,)))
    scores = np.array([0.0, 1.0, 3.0])
    assert np.allclose(interpolated_scores(scores, grid)[:, 0, 0], [0, 0.25, 0.75, 1.25, 1.75, 2])
    assert np.allclose(spread_scores(scores, grid)[:, 0, 0], [0, 0, 0, 0, 2, 2])


def test_scores_refused() -> None:
    grid = patch_grid((4, 4, 4), 2)
    with pytest.raises(InputError, match=r"\(3, 3, 2\)"):
        spread_scores(np.zeros((3, 3, 2)), grid)
    with pytest.raises(InputError, match="infinite"):
        interpolated_scores(np.full(27, np.inf), grid)
    with pytest.raises(SettingsError, match="aggregation 'median'"):
        spread_scores(np.zeros(27), grid, "median")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="blending 'box'"):
        spread_scores(np.zeros(27), grid, blending="box")  # type: ignore[arg-type]


def test_the_benchmark_compares_equal_maps() -> None:
    from benchmarks.patch_score_map import WAYS, volume

    threads = torch.get_num_threads()
    try:
        maps = {way: make()(volume(20)) for way, make in WAYS.items()}
    finally:
        torch.set_num_threads(threads)
    literal = maps["literal"]
    assert np.ptp(literal) > 0.1 * literal.mean() > 0
    for found in maps.values():
        np.testing.assert_allclose(found, literal, rtol=1e-5)
