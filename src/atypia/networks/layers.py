"""Layers that give the standard ones' answers in less time on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Convolution(nn.Conv3d):
    """A 3D convolution that does not fall into torch's slow path for one small scan on a CPU.

    torch leaves oneDNN for a plain loop when a batch holds one sample of fewer than about half a
    million values, which measured 10 to 18 times slower. Without gradients oneDNN is called by
    name; in training use two scans a step.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C_in, X, Y, Z)` to `(B, C_out, X', Y', Z')`."""
        if torch.is_grad_enabled() or x.shape[0] > 1 or not onednn_by_name(x):
            return super().forward(x)
        padding: Any = self.padding
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, padding, self.stride, self.dilation, self.groups
        )


def onednn_by_name(x: Tensor) -> bool:
    """Tell whether oneDNN's convolution may be called by name: autocast does not reach it there."""
    plain = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and plain and torch.backends.mkldnn.is_available()


class DoublingConvolution(nn.Conv3d):
    """Nearest-neighbour doubling, then a 3x3x3 convolution, as one transposed convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C_in, X, Y, Z)` to `(B, C_out, 2X, 2Y, 2Z)`."""
        if not worth_one_kernel(x):
            return super().forward(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return functional.conv_transpose3d(
            x, doubling_kernel(self.weight), self.bias, stride=2, padding=1
        )


def worth_one_kernel(x: Tensor) -> bool:
    """Tell whether a transposed convolution pays: on few voxels its larger kernel costs more."""
    return x[0, 0].numel() >= 400


class Dropout(nn.Module):
    """Set values to zero by chance, with an eighth of the random numbers.

    Parameters
    ----------
    probability
        Rounded to a 256th, because the chance of each value comes from one random byte.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.kept = 256 - round(256 * probability)

    def forward(self, x: Tensor) -> Tensor:
        """Drop and scale in training, pass on otherwise."""
        if not self.training or self.kept == 256:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, 1 - self.kept / 256)
        words = torch.empty(x.numel() // 8 + 1, dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.uint8)[: x.numel()] < self.kept
        # In the memory order of the features, so that nothing is rearranged.
        factor = torch.empty_like(x, requires_grad=False)
        factor.as_strided((x.numel(),), (1,)).copy_(keep).mul_(256 / self.kept)
        return x * factor


class PReLU(nn.PReLU):
    """PReLU with one slope; its gradient by the slope is one sum instead of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep what is positive and multiply the rest by the slope."""
        out: Tensor = _PReLU.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return out


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, slope: Tensor) -> Tensor:
        context.save_for_backward(x, slope)
        return functional.leaky_relu(x, float(slope))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        x, slope = context.saved_tensors
        by_x = torch.ops.aten.leaky_relu_backward(gradient, x, float(slope), False)
        if abs(1 - float(slope)) < 1e-3:
            by_slope = (gradient * x.clamp(max=0)).sum()
        else:
            # The gradient where x is negative, without another map: both differ only there.
            by_slope = ((gradient - by_x) * x).sum() / (1 - float(slope))
        return by_x, by_slope.reshape(slope.shape)


def doubling_kernel(weight: Tensor) -> Tensor:
    """Give the 4x4x4 kernel that stands for doubling and then a 3x3x3 kernel.

    Parameters
    ----------
    weight
        `(C_out, C_in, 3, 3, 3)` of the convolution.

    Returns
    -------
    torch.Tensor
        `(C_in, C_out, 4, 4, 4)` of the transposed convolution with stride 2 and padding 1.
    """
    taps = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    return torch.einsum("oixyz,ax,by,cz->ioabc", weight, taps, taps, taps)


def few_outputs(x: Tensor, convolution: nn.Conv3d) -> Tensor:
    """Give a 3x3x3 convolution's answer without padding, fast where it has one or two outputs.

    oneDNN computes sixteen output channels at a time, whether they are wanted or not. Here the 27
    taps are the rows of one matrix product, and are added up where they belong. For inference:
    it has no gradient.

    Parameters
    ----------
    x
        `(B, C, X, Y, Z)`.
    convolution
        Its padding is left out.

    Returns
    -------
    torch.Tensor
        `(B, outputs, X - 2, Y - 2, Z - 2)`.
    """
    if x.device.type != "cpu" or convolution.out_channels > 2:
        return functional.conv3d(x, convolution.weight, convolution.bias)
    batch, channels, *shape = x.shape
    inner = [size - 2 for size in shape]
    answer = x.new_zeros((batch, convolution.out_channels, *inner))
    taps = convolution.weight.permute(0, 2, 3, 4, 1).reshape(-1, channels)
    for one, out in zip(x, answer, strict=True):
        columns = one.permute(1, 2, 3, 0).reshape(-1, channels).T
        planes = (taps @ columns).reshape(convolution.out_channels, 27, *shape)
        for place in range(27):
            first = (place // 9, place // 3 % 3, place % 3)
            moved = tuple(slice(f, f + size) for f, size in zip(first, inner, strict=True))
            out += planes[:, place, *moved]
    if convolution.bias is not None:
        answer += convolution.bias[:, None, None, None]
    return answer


def halved(x: Tensor) -> Tensor:
    """Average windows of 3x3x3 voxels with stride 2 and zeros round the image, axis by axis.

    The same as torch's average pooling with padding 1, which is slow for channels-last memory.

    Parameters
    ----------
    x
        `(B, C, X, Y, Z)`, even sizes.
    """
    for axis in (2, 3, 4):
        length = x.shape[axis] // 2
        even, odd = (x.unflatten(axis, (length, 2)).select(axis + 1, i) for i in (0, 1))
        summed = even + odd
        summed.narrow(axis, 1, length - 1).add_(odd.narrow(axis, 0, length - 1))
        x = summed
    return x / 27
