"""One training step of the head: loss, gradient and class means from one read of the features.

The results are those of ipm_loss and update_class_means. The kernel walks the sorted batch (lib/class_mean_update) and
computes the loss at every step. Memory traffic: the features and their gradient once, the rows of q of the
labels in the batch twice (read and write), their prototypes once.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .batch_order import batch_order
from .ipm_loss import (
    EQ6,
    POWER_NAMES,
    compiled_power,
    ipm_loss,
    loss_and_slope,
    power_loss_and_slope,
    prototype_of,
    squared_distance,
)
from .lib.class_mean_update import begin_walk, cut_into_walks, join_parts, sorted_sample, step_means
from .lib.error_flags import count_skipped, raise_flag
from .lib.row_blocks import inverse_norm, load_rows, store_rows
from .lib.tile_sizes import WIDEST, row_block
from .lib.variants import ROWS, Variant, row_kernel_dims
from .update_class_means import update_class_means_


# More parameters than a kernel should have: it merges the loss kernel and the class-means kernel
@triton.jit(do_not_specialize=["B"])  # no new compilation for a smaller last batch
def _head_step_kernel(
    features_ptr, order_ptr, sorted_ptr, means_ptr, parts_ptr, counts_ptr, flag_ptr,
    prototypes_ptr, assignment_ptr, loss_ptr, gradient_ptr, skipped_ptr,
    B, C, D, steps,
    stride_row, stride_column, stride_prototype,
    momentum, share, exponent, over_power,
    POWER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    BLOCK_ROWS: tl.constexpr = BLOCK.rows
    BLOCK_WIDTH: tl.constexpr = BLOCK.width
    walk = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    mean, began, count = begin_walk(BLOCK)
    for step in tl.range(0, steps):
        position = walk * steps + step
        sample, label, live, known, head, tail = sorted_sample(order_ptr, sorted_ptr, position, B, C)
        x = load_rows(features_ptr, sample, stride_row, stride_column, 0, D, live, BLOCK_WIDTH)
        inverse, finite = inverse_norm(tl.sum(x * x, 1))
        # the counter and the flag come here, where few registers are live: after the loss they would spill on sm_80
        if skipped_ptr is not None:
            count_skipped(skipped_ptr, live, finite)
        row, assigned = prototype_of(label, known, assignment_ptr, C)
        if flag_ptr is not None:
            raise_flag(flag_ptr, live, known, assigned, finite)
        good = known & finite
        z = tl.where(good[:, None], x, 0.0) * inverse[:, None]
        mean, began, count = step_means(
            means_ptr, parts_ptr, counts_ptr, mean, began, count, z, good, walk, position, steps,
            label, known, head, tail, 0, D, momentum, share, BLOCK,
        )  # fmt: skip
        w = load_rows(prototypes_ptr, row, stride_prototype, 1, 0, D, known, BLOCK_WIDTH)
        if POWER == 2.0:
            loss, cosine, slope = loss_and_slope(tl.sum(x * w, 1), inverse, good & assigned)
        else:  # from z alone: x needs no registers here
            cosine = tl.sum(z * w, 1)
            loss, slope = power_loss_and_slope(
                squared_distance(z, w), inverse, good & assigned, exponent, over_power, POWER
            )
        tl.store(loss_ptr + sample, loss, mask=live)
        store_rows(gradient_ptr, sample, 0, D, slope[:, None] * (w - cosine[:, None] * z), live, BLOCK_WIDTH)


def head_step_(
    means: Tensor,
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    *,
    momentum: float,
    power: float = EQ6,
    flag: Tensor | None = None,
    skipped: Tensor | None = None,
    steps: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss per sample [B] float32 and its gradient [B, D]; means [C, D] change in place.

    Arguments as in ipm_loss and update_class_means_. Rows of more than 4096 columns do not fit a program: the two
    kernels run one after the other.
    """
    b, dim = features.shape
    if dim > WIDEST or b == 0:
        losses, gradient = ipm_loss(features, labels, prototypes, assignment, power=power, flag=flag, skipped=skipped)
        update_class_means_(means, features, labels, momentum, flag=flag, steps=steps)
        return losses, gradient
    prototypes = prototypes if prototypes.stride(1) == 1 else prototypes.contiguous()
    losses = torch.empty(b, dtype=torch.float32, device=features.device)
    gradient = torch.empty(features.shape, dtype=features.dtype, device=features.device)
    block, walks = row_block(dim, per_thread=8), cut_into_walks(features, steps)
    order, ordered = batch_order(labels, means.shape[0])
    with torch.cuda.device_of(features):
        _head_step_kernel[(-(-walks.number // block.rows),)](
            features_ptr=features, order_ptr=order, sorted_ptr=ordered, means_ptr=means,
            parts_ptr=walks.parts, counts_ptr=walks.counts, flag_ptr=flag,
            prototypes_ptr=prototypes, assignment_ptr=assignment.contiguous(),
            loss_ptr=losses, gradient_ptr=gradient, skipped_ptr=skipped,
            B=b, C=means.shape[0], D=dim, steps=walks.steps,
            stride_row=features.stride(0), stride_column=features.stride(1),
            stride_prototype=prototypes.stride(0),
            momentum=momentum, share=1 - momentum,
            exponent=power - 1.0, over_power=1 / power,
            POWER=compiled_power(power), BLOCK=block, num_warps=block.num_warps,
        )  # fmt: skip
        join_parts(means, walks, ordered, momentum)
    return losses, gradient


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    # "counting": the form of nan_policy="skip", which counts the skipped rows
    forms = itertools.product(("", " counting"), POWER_NAMES.items())
    for dim, x, (form, (power, named)) in itertools.product(row_kernel_dims(dims), ("fp32", "bf16"), forms):
        block, size = row_block(dim, per_thread=8), 4 if x == "fp32" else 2
        yield Variant(
            kernel="head_step",
            name=named + x + form,
            dim=dim,
            function=_head_step_kernel,
            types={"features_ptr": x, "gradient_ptr": x, "momentum": "fp32", "share": "fp32"}
            | dict.fromkeys(("exponent", "over_power"), "fp32")
            | dict.fromkeys(("order_ptr", "sorted_ptr", "counts_ptr", "flag_ptr"), "i32")
            | {"assignment_ptr": "i64"}
            | ({"skipped_ptr": "i64"} if form else {}),
            constants={"stride_column": 1, "POWER": power, "BLOCK": block, **({} if form else {"skipped_ptr": None})},
            num_warps=block.num_warps,
            bytes=ROWS * dim * (size + 8 + size + 4),  # every sample has another class
        )
