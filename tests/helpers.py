"""What several test files need."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto import reference

SHAPES = [(8, 16, 32), (13, 33, 10), (31, 37, 17), (1, 2, 2), (5, 300, 3)]
"""(B, C, D): aligned, ragged, prime, the smallest, and more classes than the plane can hold."""


def assert_as_accurate_as(ours: Tensor, torchs: Tensor, truth: Tensor, crumb: float = 1e-6) -> None:
    """Our error is at most twice that of plain torch in the same dtype, plus a crumb, relative to the largest value."""
    assert ours.shape == truth.shape
    if truth.numel() == 0:
        return
    scale = truth.abs().max().clamp_min(1e-30)
    our_error = (ours.double() - truth).abs() / scale
    allowed = 2 * float(((torchs.double() - truth).abs() / scale).max()) + crumb
    worst = int(our_error.argmax())
    at = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), truth.shape))
    assert float(our_error.max()) <= allowed, (
        f"error {float(our_error.max()):.3e} > {allowed:.3e} at {at}: "
        f"ours {ours[at].item():.9g}, torch {torchs[at].item():.9g}, truth {truth[at].item():.9g}"
    )


def assert_potential_as_accurate(
    ours: tuple[Tensor, Tensor],
    points: Tensor,
    others: Tensor,
    t: float,
    self_index: Tensor | None,
    weights: Tensor | None,
    crumb: float = 1e-6,
) -> None:
    """Potential and pull in float32 are as accurate as the same formula in plain torch."""
    torchs = reference.gaussian_potential(points.float(), others.float(), t, self_index, weights)
    heavy = None if weights is None else weights.double()
    truth = reference.gaussian_potential(points.double(), others.double(), t, self_index, heavy)
    for our, plain, true in zip(ours, torchs, truth, strict=True):
        assert our.dtype == torch.float32
        assert_as_accurate_as(our, plain, true, crumb)


def unit_rows(rows: int, dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, dim, dtype=torch.float64), dim=1).to(dtype)


def ipm_batch(b: int, c: int, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, labels, prototypes and assignment."""
    return torch.randn(b, d) * 3, torch.randint(0, c, (b,)), unit_rows(c, d), torch.randperm(c)
