"""L_uni, how evenly points are spread over the sphere, with its gradient computed in the forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.backend import resolve
from fastproto.ops.gaussian_potential import largest_cosine, potential_and_pull
from fastproto.support.checks import (
    TINY_NORM,
    check_finite,
    check_label_range,
    check_labels,
    check_matrix,
    check_sharpness,
)
from fastproto.support.options import Form, Precision, check_options
from fastproto.support.registration import register, with_gradient

FLOAT32_SHARPNESS = 20.0  # exp(-4t), the least value of g, leaves the normal float32 range at t = 22


def uniformity_loss(
    prototypes: Tensor,
    *,
    t: float = 2.0,
    subset: Tensor | None = None,
    form: Form = "pairs",
    precision: Precision = "highest",
) -> Tensor:
    """L_uni of the directions of the rows: how evenly they are spread on the sphere (lower is better).

    ``pairs`` is ``torch.pdist(F.normalize(w)).square().mul(-t).exp().mean().log()``; ``eq5`` keeps the self-pairs
    of the paper's Eq. 5, log(1 + (C-1)·mean): the same minimisers.

    Runs on the backend of :func:`fastproto.functional.gaussian_potential`, eager, under ``torch.compile`` and, with
    Triton, in a CUDA graph. On CUDA values are not checked, which would synchronise: a zero row or NaN makes the loss
    NaN, and a subset must be distinct rows in range.

    Args:
        prototypes: [C, D] float32 or float64, any norms above 1e-12 whose squares the dtype holds; the gradient is
            tangent and divided by the norm.
        t: sharpness, > 0.
        subset: int64 [ĉ] distinct rows; the mean is then over their ĉ(C-1) pairs with all rows, and all rows get a
            gradient.
        form: ``pairs`` or ``eq5``.
        precision: ``highest``, ``high`` or ``medium``, see :func:`fastproto.functional.gaussian_potential`.

    Returns:
        scalar of the dtype of ``prototypes``.

    Raises:
        TypeError, ValueError: shape, dtype, C < 2, t <= 0, an empty subset, an unknown form or precision; on the CPU
            also zero or non-finite rows, a repeated or out-of-range subset, t so large that all pairs underflow.

    Source: Eq. 4-5 of Saadabadi et al., CVPR 2024.
    """
    check_matrix("prototypes", prototypes, min_rows=2)
    t = check_sharpness(t)
    check_options(precision=precision)
    if prototypes.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"prototypes are {prototypes.dtype}; expected float32 or float64: convert them with .float()")
    check_options(form=form)
    if subset is not None:
        check_labels("subset", subset, subset.numel() if isinstance(subset, Tensor) else 0)
        if len(subset) == 0:
            raise ValueError("subset names no rows; expected distinct rows, at least one")
    differentiated = prototypes.requires_grad and torch.is_grad_enabled()
    return with_gradient(_operator, prototypes, t, subset, form, precision, differentiated)


def _uniformity_loss(
    prototypes: Tensor, t: float, subset: Tensor | None, form: str, precision: str, differentiated: bool
) -> tuple[Tensor, Tensor]:
    if prototypes.device.type == "cpu":  # elsewhere checking values would synchronise
        _check_values(prototypes, subset)
    with torch.autocast(prototypes.device.type, enabled=False):
        return value_and_gradient(prototypes, t, subset, form, precision, differentiated)


def _uniformity_loss_shapes(
    prototypes: Tensor, t: float, subset: Tensor | None, form: str, precision: str, differentiated: bool
) -> tuple[Tensor, Tensor]:
    return prototypes.new_empty(()), prototypes.new_empty(
        prototypes.shape[0] if differentiated else 0, prototypes.shape[1]
    )


_operator = register("uniformity_loss", _uniformity_loss, _uniformity_loss_shapes)


def value_and_gradient(
    prototypes: Tensor, t: float, subset: Tensor | None, form: str, precision: str, differentiated: bool
) -> tuple[Tensor, Tensor]:
    """L_uni [] and its gradient [C, D], or [0, D] unless ``differentiated``."""
    sharp = t > FLOAT32_SHARPNESS and prototypes.dtype == torch.float32
    centred = sharp and resolve("gaussian_potential", prototypes).backend == "triton"
    exact = prototypes.double() if sharp and not centred else prototypes
    norm = torch.linalg.vector_norm(exact, dim=1, keepdim=True)
    w = exact / norm
    sampled, others = (w, None) if subset is None else (w[subset], w)
    centre = largest_cosine(sampled, others, subset) if centred else None
    potential, pull = potential_and_pull(sampled, others, t, subset, None, precision, centre)
    total = potential.double().sum()
    if total.device.type == "cpu" and float(total) == 0.0:
        raise ValueError(f"t is {t}, so sharp that every pair underflows; expected at most about 170: lower t")
    faded = 2 * t * (centre.double().squeeze() - 1) if centre is not None else total.new_zeros(())
    value = torch.log(total / (len(sampled) * (len(w) - 1))) + faded  # log of the mean of g
    factor = 2 * t / total
    if form == "eq5":
        value = torch.log1p((len(w) - 1) * value.exp())
        factor = 2 * t * faded.exp() / (len(sampled) + total * faded.exp())
    if not differentiated:
        return value.to(prototypes.dtype), prototypes.new_empty(0, prototypes.shape[1])
    gradient = _both_ends(w, subset, pull, t, precision, centre)
    gradient -= (gradient * w).sum(1, keepdim=True) * w
    return value.to(prototypes.dtype), (gradient * (factor / norm)).to(prototypes.dtype)


def _both_ends(
    w: Tensor, subset: Tensor | None, pull: Tensor, t: float, precision: str, centre: Tensor | None
) -> Tensor:
    """For every row, Σ g·(other point) over its pairs in the loss, [C, D]: a pair contributes to both its points."""
    if subset is None:
        return pull.mul_(2)  # g is symmetric: both ends of the pairs contribute the same
    place = torch.arange(len(subset), device=w.device)
    position = torch.full((len(w),), -1, device=w.device).scatter(0, subset, place)
    _, gradient = potential_and_pull(w, w[subset], t, position, None, precision, centre)
    return gradient.index_add_(0, subset, pull)


def _check_values(prototypes: Tensor, subset: Tensor | None) -> None:
    check_finite("prototypes", prototypes)
    norm = torch.linalg.vector_norm(prototypes, dim=1)
    if bool((norm <= TINY_NORM).any()):
        raise ValueError(
            f"prototypes row {int(norm.argmin())} is zero; expected rows with a direction: replace the row"
        )
    if not bool(norm.isfinite().all()):
        raise ValueError(
            f"prototypes row {int(norm.argmax())} has a norm that {prototypes.dtype} does not hold; expected a finite "
            "sum of squares: scale the row"
        )
    if subset is not None:
        check_label_range("subset", subset, len(prototypes))
        if len(subset.unique()) < len(subset):
            raise ValueError(f"subset names {len(subset)} rows with repeats; expected distinct rows")
