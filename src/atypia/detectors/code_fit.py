"""Fitting codes of a fixed implicit decoder to scans: what a healthy brain would say about them.

Source: IFL (arXiv 2106.05214), the latent fit of its evaluation. By default the fit starts from the
mean code of the training subjects and is drawn towards it, keeps within the bound of training, and
leaves out the worst-explained voxels, which are the abnormal ones; each can be switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import pydantic
import torch
from pydantic import Field
from torch import Tensor

from atypia.networks.implicit_decoder import FixedDecoder, positional_encoding
from atypia.settings import Settings
from atypia.training.loop import seeded

WINDOW = 20
"""Steps over which the loss is averaged to see whether it still falls."""


class CodeFitRules(Settings):
    """How a code is fitted."""

    fit_steps: tuple[int, ...] = (120,)
    """Steps of each stage."""
    fit_points: tuple[int, ...] = (4096,)
    """Voxels a step, of each stage."""
    fit_rate: float = Field(1e-2, gt=0)
    """Learning rate of Adam, which starts afresh in each stage."""
    fit_schedule: Literal["constant", "cosine"] = "cosine"
    """Whether the rate falls to a tenth within a stage."""
    fit_start: Literal["mean", "random"] = "mean"
    """The training codes' mean, or a random code as published."""
    prior_weight: float = Field(1e-3, ge=0)
    """Weight of the mean squared distance from the training codes' mean, in their standard
    deviations, beside the mean cross-entropy; 0, as published, for none."""
    bound_at_test: bool = True
    """Whether codes keep within `code_bound`, as in training; published: no."""
    trim_share: float = Field(0.1, ge=0, lt=1)
    """Share of each step's voxels, the worst explained, that do not count from a third of the
    first stage on; 0, as published, for none."""
    plateau: float = Field(2e-3, ge=0)
    """A stage ends when the loss has fallen by less than this share over twenty steps; 0: never."""

    @pydantic.model_validator(mode="after")
    def _stages(self) -> Self:
        if len(self.fit_steps) != len(self.fit_points) or not self.fit_steps:
            raise ValueError("fit_steps and fit_points must have one number for each stage")
        return self


@dataclass(frozen=True, eq=False)
class Observation:
    """What one scan says: classes of voxels.

    Parameters
    ----------
    points
        float32 `(P, 3)`, positions in -1..1.
    classes
        int64 `(P,)`.
    """

    points: Tensor
    classes: Tensor


@dataclass(frozen=True, eq=False)
class CodePrior:
    """The training codes' mean and standard deviation, `(C,)` each, and the bound of their norm."""

    mean: Tensor
    spread: Tensor
    bound: float


@dataclass(frozen=True, eq=False)
class FittedCodes:
    """Codes `(S, C)`, the loss of every step `(T,)` averaged over the scans."""

    codes: Tensor
    losses: list[float]


