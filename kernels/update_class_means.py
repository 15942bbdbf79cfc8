"""Class means, in place: q_y ← α q_y + (1-α) z for every sample in batch order; exact, deterministic, independent of C.

The batch is sorted by label (batch_order) and split into walks (lib/class_mean_update). Memory traffic: the features
once, the rows of q of the labels in the batch twice (read and write), and at most D float32 per walk for classes that
cross the border of two walks. A row with NaN, inf or an unknown label is skipped.
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
from .lib.class_mean_update import begin_walk, cut_into_walks, join_parts, sorted_sample, step_means
from .lib.error_flags import raise_flag
from .lib.row_blocks import inverse_norm, load_rows
from .lib.tile_sizes import row_block
from .lib.variants import ROWS, Variant, row_kernel_dims


@triton.jit(do_not_specialize=["B"])  # no new compilation for a smaller last batch
def _update_class_means_kernel(
    features_ptr, order_ptr, sorted_ptr, means_ptr, parts_ptr, counts_ptr, flag_ptr,
    B, C, D, steps,
    stride_row, stride_column,
    momentum, share,
    BLOCK: tl.constexpr,
):  # fmt: skip
    BLOCK_ROWS: tl.constexpr = BLOCK.rows
    BLOCK_WIDTH: tl.constexpr = BLOCK.width
    ROUNDS: tl.constexpr = BLOCK.rounds
    walk = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1) * BLOCK_WIDTH
    mean, began, count = begin_walk(BLOCK)
    for step in tl.range(0, steps):
        position = walk * steps + step
        sample, label, live, known, head, tail = sorted_sample(order_ptr, sorted_ptr, position, B, C)
        x = load_rows(features_ptr, sample, stride_row, stride_column, column, D, live, BLOCK_WIDTH)
        squares = tl.sum(x * x, 1)
        if ROUNDS > 1:  # this program has 4096 columns of the row, but the norm needs all
            squares = tl.zeros([BLOCK_ROWS], tl.float32)
            for k in tl.static_range(0, ROUNDS):
                x_k = load_rows(features_ptr, sample, stride_row, stride_column, k * BLOCK_WIDTH, D, live, BLOCK_WIDTH)
                squares += tl.sum(x_k * x_k, 1)
        inverse, finite = inverse_norm(squares)
        good = known & finite
        z = tl.where(good[:, None], x, 0.0) * inverse[:, None]
        mean, began, count = step_means(
            means_ptr, parts_ptr, counts_ptr, mean, began, count, z, good, walk, position, steps,
            label, known, head, tail, column, D, momentum, share, BLOCK,
        )  # fmt: skip
        if flag_ptr is not None:
            raise_flag(flag_ptr, live, known, known, finite)


def update_class_means_(
    means: Tensor,
    features: Tensor,
    labels: Tensor,
    momentum: float,
    *,
    flag: Tensor | None = None,
    steps: int | None = None,
) -> None:
    """Updates the rows of means [C, D] (float32, contiguous) of the classes in the batch, in place.

    features [B, D] float32, bfloat16 or float16 with any strides; labels int64 [B]; momentum in [0, 1). Skipped rows
    set the bits ``BAD_LABEL`` and ``NOT_FINITE`` (lib/error_flags) of ``flag``, int32 [1]. ``steps`` replaces the
    default length of a walk.
    """
    (b, dim), c = features.shape, means.shape[0]
    if b == 0:
        return
    block, walks = row_block(dim, per_thread=8), cut_into_walks(features, steps)
    order, ordered = batch_order(labels, c)
    with torch.cuda.device_of(features):
        _update_class_means_kernel[(-(-walks.number // block.rows), block.rounds)](
            features_ptr=features, order_ptr=order, sorted_ptr=ordered, means_ptr=means,
            parts_ptr=walks.parts, counts_ptr=walks.counts, flag_ptr=flag,
            B=b, C=c, D=dim, steps=walks.steps,
            stride_row=features.stride(0), stride_column=features.stride(1),
            momentum=momentum, share=1 - momentum,
            BLOCK=block, num_warps=block.num_warps,
        )  # fmt: skip
        join_parts(means, walks, ordered, momentum)


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    for dim, x in itertools.product(row_kernel_dims(dims), ("fp32", "bf16")):
        block = row_block(dim, per_thread=8)
        yield Variant(
            kernel="update_class_means",
            name=x,
            dim=dim,
            function=_update_class_means_kernel,
            types={"features_ptr": x, "momentum": "fp32", "share": "fp32"}
            | dict.fromkeys(("order_ptr", "sorted_ptr", "counts_ptr", "flag_ptr"), "i32"),
            constants={"stride_column": 1, "BLOCK": block},
            num_warps=block.num_warps,
            bytes=ROWS * dim * ((4 if x == "fp32" else 2) + 8),  # every sample has another class
        )
