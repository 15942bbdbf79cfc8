"""The mathematics in plain torch: any device, any float dtype, loops where loops are clearest.

Every faster implementation is tested against this one in float64. Letters are those of the paper
(Saadabadi et al., CVPR 2024): W [C, D] prototypes, Q [C, D] class means, A [C] assignment (label y is represented
by row A[y] of W), x [B, D] features, y [B] labels, t the sharpness of the Gaussian potential.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY_NORM = 1e-12  # a row of at most this norm has no direction


def normalise(x: Tensor) -> Tensor:
    """z = x / ‖x‖ row by row; a row with ‖x‖ <= 1e-12 becomes zero."""
    norm = x.norm(dim=1, keepdim=True)
    return torch.where(norm > TINY_NORM, x / norm.clamp_min(TINY_NORM), torch.zeros_like(x))


def gaussian_potential(
    points: Tensor,
    others: Tensor,
    t: float = 2.0,
    self_index: Tensor | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Potential Σ_j ω_j g_ij [M] and pull Σ_j ω_j g_ij w_j [M, D] over j ≠ self_index[i], g_ij = exp(-t‖p_i - w_j‖²).

    ``points`` [M, D] and ``others`` [C, D] are unit rows, ``self_index`` is int64 [M], ``weights`` is ω [C] (Eq. 3).
    """
    g = torch.exp(-2 * t * (1 - points @ others.T))
    if self_index is not None:
        g = g.scatter(1, self_index[:, None], 0.0)
    if weights is not None:
        g = g * weights
    return g.sum(1), g @ others


def uniformity_loss(prototypes: Tensor, t: float = 2.0, subset: Tensor | None = None, form: str = "pairs") -> Tensor:
    """L_uni of the normalised rows: ``pairs`` is log mean_{i≠j} g_ij; ``eq5`` keeps the self-pairs, log Σ_ij g_ij / ĉ.

    With a subset int64 [ĉ], i runs over the subset and j over all rows (Eq. 5).
    """
    w = normalise(prototypes)
    rows = torch.arange(len(w), device=w.device) if subset is None else subset
    total = gaussian_potential(w[rows], w, t, self_index=rows)[0].sum()
    mean = total / (len(rows) * (len(w) - 1))
    return torch.log(mean) if form == "pairs" else torch.log1p((len(w) - 1) * mean)


def ipm_loss(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    weight: Tensor | None = None,
    loss: str = "eq6",
    power: float = 2.0,
) -> Tensor:
    """(1 - z·w_{A[y]})^p / p per sample [B], twice that for ``official``, times the weight [B]; p = 2 is Eq. 6.

    For p ≠ 2, 1 - cos is ½‖z - w‖², which does not cancel near the target, and 1 for a zero row.
    """
    z, w = normalise(features), prototypes[assignment[labels]]
    residual = 1 - (z * w).sum(1) if power == 2 else _half_squared_distance(z, w).squeeze(1)
    near = residual == 0  # the derivative of 0^p would be NaN for p < 1
    value = torch.where(near, 0.0, torch.where(near, 1.0, residual) ** power / power)
    value = 2 * value if loss == "official" else value
    return value if weight is None else value * weight


def ipm_gradient(
    features: Tensor, labels: Tensor, prototypes: Tensor, assignment: Tensor, power: float = 2.0
) -> Tensor:
    """The gradient of (1 - cos)^p / p per sample in closed form, [B, D]; zero for a zero row and at the target.

    -(1 - cos)^(p-1) (w - cos·z) / ‖x‖
    """
    z, w = normalise(features), prototypes[assignment[labels]]
    cosine = (z * w).sum(1, keepdim=True)
    residual = 1 - cosine if power == 2 else _half_squared_distance(z, w)
    steepness = torch.where(residual == 0, 0.0, residual ** (power - 1))
    norm = features.norm(dim=1, keepdim=True)
    return torch.where(norm > TINY_NORM, -steepness * (w - cosine * z) / norm.clamp_min(TINY_NORM), 0.0)


def _half_squared_distance(z: Tensor, w: Tensor) -> Tensor:
    """½‖z - w‖² [B, 1], which is 1 - z·w for unit rows; 1 where z is zero."""
    half = 0.5 * (z - w).square().sum(1, keepdim=True)
    return torch.where((z == 0).all(1, keepdim=True), 1.0, half)


def softmax_loss(
    features: Tensor, labels: Tensor, prototypes: Tensor, assignment: Tensor, scale: float | str = 16.0
) -> Tensor:
    """Cross-entropy over the prototypes per sample [B]: logits scale·cos, or x·w for the scale ``norm``."""
    left = features if isinstance(scale, str) else scale * normalise(features)
    return torch.nn.functional.cross_entropy(left @ prototypes.T, assignment[labels], reduction="none")


def update_class_means(means: Tensor, features: Tensor, labels: Tensor, momentum: float) -> Tensor:
    """A copy of the means with q_{y_i} ← α q_{y_i} + (1-α) z_i for i = 0..B-1 in batch order, α = ``momentum``."""
    means = means.clone()
    for z, label in zip(normalise(features).to(means.dtype), labels.tolist(), strict=True):
        means[label] = momentum * means[label] + (1 - momentum) * z
    return means


def update_official_means(means: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """The authors' published update: q_y ← (1.9 q_y + 0.1 z)/‖·‖ with the last sample of each class in the batch."""
    means, z = means.clone(), normalise(features).to(means.dtype)
    for label in labels.unique().tolist():
        last = int((labels == label).nonzero()[-1])
        means[label] = normalise((1.9 * means[label] + 0.1 * z[last])[None])[0]
    return means


def scores(class_means: Tensor, prototypes: Tensor) -> Tensor:
    """s_ij = q̂_i·w_j [C, C]; an unseen class, whose mean is zero, has a zero row."""
    return normalise(class_means) @ prototypes.T


def objective(scores: Tensor, assignment: Tensor) -> Tensor:
    """Σ_i s_{i,A(i)} (Eq. 8)."""
    return scores.gather(1, assignment[:, None]).sum()


def duality_gap(scores: Tensor, assignment: Tensor, prices: Tensor) -> Tensor:
    """Σ_i max_j(s_ij - p_j) + Σ_j p_j - Σ_i s_{i,A(i)} >= 0 for any prices [C]: zero proves A optimal (LP duality)."""
    return (scores - prices).max(1).values.sum() + prices.sum() - objective(scores, assignment)


def best_assignment(scores: Tensor) -> Tensor:
    """The permutation int64 [C] that maximises Σ_i s_{i,A(i)}, by SciPy in float64."""
    from scipy.optimize import linear_sum_assignment

    columns = linear_sum_assignment(scores.detach().double().cpu().numpy(), maximize=True)[1]
    return torch.as_tensor(columns, dtype=torch.int64, device=scores.device)


def best_rotation(class_means: Tensor, prototypes: Tensor, assignment: Tensor) -> Tensor:
    """The orthogonal R [D, D] that maximises Σ_j q̂_j·(W R)_{A[j]}: U Vᵀ of svd(W_Aᵀ Q̂) (orthogonal Procrustes)."""
    u, _, vh = torch.linalg.svd(prototypes[assignment].T @ normalise(class_means))
    rotation: Tensor = u @ vh
    return rotation


def predict(features: Tensor, prototypes: Tensor, assignment: Tensor) -> Tensor:
    """label(x) = A⁻¹[argmax_k z·w_k], int64 [B]."""
    return torch.argsort(assignment)[(normalise(features) @ prototypes.T).argmax(1)]