def fit_codes(
    decoder: FixedDecoder,
    observations: Sequence[Observation],
    rules: CodeFitRules,
    prior: CodePrior,
    targets: Tensor,
    seed: int,
) -> FittedCodes:
    """Fit a code to each scan, all in one batch; none depends on another, but for early ends.

    Parameters
    ----------
    decoder
        Stays as it is.
    observations
        One for each scan.
    rules
        See there. With several scans a stage goes on until the last of them has settled.
    prior
        Of the training codes.
    targets
        `(K, K)`, for each class the shares that the decoder should give; see `soft_targets`.
    seed
        Every scan draws the same stream, whatever its neighbours.
    """
    streams = [seeded(seed, 17) for _ in observations]
    codes = torch.stack([_start(rules, prior, stream) for stream in streams])
    losses: list[float] = []
    for stage, (steps, points) in enumerate(zip(rules.fit_steps, rules.fit_points, strict=True)):
        codes = codes.detach().requires_grad_()
        optimizer = torch.optim.Adam([codes], lr=rules.fit_rate)
        begun, settled = len(losses), torch.zeros(len(observations), dtype=torch.bool)
        history: list[Tensor] = []
        for step in range(steps):
            if rules.fit_schedule == "cosine":
                turn = torch.tensor(torch.pi * step / steps)
                optimizer.param_groups[0]["lr"] = rules.fit_rate * float(
                    0.55 + 0.45 * torch.cos(turn)
                )
            trimmed = stage > 0 or 3 * step >= steps
            before = codes.detach().clone()
            loss = _loss(decoder, observations, codes, streams, points, targets, rules, trimmed)
            distance = (((codes - prior.mean) / prior.spread) ** 2).mean(dim=1)
            optimizer.zero_grad()
            (loss + rules.prior_weight * distance).sum().backward()
            optimizer.step()
            with torch.no_grad():
                if rules.bound_at_test:
                    norms = codes.norm(dim=1, keepdim=True)
                    codes.mul_((prior.bound / norms.clamp(min=1e-12)).clamp(max=1))
                # A settled scan stays where it is while others go on.
                codes.copy_(torch.where(settled[:, None], before, codes))
            history.append(loss.detach())
            losses.append(float(loss.detach().mean()))
            settled |= _has_settled(history, rules.plateau, since=steps // 3)
            if bool(settled.all()) and len(losses) > begun + WINDOW:
                break
    return FittedCodes(codes.detach(), losses)


def soft_targets(classes: int, width: float, first_is_apart: bool) -> Tensor:
    """Give for each class the shares that a decoder should answer.

    Parameters
    ----------
    classes
        `K`.
    width
        0 for the class alone; else the standard deviation, in classes, of a Gaussian round it: near
        classes are nearly right.
    first_is_apart
        Class 0 is the background, near to no other.

    Returns
    -------
    torch.Tensor
        `(K, K)`, rows sum to 1.
    """
    if width == 0:
        return torch.eye(classes)
    ranks = torch.arange(classes, dtype=torch.float32)
    near: Tensor = torch.exp(-((ranks[:, None] - ranks) ** 2) / (2 * width**2))
    if first_is_apart:
        near[0, 1:] = near[1:, 0] = 0
    return near / near.sum(dim=1, keepdim=True)


def _start(rules: CodeFitRules, prior: CodePrior, stream: torch.Generator) -> Tensor:
    if rules.fit_start == "mean":
        return prior.mean.clone()
    code: Tensor = torch.randn(prior.mean.shape, generator=stream) / len(prior.mean) ** 0.5
    return code


def _loss(
    decoder: FixedDecoder,
    observations: Sequence[Observation],
    codes: Tensor,
    streams: Sequence[torch.Generator],
    count: int,
    targets: Tensor,
    rules: CodeFitRules,
    trimmed: bool,
) -> Tensor:
    """Mean cross-entropy of fresh voxels of each scan, `(S,)`."""
    chosen = [
        torch.randint(len(seen.classes), (count,), generator=stream)
        for seen, stream in zip(observations, streams, strict=True)
    ]
    points = torch.stack([seen.points[c] for seen, c in zip(observations, chosen, strict=True)])
    classes = torch.stack([seen.classes[c] for seen, c in zip(observations, chosen, strict=True)])
    with torch.no_grad():
        waves = positional_encoding(points, decoder.octaves)
    errors = cross_entropy(decoder.from_waves(waves, codes), classes, targets)
    if trimmed and rules.trim_share:
        kept = max(1, round(count * (1 - rules.trim_share)))
        errors = errors.topk(kept, dim=1, largest=False).values
    return errors.mean(dim=1)


def cross_entropy(logits: Tensor, classes: Tensor, targets: Tensor) -> Tensor:
    """Give the cross-entropy `(...)` of logits `(..., K)` against the rows of `targets`."""
    errors: Tensor = -(targets[classes] * logits.log_softmax(dim=-1)).sum(dim=-1)
    return errors


def _has_settled(history: Sequence[Tensor], plateau: float, since: int) -> Tensor:
    """Tell of each scan whether its loss has stopped falling; `since` steps are taken anyway."""
    if not plateau or len(history) < max(2 * WINDOW, since + WINDOW):
        return torch.zeros(len(history[-1]), dtype=torch.bool)
    recent = torch.stack(list(history[-WINDOW:])).mean(dim=0)
    before = torch.stack(list(history[-2 * WINDOW : -WINDOW])).mean(dim=0)
    return recent > (1 - plateau) * before
