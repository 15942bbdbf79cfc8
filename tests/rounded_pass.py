"""What the kernel of the Gaussian potential computes, with its roundings, for a few points and many others."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

BLOCK = 20_000


def random_rows(count: int, dim: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def random_weights(kind: str, count: int) -> Tensor | None:
    generator = torch.Generator().manual_seed(1)
    if kind == "none":
        return None
    if kind == "signed":
        return torch.randn(count, generator=generator)
    return torch.rand(count, generator=generator) ** (8 if kind == "few" else 1)


def exact_pull(w: Tensor, index: Tensor, t: float, weights: Tensor | None = None) -> Tensor:
    """Pull in float64 of the rows ``index`` of w on all the others."""
    points = w[index].double()
    pull = torch.zeros_like(points)
    for start in range(0, len(w), BLOCK):
        others = w[start : start + BLOCK].double()
        g = torch.exp(2 * t * (points @ others.T - 1))
        if weights is not None:
            g *= weights[start : start + BLOCK].double()
        pull += without_own(g, index, start) @ others
    return pull


def without_own(g: Tensor, index: Tensor, start: int) -> Tensor:
    inside = ((index >= start) & (index < start + g.shape[1])).nonzero().squeeze(1)
    g[inside, index[inside] - start] = 0
    return g


def rounded_pull(
    w: Tensor, index: Tensor, t: float, weights: Tensor | None, dtype: torch.dtype, pieces: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Potential and pull of rows ``index`` as the kernel's products in halves of ``dtype`` give them, and δ.

    Sums are float64 across blocks: their order on a chip is another.
    """

    def half(x: Tensor) -> Tensor:
        return x.to(dtype).float()

    points = w[index]
    p, p_low = half(points), half(points - half(points))
    shift, scale = 12 if dtype == torch.float16 else 0, 2 * t / math.log(2)
    potential = torch.zeros(len(points), dtype=torch.float64)
    pull = torch.zeros(points.shape, dtype=torch.float64)
    for start in range(0, len(w), BLOCK):
        others = w[start : start + BLOCK]
        high, low = half(others), half(others - half(others))
        s = p @ high.T
        s += p_low @ high.T if pieces > 1 else 0
        s += p @ low.T if pieces > 2 else 0
        g = without_own(torch.exp2(s * scale + (shift - scale)), index, start)
        if weights is not None:
            g *= weights[start : start + BLOCK]
        potential += g.double().sum(1)
        pull += half(g) @ high
        if pieces > 2:
            pull += half(g - half(g)) @ high + half(g) @ low
    lost = points - p - (p_low if pieces > 1 else 0)
    return (potential * 2.0**-shift).float(), (pull * 2.0**-shift).float(), lost


def tangent_error(points: Tensor, pull: Tensor, truth: Tensor) -> float:
    """Of the tangent parts, relative."""
    p = points.double()

    def tangent(x: Tensor) -> Tensor:
        return x - (x * p).sum(1, keepdim=True) * p

    exact = tangent(truth)
    return float((tangent(pull.double()) - exact).norm() / exact.norm())
