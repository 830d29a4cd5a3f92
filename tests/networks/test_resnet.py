"""The encoder: its size, its feature maps, hidden cells, and weights that move between encoders."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from atypia.errors import ModelError, SettingsError
from atypia.networks.resnet import (
    STRIDES,
    MaskedBatchNorm,
    ResNetEncoder,
    Visible,
    encoder_weights,
    load_encoder_weights,
)


def chequered() -> Tensor:
    """Give the visible cells of two slices: 3 of 9 and 4 of 9."""
    cells = [[1, 0, 0, 0, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0, 1, 0, 1]]
    return torch.tensor(cells).bool().reshape(2, 1, 3, 3)


@pytest.mark.parametrize(
    ("depth", "count"),
    # What torchvision's networks have, less two input channels, with a head of 512 outputs.
    [(18, 11_432_896), (34, 21_541_056), (50, 24_550_848)],
)
def test_the_reference_number_of_parameters(depth: int, count: int) -> None:
    with torch.device("meta"):
        encoder = ResNetEncoder(depth)
    assert sum(p.numel() for p in encoder.parameters()) == count


@pytest.mark.parametrize(("depth", "channels"), [(18, (4, 8, 16, 32)), (50, (16, 32, 64, 128))])
def test_maps_of_four_scales(depth: int, channels: tuple[int, ...]) -> None:
    encoder = ResNetEncoder(depth, inputs=2, outputs=7, width=4).eval()
    assert encoder.channels == channels
    x = torch.randn(2, 2, 96, 64)
    maps = encoder.features(x)
    expected = [(2, c, 96 // s, 64 // s) for c, s in zip(channels, STRIDES, strict=True)]
    assert [tuple(m.shape) for m in maps] == expected
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)
    vectors = encoder(x)
    assert vectors.shape == (2, 7)
    torch.testing.assert_close(vectors, encoder.head(maps[-1].flatten(2).mean(2)))
    assert encoder(torch.randn(1, 2, 45, 33)).shape == (1, 7)


def test_a_block_is_convolutions_norms_and_a_shortcut() -> None:
    torch.manual_seed(0)
    encoder = ResNetEncoder(50, width=4).eval()
    first, second = encoder.stages[1][0], encoder.stages[1][1]
    x = torch.randn(2, 16, 8, 8)
    (a, b, c), norms = first.convolutions, first.norms
    h = functional.conv2d(x, a.weight)
    h = functional.conv2d(norms[0](h).relu(), b.weight, stride=2, padding=1)
    h = functional.conv2d(norms[1](h).relu(), c.weight)
    side = first.shortcut_norm(functional.conv2d(x, first.shortcut.weight, stride=2))
    expected = (norms[2](h) + side).relu()
    torch.testing.assert_close(first(x), expected)
    assert second.shortcut is None


@pytest.mark.parametrize("training", [True, False])
def test_norm_of_visible_places_only(training: bool) -> None:
    torch.manual_seed(1)
    ours = MaskedBatchNorm(5).double()
    plain = nn.BatchNorm2d(5).double()
    for norm in (ours, plain):
        nn.init.constant_(norm.weight, 1.7)
        nn.init.constant_(norm.bias, -0.4)
        norm.train(training)
    mask = Visible(chequered()).map((6, 6))
    x = torch.randn(2, 5, 6, 6, dtype=torch.float64)
    # Two steps, so that running statistics are followed from where they start and onwards.
    for step in range(2):
        shown = (x + step).requires_grad_()
        gathered = shown.permute(0, 2, 3, 1)[mask[:, 0]]
        expected = plain(gathered[:, :, None, None])[:, :, 0, 0]
        found = ours(shown, Visible(chequered()))
        torch.testing.assert_close(found.permute(0, 2, 3, 1)[mask[:, 0]], expected)
        assert not found[~mask.expand_as(found)].any()
        weights = torch.randn_like(expected)
        (wanted,) = torch.autograd.grad((expected * weights).sum(), shown)
        chosen = found.permute(0, 2, 3, 1)[mask[:, 0]]
        (got,) = torch.autograd.grad((chosen * weights).sum(), shown)
        torch.testing.assert_close(got, wanted)
    assert float(ours.running_mean.abs().sum() > 0) == training
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_norm_by_its_definition() -> None:
    torch.manual_seed(2)
    norm, x = MaskedBatchNorm(3, momentum=0.25).double(), torch.randn(2, 3, 3, 3).double()
    active = chequered()
    values = torch.stack([x[b, :, i, j] for b, _, i, j in active.nonzero().tolist()])
    mean, variance = values.mean(0), values.var(0, unbiased=False)
    found = norm(x, Visible(active))
    b, _, i, j = active.nonzero()[4].tolist()
    torch.testing.assert_close(found[b, :, i, j], (x[b, :, i, j] - mean) / (variance + 1e-5).sqrt())
    torch.testing.assert_close(norm.running_mean, 0.25 * mean)
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * values.var(0, unbiased=True))


@pytest.mark.parametrize("training", [True, False])
def test_with_every_cell_visible_nothing_changes(training: bool) -> None:
    torch.manual_seed(3)
    encoders = [ResNetEncoder(18, width=4).train(training) for _ in range(2)]
    encoders[1].load_state_dict(encoders[0].state_dict())
    x, everything = torch.randn(2, 1, 96, 96), torch.ones(2, 1, 3, 3, dtype=torch.bool)
    for one, other in zip(
        encoders[0].features(x), encoders[1].features(x, everything), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    for name, value in encoders[0].state_dict().items():
        torch.testing.assert_close(
            encoders[1].state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name
        )


@pytest.mark.parametrize("depth", [18, 50])
def test_hidden_cells_are_zero_on_every_map_and_tell_nothing(depth: int) -> None:
    torch.manual_seed(4)
    encoder, active = ResNetEncoder(depth, width=4), chequered()
    x = torch.randn(2, 1, 96, 96)
    pixels = active.repeat_interleave(32, 2).repeat_interleave(32, 3)
    maps = encoder.features(x, active)
    for features, other in zip(
        maps, encoder.features(torch.where(pixels, x, 9.0), active), strict=True
    ):
        factor = features.shape[-1] // 3
        hidden = ~active.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        assert not features[hidden.expand_as(features)].any()
        assert features[~hidden.expand_as(features)].any()
        assert torch.equal(features, other)


def test_cells_smaller_than_the_stride_are_visible_together() -> None:
    cells = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    cells[0, 0, 1, 2] = True
    visible = Visible(cells)
    assert visible.map((2, 2)).flatten().tolist() == [False, True, False, False]
    assert visible.map((8, 8)).sum() == 4
    assert visible.map((8, 8))[0, 0, 2:4, 4:6].all()
    encoder = ResNetEncoder(18, width=4).eval()
    maps = encoder.features(torch.randn(1, 1, 64, 64), cells)
    assert [int(m.any(1).sum()) <= n for m, n in zip(maps, (16, 4, 1, 1), strict=True)] == [
        True
    ] * 4
    assert maps[-1][0, :, 0, 1].any()


def test_weights_move_without_the_head() -> None:
    torch.manual_seed(5)
    source, target = ResNetEncoder(18, width=4), ResNetEncoder(18, outputs=3, width=4)
    source.features(torch.randn(2, 1, 64, 64))  # running statistics move, too
    head = target.head.weight.detach().clone()
    weights = encoder_weights(source)
    assert not any(name.startswith("head") for name in weights)
    load_encoder_weights(target, weights)
    assert torch.equal(target.head.weight, head)
    x = torch.randn(1, 1, 64, 64)
    for one, other in zip(source.eval().features(x), target.eval().features(x), strict=True):
        assert torch.equal(one, other)
    # A copy: training goes on without it.
    nn.init.zeros_(source.stem.weight)
    assert weights["stem.weight"].any()
    # A head of another size in the weights is no obstacle.
    load_encoder_weights(target, source.state_dict())
    assert torch.equal(target.head.weight, head)


def test_weights_that_do_not_fit_are_named_and_change_nothing() -> None:
    encoder = ResNetEncoder(18, width=4)
    weights = encoder_weights(ResNetEncoder(18, width=4))
    del weights["stem_norm.running_var"]
    weights["stages.7.weight"] = torch.zeros(1)
    weights["stem.weight"] = torch.zeros(4, 3, 7, 7)
    before = encoder_weights(encoder)
    with pytest.raises(ModelError) as error:
        load_encoder_weights(encoder, weights, "spark.safetensors")
    assert str(error.value).startswith(
        "spark.safetensors: stem_norm.running_var is missing; stages.7.weight is unexpected; "
        "stem.weight has shape (4, 3, 7, 7) instead of (4, 1, 7, 7). "
    )
    for name, value in encoder_weights(encoder).items():
        assert torch.equal(value, before[name])
    with pytest.raises(ModelError, match="is missing"):
        load_encoder_weights(ResNetEncoder(34, width=4), before)


def test_an_unknown_depth_is_an_error() -> None:
    with pytest.raises(SettingsError, match="depth: 51 is unknown"):
        ResNetEncoder(51)


@pytest.mark.parametrize("stem_stride", [2, 4])
def test_volumes_have_maps_of_every_stride(stem_stride: int) -> None:
    encoder = ResNetEncoder(18, outputs=3, width=4, axes=3, stem_stride=stem_stride).eval()
    x = torch.randn(1, 1, 32, 64, 32)
    with torch.no_grad():
        maps = encoder.features(x)
        assert encoder(x).shape == (1, 3)
    for features, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert features.shape == (1, channels, 32 // stride, 64 // stride, 32 // stride)


def test_a_place_of_a_volume_lies_where_the_encoder_says() -> None:
    """What moves a place's features most is centred on it."""
    torch.manual_seed(0)
    encoder = ResNetEncoder(18, width=8, axes=3, stem_stride=2).double().eval()
    x = torch.randn(1, 1, 33, 33, 33).double().requires_grad_()
    place = 8
    encoder.features(x)[0][0, :, place, place, place].square().sum().backward()
    weight = x.grad[0, 0].abs().sum((1, 2))
    middle = float((weight * torch.arange(33)).sum() / weight.sum())
    assert abs(middle - (encoder.offsets[0] + encoder.strides[0] * place)) < 0.6


def test_hidden_cells_of_volumes_tell_nothing() -> None:
    torch.manual_seed(6)
    encoder = ResNetEncoder(18, width=4, axes=3, stem_stride=2).train()
    active = torch.rand(2, 1, 2, 2, 2) < 0.5
    active[:, :, 0, 0, 0], active[:, :, 1, 1, 1] = True, False
    voxels = active
    for axis in (2, 3, 4):
        voxels = voxels.repeat_interleave(16, axis)
    x = torch.randn(2, 1, 32, 32, 32)
    shown = encoder.features(x, active)
    for features, other in zip(
        shown, encoder.features(torch.where(voxels, x, 9.0), active), strict=True
    ):
        assert torch.equal(features, other)
        assert features.any()
        hidden = ~Visible(active).map(features.shape[2:])
        assert not features[hidden.expand_as(features)].any()
