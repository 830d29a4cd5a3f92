"""Masked pre-training: what is hidden, what is compared, and that nothing leaks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from atypia.errors import InputError, SettingsError
from atypia.networks.resnet import ResNetEncoder, encoder_weights, load_encoder_weights
from atypia.networks.spark import SparK, random_active


def small(cell: int = 32, depth: int = 18, **options: float) -> SparK:
    torch.manual_seed(0)
    return SparK(ResNetEncoder(depth, outputs=5, width=4), cell, **options)


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pixels(active: Tensor, cell: int) -> Tensor:
    return active.repeat_interleave(cell, 2).repeat_interleave(cell, 3)


def test_three_of_nine_cells_are_visible() -> None:
    active = random_active(400, (3, 3), 0.65, chance())
    assert active.shape == (400, 1, 3, 3)
    assert active.dtype == torch.bool
    assert active.sum((1, 2, 3)).tolist() == [3] * 400
    # Every cell has its turn: 133 on average, with a standard deviation of 9.4.
    turns = active.sum((0, 1))
    assert int(turns.min()) > 100
    assert int(turns.max()) < 170
    assert torch.equal(active, random_active(400, (3, 3), 0.65, chance()))
    assert random_active(1, (6, 6), 0.65).sum() == 13


@pytest.mark.parametrize(("grid", "ratio"), [((3, 3), 0.97), ((3, 3), 0.02), ((1, 1), 0.65)])
def test_something_is_visible_and_something_hidden(grid: tuple[int, int], ratio: float) -> None:
    with pytest.raises(SettingsError, match="ratio"):
        random_active(2, grid, ratio)


@pytest.mark.parametrize(("cell", "depth"), [(32, 50), (16, 18), (8, 18)])
@pytest.mark.parametrize("training", [True, False])
def test_hidden_pixels_have_no_influence(cell: int, depth: int, training: bool) -> None:
    model = small(cell, depth).train(training)
    x = torch.randn(2, 1, 96, 64)
    grid = model.grid((96, 64))
    assert grid == (96 // cell, 64 // cell)
    active = random_active(2, grid, 0.65, chance())
    answer = model(x, active)
    assert answer.shape == x.shape
    shown = pixels(active, cell)
    assert torch.equal(answer, model(torch.where(shown, x, 50.0), active))
    # Visible pixels do have influence.
    assert not torch.equal(answer, model(torch.where(shown, x + 1, x), active))


def test_the_reference_decoder() -> None:
    with torch.device("meta"):
        model = SparK(ResNetEncoder(50))
    fills = [(f.convolution.in_channels, f.convolution.out_channels) for f in model.fills]
    assert fills == [(2048, 512), (1024, 256), (512, 128), (256, 64)]
    assert [f.convolution.kernel_size for f in model.fills] == [(1, 1), (3, 3), (3, 3), (3, 3)]
    widths = [(s[0].in_channels, s[0].out_channels, s[4].out_channels) for s in model.stages]
    assert widths == [
        (512, 512, 256),
        (256, 256, 128),
        (128, 128, 64),
        (64, 64, 32),
        (32, 32, 16),
    ]
    assert all(s[0].kernel_size == (4, 4) and s[0].stride == (2, 2) for s in model.stages)
    assert (model.last.in_channels, model.last.out_channels) == (16, 1)


def test_painting_step_by_step() -> None:
    """Normalise what is visible, fill in tokens, convolve, double, add the next finer map."""
    model = small().eval()
    for fill in model.fills:
        nn.init.uniform_(fill.norm.running_mean, -1, 1)
        nn.init.normal_(fill.token)
    x, active = torch.randn(2, 1, 64, 64), random_active(2, (2, 2), 0.5, chance())
    maps = model.encoder.features(x, active)
    dense = []
    for fill, features in zip(model.fills, reversed(maps), strict=True):
        shown = pixels(active, features.shape[-1] // 2).expand_as(features)
        n = fill.norm
        filled = functional.batch_norm(features, n.running_mean, n.running_var, n.weight, n.bias)
        filled = torch.where(shown, filled, fill.token.expand_as(features))
        dense.append(fill.convolution(filled))
    h = model.stages[0](dense[0])
    for stage, more in zip(model.stages[1:4], dense[1:], strict=True):
        h = stage(h + more)
    expected = model.last(model.stages[4](h))
    torch.testing.assert_close(model(x, active), expected, rtol=1e-4, atol=1e-5)


def test_maps_are_normalised_by_what_is_visible() -> None:
    model = small().train()
    x, active = torch.randn(2, 1, 64, 64), random_active(2, (2, 2), 0.5, chance())
    maps = model.encoder.features(x, active)
    model(x, active)
    for fill, features in zip(model.fills, reversed(maps), strict=True):
        shown = pixels(active, features.shape[-1] // 2)[:, 0]
        mean = features.permute(0, 2, 3, 1)[shown].mean(0)
        torch.testing.assert_close(fill.norm.running_mean, 0.1 * mean, rtol=1e-4, atol=1e-5)


def test_loss_is_the_squared_error_of_hidden_cells() -> None:
    model = small().eval()
    x, active = torch.randn(2, 1, 96, 96), random_active(2, (3, 3), 0.65, chance())
    painted = model(x, active)
    hidden = ~pixels(active, 32)
    expected = (painted - x)[hidden].square().mean()
    torch.testing.assert_close(model.loss(x, active), expected)
    # What is painted over visible cells does not count, in value and in gradient.
    other = torch.where(hidden, painted, float("nan")).detach().requires_grad_()
    error = model.error(other, x, active)
    torch.testing.assert_close(error, expected)
    (gradient,) = torch.autograd.grad(error, other)
    assert gradient[hidden].all()


def test_loss_everywhere_is_the_absolute_error_and_more_of_it_where_hidden() -> None:
    model = small(everywhere=True, hidden_weight=0.25).eval()
    x, active = torch.randn(2, 1, 96, 96), random_active(2, (3, 3), 0.65, chance())
    errors = (model(x, active) - x).abs()
    expected = errors.mean() + 0.25 * errors[~pixels(active, 32)].mean()
    torch.testing.assert_close(model.loss(x, active), expected)


@pytest.mark.parametrize("cell", [32, 8])
def test_gradients_reach_all_but_the_head(cell: int) -> None:
    model = small(cell).train()
    x = torch.randn(4, 1, 64, 64)
    model.loss(x, random_active(4, model.grid((64, 64)), 0.65, chance())).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.head"):
            assert parameter.grad is None
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert model.encoder.stem.weight.grad.abs().sum() > 0
    assert model.encoder.stages[3][1].convolutions[1].weight.grad.abs().sum() > 0


def test_it_learns_and_its_encoder_can_be_taken_out() -> None:
    model = small().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x = 3 + torch.randn(4, 1, 1, 1).expand(4, 1, 64, 64)
    losses = []
    for _ in range(15):
        loss = model.loss(x, random_active(4, (2, 2), 0.5, chance()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    fresh = ResNetEncoder(18, outputs=2, width=4)
    load_encoder_weights(fresh, encoder_weights(model.encoder))
    for one, other in zip(fresh.eval().features(x), model.encoder.eval().features(x), strict=True):
        assert torch.equal(one, other)


def test_sizes_that_do_not_fit_are_errors() -> None:
    model, active = small(), random_active(1, (3, 3), 0.65)
    with pytest.raises(InputError, match="100x96 places"):
        model(torch.randn(1, 1, 100, 96), active)
    with pytest.raises(InputError, match=r"shape \(1, 1, 3, 3\) instead of \(1, 1, 2, 3\)"):
        model(torch.randn(1, 1, 64, 96), active)
    with pytest.raises(SettingsError, match="cell: 12 is no stride"):
        small(12)


@pytest.mark.parametrize("stem_stride", [2, 4])
def test_volumes_are_painted_from_what_is_visible(stem_stride: int) -> None:
    torch.manual_seed(0)
    encoder = ResNetEncoder(18, width=4, axes=3, stem_stride=stem_stride)
    model = SparK(encoder, cell=8).train()
    x = torch.randn(2, 1, 32, 32, 64)
    assert model.grid(x.shape[2:]) == (4, 4, 8)
    active = random_active(2, (4, 4, 8), 0.65, chance())
    voxels = active
    for axis in (2, 3, 4):
        voxels = voxels.repeat_interleave(8, axis)
    answer = model(x, active)
    assert answer.shape == x.shape
    assert torch.equal(answer, model(torch.where(voxels, x, 50.0), active))
    hidden = ~voxels
    expected = (answer - x).square()[hidden].mean()
    torch.testing.assert_close(model.error(answer, x, active), expected)
