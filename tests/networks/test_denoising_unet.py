"""The denoising U-Net: its size, how it is steered, and what it accepts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from atypia.errors import SettingsError
from atypia.networks.denoising_unet import (
    DenoisingUNet,
    ModulatedBlock,
    SelfAttention,
    group_norm,
    sinusoids,
)


def small(context_dim: int | None = 6) -> DenoisingUNet:
    """Make a network that answers something else than zero."""
    torch.manual_seed(0)
    network = DenoisingUNet(base=8, blocks=1, context_dim=context_dim)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize(("context", "count"), [(None, 37_513_857), (512, 44_068_481)])
def test_the_reference_number_of_parameters(context: int | None, count: int) -> None:
    with torch.device("meta"):
        network = DenoisingUNet(context_dim=context)
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_reference_groups_and_heads() -> None:
    with torch.device("meta"):
        network = DenoisingUNet()
    groups = [m.num_groups for m in network.modules() if isinstance(m, nn.GroupNorm)]
    assert set(groups) == {32}
    assert network.attention.heads == 4
    assert sum(isinstance(m, SelfAttention) for m in network.modules()) == 1


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (6, 1), (8, 2), (10, 2), (9, 1), (96, 8), (512, 32)]
)
def test_groups_fit_any_width(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("size", [(16, 16), (17, 22), (5, 1), (1, 3)])
def test_any_slice_is_accepted(size: tuple[int, int]) -> None:
    answer = small()(torch.randn(2, 1, *size), torch.tensor([3, 700]), torch.randn(2, 6))
    assert answer.shape == (2, 1, *size)
    assert torch.isfinite(answer).all()


def test_padding_repeats_the_border() -> None:
    network, noisy = small(None), torch.randn(1, 1, 7, 10)
    padded = functional.pad(noisy, (0, 2, 0, 1), mode="replicate")
    time = torch.tensor([5])
    with torch.no_grad():
        whole = network(padded, time)[..., :7, :10]
        torch.testing.assert_close(network(noisy, time), whole)


def test_the_untrained_network_answers_zero_and_can_learn() -> None:
    torch.manual_seed(0)
    network = DenoisingUNet(base=8, blocks=1, context_dim=4)
    images, times, context = torch.randn(4, 1, 8, 8), torch.arange(4) * 200, torch.randn(4, 4)
    assert not network(images, times, context).any()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(20):
        loss = (network(images, times, context) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5


def test_a_block_scales_and_shifts_what_is_normalised() -> None:
    """Literally: norm(h) * (1 + scale) + shift, with one scale and shift a channel and sample."""
    torch.manual_seed(1)
    block = ModulatedBlock(8, 4, 5).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 8, 6, 6, dtype=torch.float64)
    embedding = torch.randn(3, 5, dtype=torch.float64)
    h = block.first(functional.silu(block.first_norm(x)))
    expected = torch.empty(3, 4, 6, 6, dtype=torch.float64)
    normalised = literal_norm(h, block.second_norm)
    for sample in range(3):
        values = block.modulation.weight @ embedding[sample] + block.modulation.bias
        for channel in range(4):
            scale, shift = values[channel], values[4 + channel]
            expected[sample, channel] = normalised[sample, channel] * (1 + scale) + shift
    expected = block.second(functional.silu(expected)) + block.shortcut(x)
    torch.testing.assert_close(block(x, embedding), expected)


def literal_norm(h: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalise every group of channels of every sample to mean zero and variance one."""
    batch, channels, height, width = h.shape
    groups = h.reshape(batch, norm.num_groups, -1)
    centred = groups - groups.mean(2, keepdim=True)
    groups = centred / torch.sqrt(centred.square().mean(2, keepdim=True) + norm.eps)
    flat = groups.reshape(batch, channels, height, width)
    return flat * norm.weight[:, None, None] + norm.bias[:, None, None]


