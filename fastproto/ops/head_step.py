"""A training step of the head: loss, gradient and class means, on the GPU from one read of the features."""

from __future__ import annotations

from torch import Tensor

from fastproto.backend import kernel, resolve
from fastproto.ops.ipm_loss import LossOptions, loss_and_gradient, scaled, scaled_loss, shapes
from fastproto.ops.update_class_means import copy_if_shared, mark_written, move_means_
from fastproto.support.loss_options import EQ6_POWER
from fastproto.support.registration import register


def head_step_(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    options: LossOptions,
    means: Tensor,
    momentum: float,
    power: float,
) -> Tensor:
    """:func:`fastproto.ops.ipm_loss.ipm_per_sample` [B], differentiable; updates ``means`` [C, D] in place."""
    return scaled_loss(_operator, features, labels, prototypes, assignment, options, means, momentum, power)


def _head_step_(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    weight: Tensor | None,
    factor: float,
    skip: bool,
    flag: Tensor,
    skipped: Tensor | None,
    means: Tensor,
    momentum: float,
    power: float = EQ6_POWER,
) -> tuple[Tensor, Tensor]:
    """:func:`fastproto.ops.ipm_loss.loss_and_gradient`; updates ``means`` [C, D] as ``update_class_means_`` does."""
    choice = resolve("head_step_", features, labels, prototypes, assignment, means)
    if choice.backend == "triton" and means.is_contiguous():
        features, labels, prototypes = (copy_if_shared(x, means) for x in (features, labels, prototypes))
        loss, gradient = kernel("head_step_")(
            means,
            features,
            labels,
            prototypes,
            assignment,
            momentum=momentum,
            power=power,
            flag=flag,
            skipped=skipped,
        )
        mark_written(means)
        return scaled(loss, gradient, weight, factor)
    found = loss_and_gradient(features, labels, prototypes, assignment, weight, factor, skip, flag, skipped, power)
    move_means_(means, features, labels, momentum, skip, flag)  # a bad batch has already raised
    return found


_operator = register("head_step_", _head_step_, shapes, mutates=["flag", "skipped", "means"])
