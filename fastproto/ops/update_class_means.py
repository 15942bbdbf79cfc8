"""Class means: the exponential moving average of the normalised features of each class, exact and in batch order."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.backend import kernel, resolve
from fastproto.support.checks import check_label_range, check_labels, check_matrix, check_momentum, shape_of
from fastproto.support.error_flags import flag_of
from fastproto.support.loss_options import NanPolicy
from fastproto.support.options import check_options
from fastproto.support.registration import register
from fastproto.support.row_norms import normalise

OFFICIAL_MOMENTUM = 0.95  # the authors' q ← 1.9 q + 0.1 z, then normalised: the direction of 0.95 q + 0.05 z


def update_class_means_(
    means: Tensor, features: Tensor, labels: Tensor, momentum: float, *, nan_policy: NanPolicy = "raise"
) -> None:
    """Exponential moving average of the normalised features per class, in place, touching only the classes present.

    ``for z, y in zip(F.normalize(features), labels): means[y] = momentum * means[y] + (1 - momentum) * z``, so that
    several samples of one class in a batch all count, in batch order.

    CUDA tensors of the kernels' dtypes run on Triton (float32 contiguous means), without a synchronisation: bad rows do
    not count, and :func:`fastproto.functional.check_batches` reports them later.

    Args:
        means: [C, D] float32 or float64, changed in place; may share memory with features and labels, but no two of its
            entries may overlap.
        features: [B, D], any float dtype; no gradient flows.
        labels: int64 [B] in 0..C-1.
        momentum: α in [0, 1).
        nan_policy: ``raise``, or ``skip``: rows with NaN or inf do not count.

    Raises:
        TypeError, ValueError: shapes, dtypes, means that require grad or whose entries overlap in memory, labels out of
            range, NaN or inf in the features; the means are then unchanged.

    Source: Algorithm 1 of Saadabadi et al., CVPR 2024.
    """
    check_matrix("means", means)
    check_matrix("features", features, min_rows=0)
    check_labels("labels", labels, len(features))
    if means.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"means are {means.dtype}; expected float32 or float64, which keep small updates")
    if means.shape[1] != features.shape[1]:
        raise ValueError(f"means are {shape_of(means)} and features {shape_of(features)}; expected the same D")
    momentum = check_momentum(momentum)
    check_options(nan_policy=nan_policy)
    _check_own_memory(means)
    if len(labels):
        move_means_(means, features.detach(), labels, momentum, nan_policy == "skip", None)


def _check_own_memory(means: Tensor) -> None:
    """Raise ValueError unless means can be written to: no grad, no inference mode, no two entries in one place."""
    if means.requires_grad:
        raise ValueError("means require grad; expected a tensor without: pass means.detach()")
    if torch.compiler.is_compiling():
        return
    if means.is_inference() and not torch.is_inference_mode_enabled():
        raise ValueError("means were made in inference mode; expected a tensor that can be changed: pass means.clone()")
    least = 1
    shared = False
    for stride, size in sorted((stride, size) for stride, size in zip(means.stride(), means.shape, strict=True)):
        shared |= size > 1 and stride < least
        least = max(least, stride * size)
    if shared:
        raise ValueError(
            f"means have strides {means.stride()}, with which entries overlap in memory; expected separate entries: "
            "pass means.clone()"
        )


def copy_if_shared(tensor: Tensor, means: Tensor) -> Tensor:
    """The tensor, or a copy if it shares memory with the means, which are written while it is read."""
    same = tensor.untyped_storage().data_ptr() == means.untyped_storage().data_ptr()
    return tensor.clone() if same else tensor


def mark_written(means: Tensor) -> None:
    """Increment the version of means that a kernel has written, so that autograd refuses tensors saved before."""
    if not means.is_inference():
        torch.autograd.graph.increment_version(means)


def update_class_means(
    means: Tensor, features: Tensor, labels: Tensor, momentum: float, *, nan_policy: NanPolicy = "raise"
) -> Tensor:
    """A new tensor [C, D] with the update of :func:`update_class_means_`; ``means`` is unchanged.

    Arguments and errors are those of :func:`update_class_means_`.
    """
    updated = means.clone()
    update_class_means_(updated, features, labels, momentum, nan_policy=nan_policy)
    return updated


def _update_class_means_(
    means: Tensor, features: Tensor, labels: Tensor, momentum: float, skip: bool, flag: Tensor | None
) -> None:
    """:func:`update_class_means_` without checks of shapes and dtypes; ``flag`` as in LossOptions."""
    if len(labels) == 0:
        return
    features, labels = copy_if_shared(features, means), copy_if_shared(labels, means)
    backend = resolve("update_class_means_", means, features, labels).backend
    if not means.is_contiguous():  # the kernels of numba and Triton take contiguous rows
        backend = "torch"
    if backend == "triton":
        flag = flag_of(means.device, skip) if flag is None else flag
        kernel("update_class_means_")(means, features, labels, momentum, flag=flag)
        mark_written(means)
        return
    if backend == "numba":
        from fastproto.cpu.update_class_means import update_class_means_ as in_numba

        in_numba(means, features, labels, momentum, skip)
        mark_written(means)
        return
    check_label_range("labels", labels, len(means))
    z, inverse = normalise(features, skip)
    if skip:
        counted = ~inverse.isnan().squeeze(1)
        z, labels = z[counted], labels[counted]
    if len(labels) == 0:
        return
    order = torch.argsort(labels, stable=True)
    classes, counts = torch.unique_consecutive(labels[order], return_counts=True)
    # q ← αⁿ q + (1-α) Σ_r α^{n-1-r} z_r, r the sample's rank within its class: the recurrence written as one sum
    after = torch.cumsum(counts, 0).repeat_interleave(counts) - 1 - torch.arange(len(order), device=order.device)
    share = (1 - momentum) * torch.pow(torch.tensor(momentum, dtype=torch.float64), after.double())
    z = z.to(means.dtype)[order] * share.to(means.dtype)[:, None]
    added = torch.segment_reduce(z, "sum", lengths=counts, axis=0)
    kept = torch.pow(torch.tensor(momentum, dtype=torch.float64), counts.double()).to(means.dtype)[:, None]
    means.index_copy_(0, classes, kept * means[classes] + added)


def _update_class_means_shapes(
    means: Tensor, features: Tensor, labels: Tensor, momentum: float, skip: bool, flag: Tensor | None
) -> None:
    return None


move_means_ = register(
    "update_class_means_", _update_class_means_, _update_class_means_shapes, mutates=["means", "flag"]
)


@torch.no_grad()
def move_official_means_(means: Tensor, features: Tensor, labels: Tensor) -> None:
    """The authors' published update, in place: q_y ← F.normalize(0.95 q_y + 0.05 z) with the last sample of each class.

    Without a synchronisation: every sample writes the new row of its class, the same for all samples of a class. A bad
    sample writes the row of a good one; a batch without a good sample writes rows back unchanged.
    """
    count = len(means)
    z, inverse = normalise(features, skip=True)
    good = (labels >= 0) & (labels < count) & ~inverse.isnan().squeeze(1)
    own = torch.arange(len(labels), device=labels.device)
    classes = labels[torch.where(good, own, good.int().argmax())].clamp(0, count - 1)
    ordered, order = torch.where(good, labels, -1).sort(stable=True)
    last = order[(torch.searchsorted(ordered, classes, right=True) - 1).clamp_min(0)]
    before = means[classes]
    row = torch.nn.functional.normalize(OFFICIAL_MOMENTUM * before + (1 - OFFICIAL_MOMENTUM) * z[last], dim=1)
    means.index_copy_(0, classes, torch.where(good.any(), row.to(before.dtype), before))
