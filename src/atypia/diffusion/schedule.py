"""The diffusion process: how much noise each time adds, and the steps that take it away.

Times are indices 0, ..., T - 1, the first of which already has a little noise; -1 is the clean
image. Every function takes the exact index. The published repositories mean different indices by
the same setting "500" of 1000: cDDPM (arXiv 2312.04215) restores at 499, its ensemble of 250, 500
and 750 at 249, 499 and 749, while the Mahalanobis repository (arXiv 2407.12474) restores at 498.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from atypia.errors import SettingsError

CDDPM_TIME = 499
CDDPM_TIMES = (249, 499, 749)
MAHALANOBIS_TIME = 498
"""Times at which the published repositories restore, of 1000."""

Time = int | Tensor
"""One time for all items, or `(B,)` int64, one for each."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """What is left of the image, and how much noise there is, at every time.

    A noisy image is `signal(t) * clean + noise(t) * eta`, with eta of variance 1 and
    `signal(t)**2 + noise(t)**2 = 1` (Ho et al., NeurIPS 2020, equation 4).

    Parameters
    ----------
    betas
        `(T,)` float64 on the CPU: the share of variance that each time replaces by noise.
    """

    betas: Tensor

    @property
    def steps(self) -> int:
        """T, the number of times."""
        return len(self.betas)

    def signal(self, t: Time) -> Tensor:
        """Factor of the clean image, float32 of t's shape and device; 1 at -1."""
        return self._look_up(self._kept().sqrt(), t)

    def noise(self, t: Time) -> Tensor:
        """Factor of the noise, float32 of t's shape and device; 0 at -1."""
        return self._look_up((1 - self._kept()).sqrt(), t)

    def signal_to_noise(self, t: Time) -> Tensor:
        """Ratio of variances, float32 of t's shape and device; infinite at -1."""
        return self._look_up(self._kept() / (1 - self._kept()), t)

    def add_noise(self, clean: Tensor, noise: Tensor, t: Time) -> Tensor:
        """Give the noisy image at time t.

        Parameters
        ----------
        clean
            `(B, ...)`.
        noise
            Of the same shape, variance 1.
        t
            For all items or for each.
        """
        return _along(self.signal(t), clean) * clean + _along(self.noise(t), clean) * noise

    def clean_of(self, noisy: Tensor, predicted_noise: Tensor, t: Time) -> Tensor:
        """Give the clean image that a prediction of the noise means."""
        without = noisy - _along(self.noise(t), noisy) * predicted_noise
        return without / _along(self.signal(t), noisy)

    def noise_of(self, noisy: Tensor, predicted_clean: Tensor, t: Time) -> Tensor:
        """Give the noise that a prediction of the clean image means; t is not -1."""
        without = noisy - _along(self.signal(t), noisy) * predicted_clean
        return without / _along(self.noise(t), noisy)

    def _kept(self) -> Tensor:
        """Squared signal of the times -1, 0, ..., T - 1."""
        return torch.cat([self.betas.new_ones(1), (1 - self.betas).cumprod(0)])

    def _look_up(self, table: Tensor, t: Time) -> Tensor:
        t = torch.as_tensor(t)
        # Unlike indexing, this refuses times before -1 and does not count from the end.
        return table.float().to(t.device).index_select(0, t.flatten() + 1).reshape(t.shape)


def cosine(steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Schedule:
    """Make the cosine schedule (Nichol and Dhariwal, ICML 2021, equation 17).

    Parameters
    ----------
    steps
        Number of times, T.
    offset
        Keeps the first times from adding next to nothing.
    largest
        Bound of beta, which would be 1 at the last time.
    """
    places = torch.arange(steps + 1, dtype=torch.float64) / steps
    kept = ((places + offset) / (1 + offset) * math.pi / 2).cos().square()
    return Schedule((1 - kept[1:] / kept[:-1]).clamp(max=largest))


def linear(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Make the linear schedule (Ho et al., NeurIPS 2020, section 4).

    Parameters
    ----------
    steps
        Number of times, T.
    first, last
        The betas for 1000 times; with fewer times they are larger, so that the end is as noisy.
    """
    betas = torch.linspace(first, last, steps, dtype=torch.float64) * 1000 / steps
    return Schedule(betas.clamp(max=0.999))


def ddim_times(start: int, steps: int) -> tuple[int, ...]:
    """Give the times that a restoration visits, evenly spaced from `start` towards -1.

    Parameters
    ----------
    start
        The first time, from 0.
    steps
        How many times; each step leads to the next time, the last one to -1.

    Raises
    ------
    SettingsError
        There is no step, or there are more steps than times.
    """
    if not 1 <= steps <= start + 1:
        problem = f"must be between 1 and {start + 1} to restore from time {start}"
        raise SettingsError(f"steps {steps}", problem, "Choose another number of steps")
    return tuple(start - (start + 1) * k // steps for k in range(steps))


def ddim_step(
    schedule: Schedule,
    noisy: Tensor,
    clean: Tensor,
    t: Time,
    t_next: Time,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """Go from a time to an earlier one (Song et al., ICLR 2021, equations 12 and 16).

    Parameters
    ----------
    schedule
        The process.
    noisy
        `(B, ...)`, the image at time t.
    clean
        The clean image as predicted from it.
    t, t_next
        For all items or for each, t_next < t. At t_next = -1 the answer is `clean`.
    eta
        0 is deterministic; 1 is the ancestral step of DDPM where t_next is t - 1.
    noise
        Fresh noise of variance 1, of the shape of `noisy`; may be left out when eta is 0.

    Raises
    ------
    ValueError
        eta is not 0 and there is no noise.
    """
    if eta and noise is None:
        raise ValueError("a step with eta > 0 needs noise")
    signal, spread = schedule.signal(t), schedule.noise(t)
    next_signal, next_spread = schedule.signal(t_next), schedule.noise(t_next)
    gone = (1 - (signal / next_signal).square()).clamp(min=0)
    fresh = eta * next_spread / spread * gone.sqrt()
    kept = (next_spread.square() - fresh.square()).clamp(min=0).sqrt()
    guess = schedule.noise_of(noisy, clean, t)
    stepped = _along(next_signal, noisy) * clean + _along(kept, noisy) * guess
    return stepped if noise is None else stepped + _along(fresh, noisy) * noise


def min_snr_weights(
    schedule: Schedule, t: Time, predicts: Literal["clean", "noise"], gamma: float = 5.0
) -> Tensor:
    """Weigh the squared errors of a batch by time (Hang et al., ICCV 2023, section 3.4).

    Errors of the clean image are weighted by the ratio of signal and noise, but by `gamma` at
    most, so that times of little noise do not rule the training; for errors of the noise that
    ratio is divided out.

    Parameters
    ----------
    schedule
        The process.
    t
        `(B,)`.
    predicts
        What the network predicts.
    gamma
        The bound.

    Returns
    -------
    torch.Tensor
        Of t's shape, float32.
    """
    ratio = schedule.signal_to_noise(t)
    weights = ratio.clamp(max=gamma)
    return weights if predicts == "clean" else weights / ratio


def _along(factor: Tensor, image: Tensor) -> Tensor:
    """Shape factors of items so that they multiply images; one factor serves all."""
    return factor.to(image).reshape(-1, *[1] * (image.ndim - 1))
