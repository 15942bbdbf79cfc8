"""Class means, in place: q_y ← α q_y + (1-α) z for every sample in batch order, exact, deterministic, no C-sized work.

The batch is sorted by label (batch_order). A row of a program's tile walks over a few sorted positions: at the head of
a class's segment it takes q from the memory, at every sample it makes one step of the recurrence, and at the segment's
end it writes q back. A segment that crosses the border of two walks leaves a part in each; a second launch adds them:

    q = Σ_b α^{n_b} part_b,  n_b = samples of the segment behind walk b; the first part has begun with q

so a class that fills half the batch is walked by many programs. With prototypes the same walk forms the loss and the
gradient of Eq. 6 (head_step). Bytes: x once, q of the classes present twice; with the loss also dx once and w of the
classes present once; the parts are at most D float32 for each walk, and none where no class crosses a border.
A row with NaN, inf or a bad label is not a step.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .batch_order import batch_order
from .ipm_loss import loss_and_slope, prototype_of
from .lib.common import next_power_of_2
from .lib.row_blocks import count_skipped, inverse_norm, load_rows, raise_flag, row_block, store_rows


def walk_steps(batch: int) -> int:
    """Sorted positions of a walk: about 1000 walks fill an H100 at D = 512, but longer ones than 8 wait too long.

    A step is a chain of three loads, order or label, prototype number, row, that nothing but other walks can hide;
    shorter walks leave more parts.
    """
    return 2 if batch <= 2048 else 4 if batch <= 4096 else 8


@triton.jit(do_not_specialize=["B"])  # the last batch of an epoch is another size: no new compilation for it
def _update_class_means_kernel(
    features_ptr,
    order_ptr,
    sorted_ptr,
    means_ptr,
    parts_ptr,
    counts_ptr,
    flag_ptr,
    prototypes_ptr,
    assignment_ptr,
    loss_ptr,
    gradient_ptr,
    skipped_ptr,
    B,
    C,
    D,
    steps,
    stride_row,
    stride_column,
    stride_prototype,
    momentum,
    share,
    factor,
    ROUNDS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    walk = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_D
    mean = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    began, count = tl.zeros([BLOCK_M], tl.int1), tl.zeros([BLOCK_M], tl.int32)
    for step in tl.range(0, steps):
        position = walk * steps + step
        live = position < B
        label = tl.load(sorted_ptr + position, mask=live, other=C).to(tl.int64)
        known = label < C
        head = tl.load(sorted_ptr + position - 1, mask=live & (position > 0), other=-1) != label
        tail = tl.load(sorted_ptr + position + 1, mask=position + 1 < B, other=-1) != label
        sample = tl.load(order_ptr + position, mask=live, other=0).to(tl.int64)
        x = load_rows(features_ptr, sample, stride_row, stride_column, column, D, live, BLOCK_D)
        squares = tl.sum(x * x, 1)
        if ROUNDS > 1:  # this program has 4096 columns of the row, its length needs all
            squares = tl.zeros([BLOCK_M], tl.float32)
            for k in tl.static_range(0, ROUNDS):
                x_k = load_rows(features_ptr, sample, stride_row, stride_column, k * BLOCK_D, D, live, BLOCK_D)
                squares += tl.sum(x_k * x_k, 1)
        inverse, finite = inverse_norm(squares)
        if skipped_ptr is not None:  # here, with the least in registers: after the loss's stores it spilled on sm_100
            count_skipped(skipped_ptr, live, finite)
        good, began = known & finite, began | head
        z = tl.where(good[:, None], x, 0.0) * inverse[:, None]
        mean = tl.where(head[:, None], load_rows(means_ptr, label, D, 1, column, D, known & head, BLOCK_D), mean)
        mean = tl.where(good[:, None], momentum * mean + share * z, mean)
        count = tl.where(head, 0, count) + good.to(tl.int32)
        store_rows(means_ptr, label, column, D, mean, known & tail & began, BLOCK_D)
        # the end of a segment that began in an earlier walk, or what goes on in the next one
        left = tl.where(tail, began == 0, position + 1 == (walk + 1) * steps) & known
        slot = 2 * walk + tl.where(tail, 0, 1)
        store_rows(parts_ptr, slot, column, D, mean, left, BLOCK_D)
        tl.store(counts_ptr + slot, count, mask=left)
        assigned = known
        if prototypes_ptr is not None:
            row, assigned = prototype_of(label, known, assignment_ptr, C)
            w = load_rows(prototypes_ptr, row, stride_prototype, 1, 0, D, known, BLOCK_D)
            loss, cosine, slope = loss_and_slope(tl.sum(x * w, 1), inverse, good & assigned, factor)
            tl.store(loss_ptr + sample, loss, mask=live)
            store_rows(gradient_ptr, sample, 0, D, slope[:, None] * (w - cosine[:, None] * z), live, BLOCK_D)
        if flag_ptr is not None:
            raise_flag(flag_ptr, live, known, assigned, finite)


@triton.jit(do_not_specialize=["B"])
def _join_parts_kernel(
    sorted_ptr,
    means_ptr,
    parts_ptr,
    counts_ptr,
    B,
    C,
    D,
    steps,
    log2_momentum,
    BLOCK_W: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program w: the segment that began in an earlier walk and ends in walk w + 1, if there is one."""
    walk = tl.program_id(0).to(tl.int64) + 1
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    label = tl.load(sorted_ptr + walk * steps)
    goes_on = (label < C) & (tl.load(sorted_ptr + walk * steps - 1) == label)
    beyond = (walk + 1) * steps
    ends = goes_on & (tl.load(sorted_ptr + beyond, mask=beyond < B, other=-1) != label)
    m_d = o_d < tl.where(ends, D, 0)
    behind = tl.load(counts_ptr + 2 * walk, mask=ends, other=0)
    mean = tl.load(parts_ptr + 2 * walk * D + o_d, mask=m_d, other=0.0)
    first, more = walk, ends
    while more:
        first -= BLOCK_W
        o_w = first + BLOCK_W - 1 - tl.arange(0, BLOCK_W)  # from the nearest walk to the farthest
        mine = tl.load(sorted_ptr + (o_w + 1) * steps - 1, mask=o_w >= 0, other=-1) == label
        count = tl.load(counts_ptr + 2 * o_w + 1, mask=mine, other=0)
        weight = tl.exp2((behind + tl.cumsum(count, 0) - count).to(tl.float32) * log2_momentum)
        at = (2 * o_w + 1)[:, None] * D + o_d[None, :]
        mean += tl.sum(weight[:, None] * tl.load(parts_ptr + at, mask=mine[:, None] & m_d[None, :], other=0.0), 0)
        behind += tl.sum(count, 0)
        # float32 ends at 2^-149: what lies farther back has no weight
        more = (tl.min(mine.to(tl.int32), 0) == 1) & (behind.to(tl.float32) * log2_momentum > -150)
    tl.store(means_ptr + label.to(tl.int64) * D + o_d, mean, mask=m_d)


