"""The public functions: losses with their gradient formed in the forward pass, class means, top-k prediction.

Each opaque step is a registered operator (``torch.ops.fastproto.*``), worn by a thin ``torch.autograd.Function``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastproto.checks import (
    check_finite,
    check_label_range,
    check_labels,
    check_matrix,
    check_prototypes,
    check_unit_rows,
    refuse_double_backward,
    shape_of,
)
from fastproto.potential import gaussian_potential as gaussian_potential  # public here
from fastproto.uniformity import uniformity_loss as uniformity_loss  # and this

TINY_NORM = 1e-12
BLOCK = 2048  # rows of one block of a C×C or B×C matrix that is never stored whole: 2048² float32 are 16 MiB
SELECT_MAX = 16  # above this k a stable sort beats k passes of max


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _normalise(features: Tensor) -> tuple[Tensor, Tensor]:
    """z [B, D] and 1/‖x‖ [B, 1] (zero for a row without direction), in float32 or float64."""
    x = features.to(_compute_dtype(features))
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    if not bool(torch.isfinite(norm).all()):
        row = int((~torch.isfinite(norm)).nonzero()[0, 0])
        raise ValueError(
            f"features hold NaN or inf (first in row {row}); expected finite numbers: "
            "lower the learning rate or look for the layer that overflows"
        )
    inverse = torch.where(norm > TINY_NORM, norm.reciprocal(), 0.0)
    return x * inverse, inverse


# --- input-to-prototype mapping loss (Eq. 6) -------------------------------------------------------------------------


@torch.library.custom_op("fastproto::ipm_loss", mutates_args=())
def _ipm_forward(
    features: Tensor, labels: Tensor, prototypes: Tensor, assignment: Tensor, official: bool
) -> tuple[Tensor, Tensor]:
    """Loss per sample [B] and its gradient with respect to that sample's features [B, D] (dtype of the features)."""
    check_label_range("labels", labels, len(prototypes))
    rows = assignment[labels]
    check_label_range("rows of the assignment", rows, len(prototypes))
    z, inverse = _normalise(features)
    w = prototypes[rows]
    check_unit_rows("prototypes of the batch", w)
    residual = (z * w).sum(1, keepdim=True) - 1
    half = 1.0 if official else 0.5
    gradient = (w - (residual + 1) * z) * (2 * half * residual * inverse)
    return half * residual.squeeze(1).square(), gradient.to(features.dtype)


@_ipm_forward.register_fake
def _(
    features: Tensor, labels: Tensor, prototypes: Tensor, assignment: Tensor, official: bool
) -> tuple[Tensor, Tensor]:
    return features.new_empty(features.shape[0], dtype=_compute_dtype(features)), torch.empty_like(
        features, memory_format=torch.contiguous_format
    )


class _IpmLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, labels: Tensor, prototypes: Tensor, assignment: Tensor, official: bool
    ) -> Tensor:
        loss: Tensor
        loss, gradient = _ipm_forward(features, labels, prototypes, assignment, official)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        refuse_double_backward()
        (gradient,) = ctx.saved_tensors
        return (gradient * grad[:, None]).to(gradient.dtype), None, None, None, None


def ipm_loss(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    loss: str = "eq6",
) -> Tensor:
    """Input-to-prototype mapping loss: pulls every sample to the prototype its label is assigned to.

    ``z = F.normalize(features); 0.5 * ((z * prototypes[assignment[labels]]).sum(1) - 1) ** 2``

    Args:
        features: [B, D] float32, bfloat16, float16 or float64; a row with norm <= 1e-12 has loss ½ and zero gradient.
        labels: int64 [B] in 0..C-1.
        prototypes: unit rows [C, D], without gradient; the rows that the batch uses are checked.
        assignment: int64 [C], a permutation: label y is represented by row ``assignment[y]``. That no row is named
            twice is for :class:`fastproto.PrototypeHead` to keep: looking would cost C each step.
        weight: [B], a factor for each sample.
        reduction: ``mean`` (Σ ω L / B), ``sum`` or ``none``.
        loss: ``eq6``, or ``official`` for the (1 - cos)² of the authors' published code (twice Eq. 6).

    Returns:
        float32 (float64 for float64 features): a scalar, or [B] for ``none``. An empty batch has loss 0.

    Raises:
        TypeError, ValueError: shapes that do not match, labels out of range or not int64, NaN or inf in the features,
            prototypes that require grad.

    Source: Eq. 6 of Saadabadi et al., CVPR 2024.
    """
    check_matrix("features", features, min_rows=0)
    check_prototypes(prototypes)
    check_labels("labels", labels, len(features))
    if prototypes.shape[1] != features.shape[1]:
        raise ValueError(
            f"features are {shape_of(features)} and prototypes {shape_of(prototypes)}; expected the same D: "
            "make the backbone's output as wide as the prototypes"
        )
    check_labels("assignment", assignment, len(prototypes))
    if weight is not None:
        if weight.shape != labels.shape:
            raise ValueError(f"weight has shape {shape_of(weight)}; expected {shape_of(labels)}, one for each sample")
        check_finite("weight", weight[:, None])
    if reduction not in ("mean", "sum", "none") or loss not in ("eq6", "official"):
        raise ValueError(
            f"reduction is {reduction!r} and loss {loss!r}; expected 'mean', 'sum' or 'none' and 'eq6' or 'official'"
        )
    per_sample: Tensor = _IpmLoss.apply(features, labels, prototypes, assignment, loss == "official")
    if weight is not None:
        per_sample = per_sample * weight
    if reduction == "none":
        return per_sample
    return per_sample.sum() / max(len(labels), 1) if reduction == "mean" else per_sample.sum()


