"""Input-to-prototype mapping loss, Eq. 6 and its family, with the gradient computed in the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fastproto.backend import kernel, resolve
from fastproto.support.checks import (
    check_label_range,
    check_labels,
    check_matrix,
    check_positive,
    check_prototypes,
    check_unit_rows,
    check_weight,
    shape_of,
)
from fastproto.support.error_flags import flag_of
from fastproto.support.loss_options import EQ6_POWER, LOSS_FACTORS, POWERS, IpmLoss, Loss, NanPolicy, Reduction
from fastproto.support.options import check_options
from fastproto.support.registration import product, register, with_gradient
from fastproto.support.row_norms import AT_TARGET, compute_dtype, normalise


def ipm_loss(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    *,
    power: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    loss: IpmLoss = "eq6",
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    """Input-to-prototype mapping loss: pulls every sample to the prototype its label is assigned to.

    ``z = F.normalize(features); (1 - (z * prototypes[assignment[labels]]).sum(1)) ** power / power``, Eq. 6 for power 2

    For any other power, 1 - cos is computed as ½‖z - w‖² where it is small: at the angle θ loss and gradient have a
    relative error of about 2 ε/θ (ε = 1e-7 in float32), not ε/θ². At the target, which is every angle within the
    rounding of z (4 ε), both are zero, for powers below 1 too. Elsewhere the gradient is finite; its norm times ‖x‖ is
    (1 - cos)^(power - 1) sin θ, which for power ½ is √2 cos(θ/2).

    CUDA tensors of the kernels' dtypes run on Triton, see :func:`fastproto.backend.resolve`, without a synchronisation.
    Values are then not checked: a row with a bad label or NaN has zero loss and gradient, and
    :func:`fastproto.functional.check_batches` reports it later. NaN weights propagate to the loss.

    Args:
        features: [B, D] float32, bfloat16, float16 or float64; a row with norm <= 1e-12 has loss 1/power and zero
            gradient.
        labels: int64 [B] in 0..C-1.
        prototypes: unit rows [C, D], without gradient; the rows that the batch uses are checked.
        assignment: int64 [C], a permutation: label y is represented by row ``assignment[y]``. Repeated rows are not
            detected, which would cost O(C) per step; :class:`fastproto.PrototypeHead` rules them out.
        power: p of (1 - cos)^p / p, 0.01 to 100; None is 2.
        weight: [B], a factor for each sample.
        reduction: ``mean`` (Σ ω L / B), ``sum`` or ``none``.
        loss: ``eq6`` or ``power`` (both (1 - cos)^p / p), or ``official`` for the (1 - cos)² of the authors' published
            code (twice Eq. 6).
        nan_policy: ``raise``, or ``skip``: rows with NaN or inf have zero loss and gradient.

    Returns:
        float32 (float64 for float64 features): a scalar, or [B] for ``none``. An empty batch has loss 0.

    Raises:
        TypeError, ValueError: shapes that do not match, labels out of range or not int64, NaN or inf in the features,
            prototypes that require grad, a power out of range or with ``official``.

    Source: Eq. 6 of Saadabadi et al., CVPR 2024; other powers than 2 are ours.
    """
    check_ipm(features, labels, prototypes, assignment, weight)
    check_options(reduction=reduction, loss=loss, nan_policy=nan_policy)
    if loss not in LOSS_FACTORS:
        raise ValueError(f"loss is {loss!r}, which is a loss of heads; expected one of {', '.join(LOSS_FACTORS)}")
    exponent = exponent_of("power" if loss == "eq6" and power is not None else loss, power)
    # with the 1/B of the mean, so that backward has nothing left to scale
    factor = LOSS_FACTORS[loss] / (max(len(labels), 1) if reduction == "mean" else 1)
    options = LossOptions(weight, factor, nan_policy == "skip")
    per_sample = ipm_per_sample(features, labels, prototypes, assignment, options, exponent)
    return per_sample if reduction == "none" else per_sample.sum()


def check_ipm(features: Tensor, labels: Tensor, prototypes: Tensor, assignment: Tensor, weight: Tensor | None) -> None:
    """Raise TypeError or ValueError for wrong shapes and dtypes and, on the CPU, for NaN weights."""
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


def exponent_of(loss: Loss, power: object) -> float:
    """The checked exponent of a form of the loss; ``power`` is None unless the form is ``power``.

    Raises:
        TypeError, ValueError: a power out of range, none for ``power``, or one for another form.
    """
    if loss != "power":
        if power is not None:
            raise ValueError(f"power is {power!r} with loss {loss!r}; expected none: pass loss='power' to use it")
        return EQ6_POWER
    if power is None:
        raise ValueError("power is None with loss 'power'; expected an exponent such as 0.5 (2 is Eq. 6)")
    exponent, (least, most) = check_positive("power", power, "0.5"), POWERS
    if not least <= exponent <= most:
        raise ValueError(f"power is {exponent}; expected an exponent from {least:g} to {most:g}, such as 0.5")
    return exponent


class LossOptions(NamedTuple):
    """The scaling of the loss and the treatment of bad rows; an operator takes the fields in this order.

    ``skip``: rows with NaN or inf have zero loss and gradient. ``flag`` int32 [1] receives the error bits of rows that
    a kernel left out (None: the device's own flag). ``skipped`` int64 [] grows by the rows that ``skip`` left out.
    """

    weight: Tensor | None = None
    factor: float = 1.0
    skip: bool = False
    flag: Tensor | None = None
    skipped: Tensor | None = None


def ipm_per_sample(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    options: LossOptions,
    power: float = EQ6_POWER,
) -> Tensor:
    """factor · ω · (1 - cos)^p / p of each sample [B], differentiable; shapes and dtypes are not checked."""
    return scaled_loss(_operator, features, labels, prototypes, assignment, options, power)


def scaled_loss(
    operator: Callable[..., tuple[Tensor, Tensor]],
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    options: LossOptions,
    *others: Tensor | float | None,
) -> Tensor:
    """The loss [B] of an operator that takes these arguments, the fields of ``options`` and then ``others``.

    On the CPU the operator applies factor and weight, so that backward has nothing left to scale. On a GPU autograd
    applies them after the operator, since backward scales there in any case (checking for a gradient of one would
    synchronise). Autograd also applies them to float16 features, whose gradients must not be divided by B before a
    GradScaler has multiplied them, and applies a weight that requires grad.
    """
    weight, factor, skip, flag, skipped = options
    early = features.device.type == "cpu" and features.dtype != torch.float16
    early_weight = weight if early and weight is not None and not weight.requires_grad else None
    early_factor = factor if early else 1.0
    loss = with_gradient(
        operator, features, labels, prototypes, assignment, early_weight, early_factor, skip, flag, skipped, *others
    )
    if early_factor != factor:
        loss = loss * factor
    return loss if weight is None or early_weight is not None else loss * weight.to(loss.dtype)


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
    power: float = EQ6_POWER,
) -> tuple[Tensor, Tensor]:
    """Loss per sample [B] and its gradient with respect to that sample's features [B, D] (dtype of the features)."""
    weights = () if weight is None else (weight,)
    backend = resolve("ipm_loss", features, prototypes, labels, assignment, *weights).backend
    if backend == "triton":
        flag = flag_of(features.device, skip) if flag is None else flag
        loss, gradient = kernel("ipm_loss")(
            features, labels, prototypes, assignment, power=power, flag=flag, skipped=skipped
        )
        return scaled(loss, gradient, weight, factor)
    if backend == "numba":
        from fastproto.cpu.ipm_loss import ipm_loss as in_numba

        return in_numba(features, labels, prototypes, assignment, weight, factor, skip, skipped, power)
    check_label_range("labels", labels, len(prototypes))
    rows = assignment[labels]
    check_label_range("rows of the assignment", rows, len(prototypes))
    z, inverse = normalise(features, skip)
    w = prototypes[rows]
    check_unit_rows("prototypes of the batch", w)
    if skipped is not None:
        skipped += inverse.isnan().sum()
    cosine = (z * w).sum(1, keepdim=True)
    scale = (~inverse.isnan()).to(inverse.dtype) * factor  # torch.where of two numbers has the default dtype
    if weight is not None:
        scale = scale * weight[:, None]
    residual = cosine - 1
    if power == EQ6_POWER:
        gradient = (w - (residual + 1) * z) * (scale * residual * inverse.nan_to_num())
        return (0.5 * scale * residual.square()).squeeze(1).to(z.dtype), gradient.to(features.dtype)
    value, steepness = _power_loss(z, w, inverse, power)
    gradient = (cosine * z - w) * (scale * steepness * inverse.nan_to_num())
    return (scale * value).squeeze(1).to(z.dtype), gradient.to(features.dtype)


def _power_loss(z: Tensor, w: Tensor, inverse: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """(1 - cos)^p / p and (1 - cos)^(p-1), both [B, 1]; 1 - cos is ½‖z - w‖², and 1 for a zero row."""
    residual = torch.where(inverse == 0, 1.0, 0.5 * (z - w).square().sum(1, keepdim=True))
    at_target = residual <= AT_TARGET[z.dtype]
    residual = torch.where(at_target, 1.0, residual)
    steepness = torch.where(at_target, 0.0, residual ** (power - 1))
    return steepness * residual / power, steepness


def shapes(features: Tensor, *_others: object) -> tuple[Tensor, Tensor]:
    """Empty loss [B] and gradient [B, D]."""
    return features.new_empty(features.shape[0], dtype=compute_dtype(features)), features.new_empty(features.shape)


_operator = register("ipm_loss", loss_and_gradient, shapes, mutates=["flag", "skipped"])


def scaled(loss: Tensor, gradient: Tensor, weight: Tensor | None, factor: float) -> tuple[Tensor, Tensor]:
    """A kernel's loss and gradient times factor and weight, which :func:`scaled_loss` passes on the CPU only."""
    if weight is None and factor == 1:
        return loss, gradient
    scale = torch.full_like(loss, factor) if weight is None else factor * weight.to(loss.dtype)
    return loss * scale, product(gradient, scale[:, None])
