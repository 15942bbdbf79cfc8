"""What rounding the points costs the pull, to first order, and the moments of the others that give it back.

With points p - δ the pull Σ_j ω_j g_ij w_j loses 2t Σ_j ω_j g_ij w_j (w_j·δ_i). Random rows' own share of the tangent
gradient grows as √C and this as C, so beside it the error grows as √C/D. Where rows lie in all directions the sum is

    2t ρ ḡ_i (WᵀΩW) δ_i,   ḡ_i the mean of g_ij,   ρ = 0F1(D/2 + 1; t²) / 0F1(D/2; t²)

in the directions that matter, those across the point: ρ < 1 since the w_j that lie there are farther than the mean.
It costs O(C·D²), a share D/C of the pass. Measured in fp16 and bf16 for C up to 10⁶: what is left does not grow with C.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_T = 100.0  # beyond, one or two pairs of a point are all its potential: there is no mean to speak of


def hypergeometric(a: float, z: float) -> float:
    """0F1(; a; z) = Σ_k z^k / (k! · a (a+1) … (a+k-1)); 0F1(; D/2; t²) is the mean of exp(2t cos) on the sphere."""
    total = term = 1.0
    k = 0
    while term > 1e-17 * total:
        k += 1
        term *= z / (k * (a + k - 1))
        total += term
    return total


def share_across(t: float, dim: int) -> float:
    """ρ of the module's docstring."""
    return hypergeometric(dim / 2 + 1, t * t) / hypergeometric(dim / 2, t * t)


def error_of_points(t: float, unit: float, count: int, dim: int) -> float:
    """What δ alone does to the tangent gradient of random rows, relative; ``unit`` is the largest relative rounding."""
    return 2 * t * unit * math.sqrt(count) / dim


@torch.no_grad()
def correct_pull_(
    pull: Tensor,
    potential: Tensor,
    lost: Tensor,
    others: Tensor,
    *,
    t: float,
    weights: Tensor | None = None,
    centre: Tensor | None = None,
) -> None:
    """Adds 2t ρ ḡ_i (WᵀΩW) δ_i to pull [M, D], in place and without waiting for the device.

    potential [M] and pull as the pass gave them; lost [M, D] is δ; others [C, D] in any floating-point dtype; weights
    [C], of any sign: where one is negative, the mean of g over the sphere stands for ḡ_i. The products are bfloat16:
    a correction needs no more digits. ``centre`` [1] as in :func:`fastproto_kernels.gaussian_potential`.
    """
    dim = pull.shape[1]
    with torch.autocast(pull.device.type, enabled=False):
        right = others.to(torch.bfloat16)
        amount = potential  # Σ_j |ω_j| times ḡ_i
        if weights is None:
            left = right * (1 / len(others))
        else:
            omega = weights.float()
            total = omega.abs().sum()
            left = right * (omega / total.clamp_min(1e-30)).to(torch.bfloat16)[:, None]
            amount = torch.where((omega >= 0).all(), potential, total * mean_potential(t, dim, centre))
        step = lost.to(torch.bfloat16) @ (left.T @ right)
        pull.addcmul_(amount[:, None], step.to(pull.dtype), value=2 * t * share_across(t, dim))


def mean_potential(t: float, dim: int, centre: Tensor | None = None) -> float | Tensor:
    """The mean of g over the sphere."""
    mean = hypergeometric(dim / 2, t * t) * math.exp(-2 * t)
    return mean if centre is None else mean * torch.exp(2 * t * (1 - centre))
