"""Mixup of a batch: every picture is blended with another one of the batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Mixed(NamedTuple):
    """How a batch was mixed: sample i is ``share`` of itself and 1 - ``share`` of sample ``order[i]``."""

    order: Tensor  # int64 [B], a permutation
    share: float  # in [0, 1]


def mix(pixels: Tensor, labels: Tensor, b: float) -> tuple[Tensor, Mixed]:
    """``share * pixels + (1 - share) * pixels[order]`` with one share for the batch, from Beta(b, b).

    Both are drawn from torch's global generators: the share from the CPU's, the order from that of the labels' device.

    Args:
        pixels: floating [B, channels, H, W].
        labels: int64 [B]; only their device and number count.
        b: of the distribution, at least 0.001; 1 is uniform.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    shape = torch.tensor(float(b), dtype=torch.float32, device="cpu")
    share = float(torch.distributions.Beta(shape, shape).sample())
    order = torch.randperm(len(labels), device=labels.device)
    return torch.lerp(pixels[order], pixels, share), Mixed(order, share)
