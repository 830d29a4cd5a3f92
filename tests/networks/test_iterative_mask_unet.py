"""The reference's network: its parameters, its answers, and the same answers when folded."""

from __future__ import annotations

import pytest
import torch

from atypia.networks.iterative_mask_unet import FoldedUNet, IterativeMaskUNet
from tests.oracles.itermask3d import LiteralUNet


def used(channels: tuple[int, ...] = (4, 6, 8)) -> IterativeMaskUNet:
    """Make a small network whose normalisation has seen some data."""
    torch.manual_seed(0)
    network = IterativeMaskUNet(2, 1, channels).train()
    with torch.no_grad():
        for _ in range(3):
            network(1 + torch.randn(2, 2, 16, 16, 16))
    return network.eval()


def test_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = IterativeMaskUNet()
    assert sum(p.numel() for p in network.parameters()) == 8_902_626


def test_it_is_the_published_network() -> None:
    network = used()
    literal = LiteralUNet(2, (4, 6, 8)).take(network.state_dict()).double().eval()
    x = torch.randn(2, 2, 24, 16, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network.double()(x), literal(x))


@pytest.mark.parametrize("shape", [(16, 24, 20), (9, 17, 70), (40, 40, 40)])
def test_folding_changes_nothing(shape: tuple[int, int, int]) -> None:
    network = used()
    x = torch.randn(1, 2, *shape)
    with torch.no_grad():
        expected = network(x)
    found = FoldedUNet(network)(x)
    assert found.shape == (1, 1, *shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(32, 24, 40), (41, 17, 70)])
def test_only_what_is_wanted_is_computed_and_it_is_the_same(shape: tuple[int, int, int]) -> None:
    network = used()
    x = torch.randn(1, 2, *shape)
    middle = torch.tensor(shape) / 2
    places = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"), -1)
    wanted = ((places - middle) / (middle - torch.tensor([2.0, 5.0, 9.0]))).square().sum(-1) < 1
    with torch.no_grad():
        expected = network(x)
    found = FoldedUNet(network, wanted)(x)
    torch.testing.assert_close(found[..., wanted], expected[..., wanted], rtol=1e-4, atol=1e-5)
    corner = found[..., :2, :5, :9]
    assert not corner.any()  # far from the brain nothing is computed


def test_nothing_wanted() -> None:
    x = torch.randn(1, 2, 16, 16, 16)
    assert not FoldedUNet(used(), torch.zeros(16, 16, 16, dtype=torch.bool))(x).any()


def test_gradients_reach_every_parameter() -> None:
    network = used().train()
    network(torch.randn(2, 2, 16, 16, 16)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