@pytest.mark.parametrize(("resolution", "size"), [("same", 8), ("half", 4), ("double", 16)])
def test_input_and_features_change_resolution_alike(resolution: str, size: int) -> None:
    block = ModulatedBlock(4, 4, 5, resolution)
    x = torch.randn(2, 4, 8, 8)
    answer = block(x, torch.randn(2, 5))
    assert answer.shape == (2, 4, size, size)
    # The second convolution starts at zero: what is left is the input at the new resolution.
    expected = {
        "same": x,
        "half": x.reshape(2, 4, 4, 2, 4, 2).mean((3, 5)),
        "double": x.repeat_interleave(2, 2).repeat_interleave(2, 3),
    }[resolution]
    torch.testing.assert_close(answer, expected)


def test_attention_is_the_softmax_of_scaled_products() -> None:
    torch.manual_seed(2)
    layer = SelfAttention(8, 4).double()
    assert layer.heads == 2
    nn.init.normal_(layer.out.weight)
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    rows = layer.norm(x).flatten(2).transpose(1, 2)
    queries, keys, values = layer.queries_keys_values(rows).chunk(3, dim=2)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        products = queries[..., part] @ keys[..., part].transpose(1, 2) / math.sqrt(4)
        heads.append(products.softmax(2) @ values[..., part])
    expected = x + layer.out(torch.cat(heads, 2)).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(layer(x), expected)


def test_times_become_waves() -> None:
    waves = sinusoids(torch.tensor([0.0, 7.0]), 6)
    assert waves[0].tolist() == [1, 1, 1, 0, 0, 0]
    frequencies = [1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)]
    expected = [math.cos(7 * f) for f in frequencies] + [math.sin(7 * f) for f in frequencies]
    assert waves[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_time_and_context_both_steer_every_sample_by_itself() -> None:
    network, noisy = small(), torch.randn(1, 1, 8, 8).expand(3, 1, 8, 8)
    times, context = torch.tensor([10, 10, 800]), torch.randn(1, 6).repeat(3, 1)
    context[1] += 1
    with torch.no_grad():
        answer = network(noisy, times, context)
        alone = torch.cat(
            [network(noisy[i : i + 1], times[i : i + 1], context[i : i + 1]) for i in range(3)]
        )
    torch.testing.assert_close(answer, alone, rtol=1e-4, atol=1e-5)
    assert float((answer[0] - answer[1]).abs().max()) > 1e-3
    assert float((answer[0] - answer[2]).abs().max()) > 1e-3


def test_one_embedding_serves_many_samples() -> None:
    network, noisy = small(), torch.randn(4, 1, 8, 8)
    time, context = torch.tensor([498]), torch.randn(1, 6)
    with torch.no_grad():
        expected = network(noisy, time.repeat(4), context.repeat(4, 1))
        once = network.embedding(time, context)
        assert once.shape == (1, 64)
        torch.testing.assert_close(network.forward_with(noisy, once), expected)
        # One time, many contexts.
        torch.testing.assert_close(network(noisy, time, context.repeat(4, 1)), expected)


def test_features_stay_in_channels_last_order() -> None:
    network, orders = small(), []
    for module in network.modules():
        if isinstance(module, (ModulatedBlock, SelfAttention)):
            module.register_forward_hook(
                lambda _m, _i, out: orders.append(
                    out.is_contiguous(memory_format=torch.channels_last)
                )
            )
    network(torch.randn(2, 1, 8, 8), torch.tensor([1, 2]), torch.randn(2, 6))
    assert len(orders) == 16
    assert all(orders)


def test_gradients_reach_every_parameter_and_the_context() -> None:
    network, context = small().train(), torch.randn(2, 6, requires_grad=True)
    network(torch.randn(2, 1, 8, 8), torch.tensor([1, 900]), context).square().mean().backward()
    assert context.grad is not None
    assert context.grad.abs().sum() > 0
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_context_that_does_not_fit_is_an_error() -> None:
    noisy, time = torch.randn(1, 1, 8, 8), torch.tensor([1])
    with pytest.raises(SettingsError, match="context: is missing"):
        small()(noisy, time)
    with pytest.raises(SettingsError, match="network without one"):
        small(None)(noisy, time, torch.randn(1, 6))
    with pytest.raises(SettingsError, match="base: 9 is odd"):
        DenoisingUNet(base=9)
