"""Networks, embeddings and samplers by the described names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atypia.errors import InputError, SettingsError
from atypia.features import cells_of
from atypia.patch_pipeline import (
    BasicBlock3D,
    Bottleneck3D,
    FeatureEmbedding,
    FeatureExtractor3D,
    MultiScaleFeatureEmbedding,
    PatchSampler,
    ResNet3D,
    Simple3DCNN,
    extract_test_features,
    resnet3d_18,
    resnet3d_34,
    resnet3d_50,
)
from atypia.patches import patch_grid
from tests.patch_pipeline.scans import Means


def test_maps_with_and_without_a_batch_axis_are_the_same() -> None:
    extractor = FeatureExtractor3D("simple", feature_dims=[4, 8])
    volume = torch.rand(1, 17, 16, 15)
    one = extractor.extract_features(volume, layers=["layer1", "layer2"])
    bare = extractor.extract_features(volume[0].numpy(), layers=["layer1", "layer2"])
    several = extractor(torch.stack([volume, 2 * volume]))
    wanted = extractor.get_feature_dimensions(volume.shape)
    assert wanted == {"layer1": (4, 9, 8, 8), "layer2": (8, 5, 4, 4)}
    for name, shape in wanted.items():
        assert one[name].shape == shape
        assert torch.equal(one[name], bare[name])
        assert several[name].shape == (2, *shape)
        assert torch.equal(several[name][0], one[name])


@pytest.mark.parametrize(
    ("made", "channels"),
    [
        (resnet3d_18, (64, 128, 256, 512)),
        (resnet3d_34, (64, 128, 256, 512)),
        (resnet3d_50, (256, 512, 1024, 2048)),
    ],
)
def test_residual_networks_have_the_described_widths_and_strides(made, channels) -> None:
    with torch.device("meta"):
        network = made(in_channels=1)
    assert network.channels == channels
    assert network.strides == (4, 8, 16, 32)
    assert network.head.out_features == 1000


def test_a_residual_network_gives_maps_or_classes() -> None:
    network = ResNet3D(BasicBlock3D, [2, 2, 2, 2], in_channels=1, num_classes=3).eval()
    volume = torch.rand(1, 1, 16, 16, 16)
    assert network(volume)["layer2"].shape == (1, 128, 2, 2, 2)
    network.extract_features = False
    assert network(volume).shape == (1, 3)
    with pytest.raises(SettingsError, match="18, 34 or 50"):
        ResNet3D(Bottleneck3D, [1, 1, 1, 1])
    assert BasicBlock3D(4, 8, 2)(torch.rand(2, 4, 8, 8, 8)).shape == (2, 8, 4, 4, 4)
    assert Bottleneck3D(4, 8)(torch.rand(2, 4, 4, 4, 4)).shape == (2, 32, 4, 4, 4)
    assert Simple3DCNN(feature_dims=[4, 8]).eval()(volume).shape == (1, 1)


def test_names_and_channels_that_do_not_fit_are_told() -> None:
    with pytest.raises(SettingsError, match="resnet18"):
        FeatureExtractor3D("resnet81")
    extractor = FeatureExtractor3D(feature_dims=[4, 8])
    with pytest.raises(SettingsError, match="layer2"):
        extractor.extract_features(torch.rand(1, 8, 8, 8), ["layer3"])
    with pytest.raises(InputError, match="in_channels"):
        extractor.extract_features(torch.rand(2, 8, 8, 8))
    with pytest.raises(InputError, match="NaN"):
        extractor.extract_features(torch.full((8, 8, 8), torch.nan))


@pytest.mark.parametrize("model", ["simple", "resnet18"])
def test_stages_that_nothing_reads_are_dropped_without_a_change(model: str) -> None:
    torch.manual_seed(0)
    extractor, volume = FeatureExtractor3D(model), torch.rand(16, 16, 16)
    before = extractor.extract_features(volume, ["layer1", "layer2"])
    extractor.keep(["layer2"])
    assert extractor.layer_names == ("layer1", "layer2")
    after = extractor.extract_features(volume)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_network_of_ones_own() -> None:
    volume = torch.rand(1, 8, 8, 8)
    found = FeatureExtractor3D(Means()).extract_features(volume)["layer1"]
    torch.testing.assert_close(found[0, 1, 2, 3], volume[0, 2:4, 4:6, 6:8].mean())


@pytest.mark.parametrize("strategy", ["uniform", "random", "grid"])
def test_a_sampler_cuts_what_it_says(strategy: str) -> None:
    volume = torch.rand(2, 10, 9, 8)
    sampler = PatchSampler((4, 4, 4), max_patches=7, sampling_strategy=strategy)
    patches, corners = sampler(volume)
    assert 1 <= len(patches) <= 7
    for patch, (x, y, z) in zip(patches, corners.tolist(), strict=True):
        assert torch.equal(patch, volume[:, x : x + 4, y : y + 4, z : z + 4])
    whole, places = PatchSampler(4)(volume)
    assert len(whole) == patch_grid((10, 9, 8), 4).count
    assert (places.max(0).values + 4).tolist() == [10, 9, 8]
    if strategy == "random":
        again, _ = PatchSampler(4, max_patches=7, sampling_strategy="random")(volume)
        assert torch.equal(again, patches)


def test_embeddings_have_the_described_lengths() -> None:
    patches = torch.rand(3, 5, 2, 2, 2)
    flat = FeatureEmbedding(5, (2, 2, 2))
    assert flat.embed_dim == 40
    assert torch.equal(flat(patches), patches.flatten(1))
    for pooling, wanted in (
        ("max", patches.amax((2, 3, 4))),
        ("adaptive", patches.mean((2, 3, 4))),
    ):
        pool = FeatureEmbedding(5, 2, "pool", pooling)
        assert pool.embed_dim == 5
        torch.testing.assert_close(pool(patches), wanted)
    mlp = FeatureEmbedding(5, 2, embedding_method="mlp", output_dim=9)
    assert mlp(patches).shape == (3, mlp.embed_dim) == (3, 9)
    again = FeatureEmbedding(5, 2, embedding_method="mlp", output_dim=9)
    assert torch.equal(again(patches), mlp(patches))
    with pytest.raises(SettingsError, match="flatten"):
        FeatureEmbedding(5, 2, "flat")


@pytest.mark.parametrize("method", ["flatten", "pool", "mlp"])
def test_another_shape_than_declared_is_told_once_and_taken(method: str) -> None:
    embedding = FeatureEmbedding(256, (8, 8, 8), method, output_dim=9)
    with pytest.warns(UserWarning, match=r"\(5, 2, 2, 2\)"):
        first = embedding(torch.rand(3, 5, 2, 2, 2))
    assert len(embedding(torch.rand(2, 5, 2, 2, 2))[0]) == first.shape[1]


def test_layers_are_read_where_the_patch_lies() -> None:
    """With a map of one voxel's resolution the vector is the patch itself."""

    class Same(Means):
        strides, offsets = (1,), (0.0,)

        def features(self, x):
            return (x,)

    volume = torch.rand(1, 12, 11, 10)
    extractor = FeatureExtractor3D(Same())
    vectors, corners, told = extract_test_features(
        volume, extractor, FeatureEmbedding(1, 4), layer_names=["layer1"], device="cpu"
    )
    for vector, (x, y, z) in zip(vectors, corners.tolist(), strict=True):
        wanted = volume[0, x : x + 4, y : y + 4, z : z + 4].flatten()
        torch.testing.assert_close(vector, wanted, atol=1e-5, rtol=0)
    assert told == {
        "layer_shapes": {"layer1": (1, 12, 11, 10)},
        "original_shape": (12, 11, 10),
        "patch_size": (4, 4, 4),
    }


