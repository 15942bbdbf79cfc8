"""First-order correction of the pull for the rounding of the points.

With points p - δ in place of p, the pull Σ_j ω_j g_ij w_j lacks 2t Σ_j ω_j g_ij w_j (w_j·δ_i). For random rows this
error grows as C and the tangent gradient as √C, so that the relative error grows as √C/D. For rows in all directions
the missing sum is

    2t ρ ḡ_i (WᵀΩW) δ_i,   ḡ_i the mean of g_ij,   ρ = 0F1(D/2 + 1; t²) / 0F1(D/2; t²)

in the tangent directions; ρ < 1 because w_j in these directions are farther from the point than average. The correction
costs O(C·D²), a fraction D/C of the pass. The remaining error does not grow with C.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_T = 100.0  # above, one or two pairs dominate the potential of a point, and a mean does not describe them
# Largest relative rounding of a number in one and in two pieces; error left uncorrected: under a third of the promise
_UNIT = {(torch.float16, 1): 2.0**-12, (torch.bfloat16, 1): 2.0**-9}
_UNIT_OF_TWO = {torch.float16: 2.0**-23, torch.bfloat16: 2.0**-17}
_SHOWS = {"medium": 3e-3, "high": 2e-4, "higher": 2e-4}


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
    """ρ of the module docstring."""
    return hypergeometric(dim / 2 + 1, t * t) / hypergeometric(dim / 2, t * t)


def error_of_points(t: float, unit: float, count: int, dim: int) -> float:
    """Relative error that δ causes in the tangent gradient of random rows; ``unit``: the largest relative rounding."""
    return 2 * t * unit * math.sqrt(count) / dim


def rounding_shows(precision: str, t: float, dtype: torch.dtype, pieces: int, count: int, dim: int) -> bool:
    """Whether the rounding of the points, with ``count`` others, exceeds its share of the promised error."""
    if dtype == torch.float32 or t > LARGEST_T:
        return False
    unit = _UNIT[dtype, pieces] if pieces == 1 else _UNIT_OF_TWO[dtype]
    return error_of_points(t, unit, count, dim) > _SHOWS[precision]


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
    """Adds 2t ρ ḡ_i (WᵀΩW) δ_i to pull [M, D], in place and without a synchronisation.

    potential [M] and pull are the results of the pass; lost [M, D] is δ; others [C, D] have any floating-point dtype;
    weights [C] have any sign: if one is negative, ḡ_i is the mean of g over the sphere. The products are bfloat16,
    which is enough for a correction. ``centre`` [1] as in :func:`fastproto_kernels.gaussian_potential`.
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