def update_class_means_(
    means: Tensor, features: Tensor, labels: Tensor, momentum: float, *, flag: Tensor | None = None
) -> None:
    """means [C, D] float32, contiguous, change in place in the rows of the classes present.

    features [B, D] float32, bfloat16 or float16 with any strides; labels int64 [B]; momentum in [0, 1). Rows that are
    left out set the bits ``rows.BAD_LABEL`` and ``NOT_FINITE`` of ``flag`` (int32 [1]).
    """
    walk_batch(means, features, labels, momentum, flag, {})


def walk_batch(
    means: Tensor, features: Tensor, labels: Tensor, momentum: float, flag: Tensor | None, loss: dict[str, Any]
) -> None:
    """The launches of update_class_means_; ``loss`` holds the kernel's arguments for the loss, or none of them."""
    (b, dim), c = features.shape, means.shape[0]
    if b == 0:
        return
    block, steps = row_block(dim, per_thread=8), walk_steps(b)
    walks = -(-b // steps)
    parts = torch.empty((2 * walks, dim), dtype=torch.float32, device=features.device)
    counts = torch.empty(2 * walks, dtype=torch.int32, device=features.device)
    order, ordered = batch_order(labels, c)
    with torch.cuda.device_of(features):
        _update_class_means_kernel[(-(-walks // block.rows), block.rounds)](
            features_ptr=features,
            order_ptr=order,
            sorted_ptr=ordered,
            means_ptr=means,
            parts_ptr=parts,
            counts_ptr=counts,
            flag_ptr=flag,
            B=b,
            C=c,
            D=dim,
            steps=steps,
            stride_row=features.stride(0),
            stride_column=features.stride(1),
            momentum=momentum,
            share=1 - momentum,
            ROUNDS=block.rounds,
            BLOCK_M=block.rows,
            BLOCK_D=block.width,
            num_warps=block.num_warps,
            **(_NO_LOSS | loss),
        )
        if walks > 1:
            _join_parts(means, parts, counts, ordered, steps, momentum)


_NO_LOSS: dict[str, Any] = dict.fromkeys(
    ("prototypes_ptr", "assignment_ptr", "loss_ptr", "gradient_ptr", "skipped_ptr")
)
_NO_LOSS |= {"stride_prototype": 0, "factor": 0.0}


def _join_parts(means: Tensor, parts: Tensor, counts: Tensor, ordered: Tensor, steps: int, momentum: float) -> None:
    dim = means.shape[1]
    block_d = min(128, next_power_of_2(dim))
    _join_parts_kernel[(parts.shape[0] // 2 - 1, -(-dim // block_d))](
        sorted_ptr=ordered,
        means_ptr=means,
        parts_ptr=parts,
        counts_ptr=counts,
        B=ordered.shape[0],
        C=means.shape[0],
        D=dim,
        steps=steps,
        log2_momentum=math.log2(momentum) if momentum else -1e30,
        BLOCK_W=32,  # 256 samples at once where walks are long, 32 numbers a thread
        BLOCK_D=block_d,
        num_warps=4,
    )
