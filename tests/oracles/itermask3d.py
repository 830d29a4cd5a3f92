"""IterMask3D literally: the published network and search, as slow as they are written.

The whole cube goes through the network at every step; thresholds are the k-th smallest of all
voxels; all hundred masks are kept. Nothing here is shared with the package but the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import curve_fit
from torch import Tensor, nn
from torch.nn import functional


class LiteralUnit(nn.Sequential):
    """Convolution, batch normalisation, dropout, PReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1),
            nn.BatchNorm3d(outputs),
            nn.Dropout(0.2),
            nn.PReLU(),
        )


class LiteralUNet(nn.Module):
    """The published network, with its nearest-neighbour upsampling written out."""

    def __init__(self, inputs: int = 2, channels: tuple[int, ...] = (16, 32, 64, 128, 256)) -> None:
        super().__init__()
        before = (inputs, *channels)
        self.encoder = nn.ModuleList()
        for i, width in enumerate(channels):
            stride = 2 if i < len(channels) - 1 else 1
            units = [LiteralUnit(before[i], width, stride), LiteralUnit(width, width)]
            self.encoder.append(nn.Sequential(*units))
        self.firsts, self.seconds = nn.ModuleList(), nn.ModuleList()
        arriving = channels[-1]
        for level in reversed(range(len(channels) - 1)):
            both = arriving + channels[level]
            arriving = channels[level - 1] if level else 1
            self.firsts.append(LiteralUnit(both, both))
            self.seconds.append(
                LiteralUnit(both, arriving) if level else nn.Conv3d(both, 1, 3, padding=1)
            )

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i, stage in enumerate(self.encoder):
            pooled = x if i == len(self.encoder) - 1 else functional.avg_pool3d(x, 3, 2, 1)
            answer = stage(x)
            x = answer.clone()
            x[:, : pooled.shape[1]] += pooled
            skips.append(x)
        for first, second, skip in zip(self.firsts, self.seconds, skips[-2::-1], strict=True):
            x = functional.interpolate(torch.cat([x, skip], 1), scale_factor=2.0, mode="nearest")
            x = second(first(x))
        return x

    def take(self, weights: dict[str, Tensor]) -> LiteralUNet:
        """Take the weights of the package's network, which come in the same order."""
        mine = self.state_dict()
        assert [v.shape for v in mine.values()] == [v.shape for v in weights.values()]
        self.load_state_dict(dict(zip(mine, weights.values(), strict=True)))
        return self


@dataclass
class LiteralResult:
    curve: np.ndarray
    knee: int
    mask: np.ndarray
    restored: np.ndarray
    forwards: int


def literal_high_pass(image: np.ndarray, radius: float = 15) -> np.ndarray:
    """The published frequency masking: amplitude one below the radius, the phase kept."""
    spectrum = np.fft.fftshift(np.fft.fftn(image))
    middle = [n // 2 for n in image.shape]
    index = np.indices(image.shape)
    distance = np.sqrt(sum((index[a] - middle[a]) ** 2 for a in range(3)))
    amplitude = np.where(distance < radius, 1.0, np.abs(spectrum))
    changed = amplitude * np.exp(1j * np.angle(spectrum))
    return np.fft.ifftn(np.fft.ifftshift(changed)).real


def literal_search(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    fine: Tensor,
    brain: Tensor,
    gamma: float,
    noise: Callable[[], Tensor] | None = None,
    limit: float = 10.0,
    rounds: int = 100,
) -> LiteralResult:
    """Both phases on one cube, `(X, Y, Z)` tensors of any precision.

    Parameters
    ----------
    noise
        Fresh values for hidden voxels; zero without it.
    """
    forwards = 0

    @torch.no_grad()
    def reconstruct(mask: Tensor) -> Tensor:
        nonlocal forwards
        forwards += 1
        filling = torch.zeros_like(image) if noise is None else noise().to(image.dtype)
        inputs = torch.stack([image * (1 - mask) + filling * mask, fine])
        return network(inputs[None])[0, 0]

    mask = brain
    error = (image - reconstruct(mask)) ** 2 * brain
    voxels, inside = image.numel(), int(brain.sum())
    curve = np.zeros(100)
    stack = torch.zeros((100, *image.shape))
    for i in range(1, 101):
        k = max(1, voxels - round(inside * (1 - 0.01 * i)))
        threshold = float(error.flatten().kthvalue(k).values)
        curve[i - 1] = threshold
        mask = (error > threshold).to(image.dtype)
        stack[i - 1] = mask
        if i < 100:
            error = (image - reconstruct(mask)) ** 2 * brain
    knee = literal_knee(curve, gamma, limit)
    mask = brain
    for _ in range(rounds):
        restored = reconstruct(mask)
        error = (image - restored) ** 2 * brain
        following = (error > curve[knee]).to(image.dtype)
        if float((mask.sum() - following.sum()) / mask.sum()) < 0.01:
            break
        mask = following
    return LiteralResult(curve, knee, following.bool().numpy(), restored.numpy(), forwards)


def literal_knee(curve: np.ndarray, gamma: float, limit: float = 10.0) -> int:
    """The published rule: fit a tan(b t), or smoothed differences; first slope above gamma."""
    percent = np.arange(1.0, 101.0)
    stop = next((i for i, v in enumerate(curve) if v > limit), len(curve))
    (a, b), _ = curve_fit(
        lambda t, a, b: a * np.tan(b * t),
        percent[:stop],
        curve[:stop],
        p0=(1, 0.01),
        maxfev=500_000,
    )
    fitted = a * np.tan(b * percent)
    spread = ((curve[:80] - curve[:80].mean()) ** 2).sum()
    if 1 - ((curve[:80] - fitted[:80]) ** 2).sum() / spread >= 0.85:
        slope = a * b / np.cos(b * percent) ** 2
    else:
        steps = np.diff(curve, prepend=0.0)
        slope = np.array([steps[max(0, i - 2) : i + 3].mean() for i in range(100)])
    return int(np.argmax(slope > gamma))