@pytest.mark.parametrize(("fusion", "length"), [("concat", 12), ("sum", 4), ("attention", 8)])
def test_scales_have_one_centre_and_are_fused(fusion: str, length: int) -> None:
    extractor = FeatureExtractor3D(feature_dims=[4, 8])
    configs = [{"embedding_method": "pool"}, {"embedding_method": "pool"}]
    embedding = MultiScaleFeatureEmbedding(extractor, [4, 8], configs, ["layer1", "layer2"], fusion)
    volume = torch.rand(1, 16, 16, 16)
    found = embedding(volume)
    assert found.shape == (7**3, embedding.embed_dim) == (7**3, length)
    if fusion == "concat":
        # The large box of the middle patch is that of a grid of its own.
        grid = patch_grid((16, 16, 16), 8, 2)
        cells = cells_of(extractor.maps(volume)["layer2"], grid).mean((2, 3, 4))
        inner = (np.indices((7, 7, 7)).reshape(3, -1).T % 6 != 0).all(1)
        torch.testing.assert_close(found[inner][:, 4:], cells)


def test_a_configuration_that_disagrees_is_told() -> None:
    extractor = FeatureExtractor3D(feature_dims=[4, 8])
    with pytest.warns(UserWarning, match="layer1 has 4 channels, not 512.*8, 8, 8"):
        MultiScaleFeatureEmbedding(
            extractor, [8], [{"input_channels": 512, "patch_size": (4, 4, 4)}], ["layer1"]
        )
