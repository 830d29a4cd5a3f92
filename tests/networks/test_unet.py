"""The residual U-Net: any grid, no loss at its ends, and the fast convolution is the same one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from atypia.networks.layers import Convolution
from atypia.networks.unet import (
    ResidualUNet,
    blocks_to_channels,
    channels_to_blocks,
)


def test_blocks_and_channels_undo_each_other() -> None:
    image = torch.randn(2, 3, 4, 6, 8)
    blocks = blocks_to_channels(image)
    assert blocks.shape == (2, 24, 2, 3, 4)
    assert torch.equal(channels_to_blocks(blocks), image)
    # The eight channels of the first input channel are the eight voxels of a block.
    block = image[0, 0, 2:4, 4:6, 6:8].flatten()
    assert torch.equal(blocks[0, :8, 1, 2, 3], block)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_fast_convolution_is_the_same_convolution(stride: int) -> None:
    torch.manual_seed(0)
    fast = Convolution(16, 16, 3, padding=1, stride=stride)
    plain = nn.Conv3d(16, 16, 3, padding=1, stride=stride)
    plain.load_state_dict(fast.state_dict())
    image = torch.randn(1, 16, 9, 10, 7)
    with torch.inference_mode():
        torch.testing.assert_close(fast(image), plain(image), rtol=1e-4, atol=1e-5)
    fast(image).square().sum().backward()
    plain(image).square().sum().backward()
    assert fast.weight.grad is not None
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 24, 8), (13, 17, 11), (5, 1, 9)])
def test_any_grid_is_accepted(shape: tuple[int, int, int]) -> None:
    net = ResidualUNet(3, 2, (8, 8))
    assert net(torch.randn(2, 3, *shape)).shape == (2, 2, *shape)


def test_the_untrained_network_answers_zero_and_can_learn() -> None:
    torch.manual_seed(0)
    net = ResidualUNet(1, 1, (8, 8, 8))
    image = torch.randn(2, 1, 16, 16, 16)
    assert not net(image).any()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(30):
        loss = (net(image) - image).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3


def test_one_scan_gives_what_a_batch_gives() -> None:
    torch.manual_seed(0)
    net = ResidualUNet(2, 1, (16, 16)).eval()
    nn.init.normal_(net.last.weight, std=0.1)
    images = torch.randn(3, 2, 12, 12, 12)
    with torch.inference_mode():
        together = net(images)
        alone = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
