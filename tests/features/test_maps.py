import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.features.maps import FeatureMap, cells_in, cells_of, network_maps, pooled
from atypia.networks.cnn3d import SimpleCNN
from atypia.networks.resnet import ResNetEncoder
from atypia.patches import patch_grid


def literal_read(found: FeatureMap, voxel: np.ndarray) -> np.ndarray:
    """Interpolate linearly at one position in voxels, constant beyond the outermost places."""
    values = found.values.double().numpy()
    index = [(v - o) / s for v, o, s in zip(voxel, found.offsets, found.strides, strict=True)]
    index = [min(max(i, 0), n - 1) for i, n in zip(index, values.shape[1:], strict=True)]
    answer = np.zeros(len(values))
    for corner in np.ndindex(2, 2, 2):
        weight, place = 1.0, []
        for i, side, n in zip(index, corner, values.shape[1:], strict=True):
            below = int(np.floor(i))
            weight *= (i - below) if side else 1 - (i - below)
            place.append(min(below + side, n - 1))
        answer += weight * values[:, place[0], place[1], place[2]]
    return answer


def literal_cells(found: FeatureMap, grid) -> np.ndarray:
    cells = cells_in(grid.size, found.strides)
    answer = []
    for corner in grid.corners():
        patch = np.zeros((len(found.values), *cells))
        for cell in np.ndindex(*cells):
            voxel = [
                first + (c + 0.5) * size / n - 0.5
                for first, c, size, n in zip(corner, cell, grid.size, cells, strict=True)
            ]
            patch[(slice(None), *cell)] = literal_read(found, np.array(voxel))
        answer.append(patch)
    return np.stack(answer)


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(*[st.integers(4, 9)] * 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([1.0, 2.0, 3.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_patches_are_read_where_they_lie(shape, size, stride, step, offset) -> None:
    sizes = tuple(max(1, int(np.ceil(n / step))) for n in shape)
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(2, *sizes)))
    found = FeatureMap(values, (step,) * 3, (offset,) * 3)
    grid = patch_grid(shape, size, stride)
    expected = literal_cells(found, grid)
    read = cells_of(found, grid)
    np.testing.assert_allclose(read.numpy(), expected, atol=1e-9)
    means = expected.reshape(*expected.shape[:2], -1).mean(2)
    np.testing.assert_allclose(pooled(found, grid).numpy(), means, atol=1e-9)
    some = np.arange(grid.count)[::3]
    np.testing.assert_allclose(cells_of(found, grid, some).numpy(), expected[some], atol=1e-9)


def test_at_full_resolution_a_patch_is_a_patch() -> None:
    volume = torch.randn(1, 7, 8, 6)
    grid = patch_grid((7, 8, 6), 3, 2)
    read = cells_of(FeatureMap(volume), grid)
    for patch, box in zip(read, grid.boxes(), strict=True):
        torch.testing.assert_close(patch[0], volume[(0, *box)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "network",
    [
        SimpleCNN((4, 6, 8)),
        ResNetEncoder(18, outputs=1, width=4, axes=3, stem_stride=2),
        ResNetEncoder(18, outputs=1, width=4),
    ],
    ids=["simple", "resnet", "slices"],
)
def test_maps_cover_the_scan(network) -> None:
    shape = (21, 18, 13)
    maps = network_maps(network, torch.randn(1, *shape), (0, 1))
    for found, channels in zip(maps, network.channels, strict=False):
        assert len(found.values) == channels
        for size, places, stride in zip(shape, found.values.shape[1:], found.strides, strict=True):
            assert places == -(-size // int(stride))


def test_slices_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    network = ResNetEncoder(18, outputs=1, width=4).eval()
    volume = torch.randn(1, 32, 32, 5)
    (before,) = network_maps(network, volume, (0,))
    volume[..., 2] += 1
    (after,) = network_maps(network, volume, (0,))
    changed = (before.values - after.values).abs().sum((0, 1, 2)) > 1e-6
    assert changed.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("where", [(9, 20, 12), (16, 7, 23)])
@pytest.mark.parametrize(
    "make",
    [
        lambda: SimpleCNN((8,)),
        lambda: ResNetEncoder(18, outputs=1, width=8, axes=3, stem_stride=2),
    ],
    ids=["simple", "resnet"],
)
def test_a_bright_voxel_is_felt_in_the_patches_round_it(make, where) -> None:
    """The reference painted features of a coarse map into the corner of the scan."""
    torch.manual_seed(0)
    network = make()
    volume = torch.zeros(1, 32, 32, 32)
    grid = patch_grid((32, 32, 32), 4, 2)
    (before,) = network_maps(network, volume, (0,))
    volume[(0, *where)] = 5
    (after,) = network_maps(network, volume, (0,))
    change = (pooled(after, grid) - pooled(before, grid)).square().sum(1).numpy()
    middle = (change[:, None] * grid.centres()).sum(0) / change.sum()
    assert np.abs(middle - where).max() < 1.5
