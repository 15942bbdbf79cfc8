"""A training step of the head: loss, gradient and class means, on the GPU from one read of the features."""

from __future__ import annotations

from torch import Tensor

from fastproto.backend import kernel, resolve
from fastproto.ipm import compute_dtype, loss_and_gradient, scaled, with_gradient
from fastproto.means import move_means_
from fastproto.operators import register


def head_step_(
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
) -> Tensor:
    """:func:`fastproto.ipm.ipm_per_sample`, and ``means`` [C, D] move as by ``update_class_means_``."""
    more = (skip, flag, skipped, means, momentum)
    return with_gradient(_operator, features, labels, prototypes, assignment, weight, factor, *more)


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
) -> tuple[Tensor, Tensor]:
    choice = resolve("head_step_", features, labels, prototypes, assignment, means)
    if choice.backend == "triton" and means.is_contiguous():
        loss, gradient = kernel("head_step_")(
            means, features, labels, prototypes, assignment, momentum=momentum, flag=flag, skipped=skipped
        )
        return scaled(loss, gradient, weight, factor)
    found = loss_and_gradient(features, labels, prototypes, assignment, weight, factor, skip, flag, skipped)
    move_means_(means, features, labels, momentum, skip, flag)  # a bad batch has been refused by now
    return found


def _head_step_shapes(
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
) -> tuple[Tensor, Tensor]:
    return features.new_empty(features.shape[0], dtype=compute_dtype(features)), features.new_empty(features.shape)


_operator = register("head_step_", _head_step_, _head_step_shapes, mutates=["flag", "skipped", "means"])