# --- class means -----------------------------------------------------------------------------------------------------


@torch.library.custom_op("fastproto::update_class_means_", mutates_args=("means",))
def _update_class_means_(means: Tensor, features: Tensor, labels: Tensor, momentum: float) -> None:
    check_label_range("labels", labels, len(means))
    z = _normalise(features)[0].to(means.dtype)
    order = torch.argsort(labels, stable=True)
    classes, counts = torch.unique_consecutive(labels[order], return_counts=True)
    # q ← αⁿ q + (1-α) Σ_r α^{n-1-r} z_r, r the sample's rank within its class: the recurrence written as one sum
    after = torch.cumsum(counts, 0).repeat_interleave(counts) - 1 - torch.arange(len(order), device=order.device)
    share = (1 - momentum) * torch.pow(torch.tensor(momentum, dtype=torch.float64), after.double())
    z = z[order] * share.to(means.dtype)[:, None]
    added = torch.segment_reduce(z, "sum", lengths=counts, axis=0)
    kept = torch.pow(torch.tensor(momentum, dtype=torch.float64), counts.double()).to(means.dtype)[:, None]
    means.index_copy_(0, classes, kept * means[classes] + added)


@_update_class_means_.register_fake
def _(means: Tensor, features: Tensor, labels: Tensor, momentum: float) -> None:
    return None


def update_class_means_(means: Tensor, features: Tensor, labels: Tensor, momentum: float) -> None:
    """Exponential moving average of the normalised features per class, in place, touching only the classes present.

    ``for z, y in zip(F.normalize(features), labels): means[y] = momentum * means[y] + (1 - momentum) * z``, so that
    several samples of one class in a batch all count, in batch order.

    Args:
        means: [C, D] float32 (or float64), changed in place.
        features: [B, D], any float dtype; no gradient flows.
        labels: int64 [B] in 0..C-1.
        momentum: α in [0, 1).

    Raises:
        TypeError, ValueError: shapes, dtypes, labels out of range, NaN or inf in the features; the means then stay.

    Source: Algorithm 1 of Saadabadi et al., CVPR 2024.
    """
    check_matrix("means", means)
    check_matrix("features", features, min_rows=0)
    check_labels("labels", labels, len(features))
    if means.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"means are {means.dtype}; expected float32 or float64: small updates vanish in less")
    if means.shape[1] != features.shape[1]:
        raise ValueError(f"means are {shape_of(means)} and features {shape_of(features)}; expected the same D")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; expected 0 <= momentum < 1, such as 0.9")
    if len(labels):
        _update_class_means_(means, features.detach(), labels, momentum)


def update_class_means(means: Tensor, features: Tensor, labels: Tensor, momentum: float) -> Tensor:
    """A new tensor with the update of :func:`update_class_means_` applied; ``means`` stays as it is."""
    updated = means.clone()
    update_class_means_(updated, features, labels, momentum)
    return updated


# --- prediction ------------------------------------------------------------------------------------------------------


def _top(cosines: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, the lowest index first among equals (torch.topk does not promise an order)."""
    if k > SELECT_MAX:
        values, indices = cosines.sort(dim=1, descending=True, stable=True)
        return values[:, :k], indices[:, :k]
    found = []
    for _ in range(k):
        value, index = cosines.max(dim=1, keepdim=True)
        found.append((value, index))
        cosines.scatter_(1, index, -torch.inf)
    return torch.cat([v for v, _ in found], 1), torch.cat([i for _, i in found], 1)


@torch.no_grad()
def nearest_prototypes(features: Tensor, prototypes: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The k prototypes of largest cosine for each sample, without a B×C matrix.

    ``(F.normalize(features) @ prototypes.T).topk(k)``; the lowest index first among equals.

    Args:
        features: [B, D], any float dtype.
        prototypes: unit rows [C, D].
        k: how many, 1..C.

    Returns:
        cosines [B, k] float32 (float64 for float64 features), falling, and rows of ``prototypes`` [B, k] int64.

    Raises:
        TypeError, ValueError: shapes, dtypes, k outside 1..C, NaN or inf in the features, prototypes that are not unit.
    """
    check_matrix("features", features, min_rows=0)
    check_matrix("prototypes", prototypes)
    check_unit_rows("prototypes", prototypes)
    if prototypes.shape[1] != features.shape[1]:
        raise ValueError(
            f"features are {shape_of(features)} and prototypes {shape_of(prototypes)}; expected the same D"
        )
    if not 1 <= k <= len(prototypes):
        raise ValueError(f"k is {k}; expected 1..{len(prototypes)}, the number of prototypes")
    with torch.autocast(features.device.type, enabled=False):
        return _streaming_top(_normalise(features)[0], prototypes, k)


def _streaming_top(z: Tensor, w: Tensor, k: int) -> tuple[Tensor, Tensor]:
    w = w.to(z.dtype)
    cosines, indices = z.new_empty(len(z), k), torch.empty(len(z), k, dtype=torch.int64, device=z.device)
    for start in range(0, len(z), BLOCK):
        rows = slice(start, start + BLOCK)
        best = z.new_empty(len(z[rows]), 0)
        at = torch.empty_like(best, dtype=torch.int64)
        for column in range(0, len(w), BLOCK):
            block = z[rows] @ w[column : column + BLOCK].T
            value, index = _top(block, min(k, block.shape[1]))
            best, at = torch.cat([best, value], 1), torch.cat([at, index + column], 1)
            best, order = _top(best, min(k, best.shape[1]))
            at = at.gather(1, order)
        cosines[rows], indices[rows] = best, at
    return cosines, indices
