"""Input-to-prototype mapping loss (Eq. 6), with its gradient formed in the forward pass."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastproto.backend import kernel, resolve
from fastproto.support.checks import (
    check_finite,
    check_label_range,
    check_labels,
    check_matrix,
    check_prototypes,
    check_unit_rows,
    check_weight,
    not_unit,
    refuse_double_backward,
    refuse_transforms,
    shape_of,
    unit_tolerance,
)
from fastproto.support.error_flags import flag_of
from fastproto.support.registration import register
from fastproto.support.row_norms import compute_dtype, normalise, not_finite


def ipm_loss(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    loss: str = "eq6",
    nan_policy: str = "raise",
) -> Tensor:
    """Input-to-prototype mapping loss: pulls every sample to the prototype its label is assigned to.

    ``z = F.normalize(features); 0.5 * ((z * prototypes[assignment[labels]]).sum(1) - 1) ** 2``

    CUDA tensors of the kernels' dtypes run on Triton, see :func:`fastproto.backend.resolve`, and never wait for the
    device. Values are then not looked at: a row with a bad label or NaN has loss and gradient zero, and
    :func:`fastproto.functional.check_batches` raises it later; of a weight NaN shows in the loss.

    Args:
        features: [B, D] float32, bfloat16, float16 or float64; a row with norm <= 1e-12 has loss ½ and zero gradient.
        labels: int64 [B] in 0..C-1.
        prototypes: unit rows [C, D], without gradient; the rows that the batch uses are checked.
        assignment: int64 [C], a permutation: label y is represented by row ``assignment[y]``. That no row is named
            twice is for :class:`fastproto.PrototypeHead` to keep: looking would cost C each step.
        weight: [B], a factor for each sample.
        reduction: ``mean`` (Σ ω L / B), ``sum`` or ``none``.
        loss: ``eq6``, or ``official`` for the (1 - cos)² of the authors' published code (twice Eq. 6).
        nan_policy: ``raise``, or ``skip``: rows with NaN or inf have loss and gradient zero.

    Returns:
        float32 (float64 for float64 features): a scalar, or [B] for ``none``. An empty batch has loss 0.

    Raises:
        TypeError, ValueError: shapes that do not match, labels out of range or not int64, NaN or inf in the features,
            prototypes that require grad.

    Source: Eq. 6 of Saadabadi et al., CVPR 2024.
    """
    check_ipm(features, labels, prototypes, assignment, weight)
    if reduction not in ("mean", "sum", "none") or loss not in ("eq6", "official"):
        raise ValueError(
            f"reduction is {reduction!r} and loss {loss!r}; expected 'mean', 'sum' or 'none' and 'eq6' or 'official'"
        )
    if nan_policy not in ("raise", "skip"):
        raise ValueError(f"nan_policy is {nan_policy!r}; expected 'raise' or 'skip'")
    factor = 2.0 if loss == "official" else 1.0
    if reduction == "mean":  # inside, so that backward has nothing left to scale
        factor /= max(len(labels), 1)
    per_sample = ipm_per_sample(features, labels, prototypes, assignment, weight, factor, nan_policy == "skip")
    return per_sample if reduction == "none" else per_sample.sum()


def check_ipm(features: Tensor, labels: Tensor, prototypes: Tensor, assignment: Tensor, weight: Tensor | None) -> None:
    """Shapes and dtypes, and on the CPU the values of the weight."""
    check_matrix("features", features, min_rows=0)
    check_prototypes(prototypes)
    check_labels("labels", labels, len(features))
    if prototypes.shape[1] != features.shape[1]:
        raise ValueError(
            f"features are {shape_of(features)} and prototypes {shape_of(prototypes)}; expected the same D: "
            "make the backbone's output as wide as the prototypes"
        )
    check_labels("assignment", assignment, len(prototypes))
    check_weight(weight, labels)


def ipm_per_sample(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    weight: Tensor | None,
    factor: float,
    skip: bool,
    flag: Tensor | None = None,
    skipped: Tensor | None = None,
) -> Tensor:
    """factor · ω · ½(cos - 1)² of each sample [B], differentiable; shapes and dtypes are not looked at.

    ``flag`` int32 [1] gets the bits of what the kernel left out (None: the device's own flag); ``skipped`` int64 []
    grows by the rows that ``skip`` left out.
    """
    return with_gradient(_operator, features, labels, prototypes, assignment, weight, factor, skip, flag, skipped)


def with_gradient(
    operator: Callable[..., Any],
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    weight: Tensor | None,
    factor: float,
    *others: Any,
) -> Tensor:
    """The loss [B] of an operator that returns loss and gradient, with that gradient for ``features``.

    On the CPU factor and weight go into the operator: backward has then nothing left to scale. Elsewhere backward
    scales without looking, and float16 gradients must not be divided by B before a GradScaler has multiplied them.
    """
    refuse_transforms()
    folded = features.device.type == "cpu" and features.dtype != torch.float16
    inside = weight if folded and weight is not None and not weight.requires_grad else None
    within = factor if folded else 1.0
    loss: Tensor = _ReadyGradient.apply(features, operator, labels, prototypes, assignment, inside, within, *others)
    if within != factor:
        loss = loss * factor
    return loss if weight is None or inside is not None else loss * weight.to(loss.dtype)


class _ReadyGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, operator: Callable[..., Any], *arguments: Any) -> Tensor:
        loss: Tensor
        loss, gradient = operator(features, *arguments)
        ctx.save_for_backward(gradient)
        ctx.others = len(arguments)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        (gradient,) = ctx.saved_tensors
        if not _is_one(grad):
            gradient = _times(gradient, grad[:, None])
        return gradient, *[None] * (1 + ctx.others)


def _times(gradient: Tensor, grad: Tensor) -> Tensor:
    """The product in float32, rounded once; ``out`` saves the float32 [B, D] in between."""
    if torch.compiler.is_compiling() or gradient.dtype == grad.dtype or _batched(grad):
        return (gradient * grad).to(gradient.dtype)
    return torch.mul(gradient, grad, out=torch.empty_like(gradient))


def _batched(grad: Tensor) -> bool:
    """Whether it stands for several at once, as in a Jacobian that is taken with ``vectorize=True``."""
    return torch._C._functorch.is_batchedtensor(grad)


def _is_one(grad: Tensor) -> bool:
    """Whether it comes from ``loss.sum().backward()`` on the processor, where looking costs nothing."""
    if (
        torch.compiler.is_compiling()
        or _batched(grad)
        or grad.device.type != "cpu"
        or grad.stride(0) != 0
        or len(grad) == 0
    ):
        return False
    return float(grad[0]) == 1.0


def loss_and_gradient(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    weight: Tensor | None,
    factor: float,
    skip: bool,
    flag: Tensor | None,
    skipped: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Loss per sample [B] and its gradient with respect to that sample's features [B, D] (dtype of the features)."""
    weights = () if weight is None else (weight,)
    backend = resolve("ipm_loss", features, prototypes, labels, assignment, *weights).backend
    if backend == "triton":
        flag = flag_of(features.device, skip) if flag is None else flag
        loss, gradient = kernel("ipm_loss")(features, labels, prototypes, assignment, flag=flag, skipped=skipped)
        return scaled(loss, gradient, weight, factor)
    if backend == "numba":
        return _with_numba(features, labels, prototypes, assignment, weight, factor, skip, flag, skipped)
    check_label_range("labels", labels, len(prototypes))
    rows = assignment[labels]
    check_label_range("rows of the assignment", rows, len(prototypes))
    z, inverse = normalise(features, skip)
    w = prototypes[rows]
    check_unit_rows("prototypes of the batch", w)
    if skipped is not None:
        skipped += inverse.isnan().sum()
    residual = (z * w).sum(1, keepdim=True) - 1
    scale = (~inverse.isnan()).to(inverse.dtype) * factor  # torch.where of two numbers has the default dtype
    if weight is not None:
        scale = scale * weight[:, None]
    gradient = (w - (residual + 1) * z) * (scale * residual * inverse.nan_to_num())
    return (0.5 * scale * residual.square()).squeeze(1).to(z.dtype), gradient.to(features.dtype)


def shapes(features: Tensor, *_others: Any) -> tuple[Tensor, Tensor]:
    """Empty loss [B] and gradient [B, D]."""
    return features.new_empty(features.shape[0], dtype=compute_dtype(features)), features.new_empty(features.shape)


_operator = register("ipm_loss", loss_and_gradient, shapes, mutates=["flag", "skipped"])


def scaled(loss: Tensor, gradient: Tensor, weight: Tensor | None, factor: float) -> tuple[Tensor, Tensor]:
    """A kernel's loss and gradient times factor and weight, which :func:`with_gradient` gives it on the CPU alone."""
    if weight is None and factor == 1:
        return loss, gradient
    scale = torch.full_like(loss, factor) if weight is None else factor * weight.to(loss.dtype)
    return loss * scale, _times(gradient, scale[:, None])


def _with_numba(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    weight: Tensor | None,
    factor: float,
    skip: bool,
    flag: Tensor | None,
    skipped: Tensor | None,
) -> tuple[Tensor, Tensor]:
    rows = importlib.import_module("fastproto.cpu.ipm_loss")
    loss = torch.empty(len(features), dtype=torch.float32, device="cpu")  # whatever the defaults are
    gradient = torch.empty(features.shape, dtype=torch.float32, device="cpu")
    given = [x.detach().float().contiguous().numpy() for x in (features, prototypes)]
    omega = loss[:0] if weight is None else weight.detach().float().contiguous()
    wrong, row, count = rows.ipm_rows(
        given[0],
        labels.contiguous().numpy(),
        given[1],
        assignment.contiguous().numpy(),
        omega.numpy(),
        rows.np.float32(factor),
        rows.np.float32(unit_tolerance(prototypes.dtype)),
        skip,
        loss.numpy(),
        gradient.numpy(),
    )
    if wrong == rows.BAD_LABEL:
        check_label_range("labels", labels, len(prototypes))
    elif wrong == rows.BAD_ASSIGNMENT:
        check_label_range("rows of the assignment", assignment, len(prototypes))
    elif wrong == rows.NOT_UNIT:
        check_finite("prototypes", prototypes)
        raise not_unit("prototypes", prototypes, row)
    elif wrong == rows.NOT_FINITE:
        raise not_finite(row)
    if skipped is not None:
        skipped += count
    return loss, gradient.to(features.dtype)
