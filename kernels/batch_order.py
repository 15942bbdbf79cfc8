"""Stable sort of a batch by label, in one launch that counts the position of every sample.

    position_i = #{j: y_j < y_i} + #{j < i: y_j = y_i}

For small B, B² comparisons of 32-bit numbers cost less than the several launches of a radix sort; torch sorts larger
batches. Each thread keeps its own counts to the end: a reduction across threads at every step would be much slower.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .lib.variants import Variant

COUNTED_MAX = 16_384  # labels; from there on, 4 instructions per pair take longer than a radix sort


@triton.jit(do_not_specialize=["B"])
def _batch_order_kernel(labels_ptr, order_ptr, sorted_ptr, B, C, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr):
    o_i = tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    mine = tl.load(labels_ptr + o_i, mask=o_i < B, other=0)
    mine = tl.where((mine >= 0) & (mine < C), mine, C).to(tl.int32)
    counts = tl.zeros([BLOCK_I, BLOCK_J], tl.int32)
    for start in tl.range(0, B, BLOCK_J):
        o_j = start + tl.arange(0, BLOCK_J)
        theirs = tl.load(labels_ptr + o_j, mask=o_j < B, other=0)
        theirs = tl.where((theirs >= 0) & (theirs < C), theirs, C).to(tl.int32)
        theirs = tl.where(o_j < B, theirs, 0x7FFFFFFF)  # after every label
        # y_j < y_i, or y_j <= y_i where j < i
        counts += (theirs[None, :] < mine[:, None] + (o_j[None, :] < o_i[:, None]).to(tl.int32)).to(tl.int32)
    position = tl.sum(counts, 1)
    tl.store(order_ptr + position, o_i, mask=o_i < B)
    tl.store(sorted_ptr + position, mine, mask=o_i < B)


def batch_order(labels: Tensor, classes: int, *, counted_max: int = COUNTED_MAX) -> tuple[Tensor, Tensor]:
    """(order, sorted labels), both [B] int32: the sample at each sorted position, and its label.

    labels int64 [B]; a label outside 0..classes-1 becomes ``classes`` (at most 2^31 - 2) and comes last. torch sorts
    more than ``counted_max`` labels.
    """
    b = labels.shape[0]
    if b > counted_max:
        known = labels.masked_fill((labels < 0) | (labels >= classes), classes).to(torch.int32)
        ordered, order = known.sort(stable=True)
        return order, ordered
    order = torch.empty(b, dtype=torch.int32, device=labels.device)
    ordered = torch.empty_like(order)
    with torch.cuda.device_of(labels):
        # 32 labels a program: 256 programs at B = 8192, two for each multiprocessor of an H100
        _batch_order_kernel[(-(-b // 32),)](
            labels_ptr=labels.contiguous(),
            order_ptr=order,
            sorted_ptr=ordered,
            B=b,
            C=classes,
            BLOCK_I=32,
            BLOCK_J=512,
            num_warps=8,
        )
    return order, ordered


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    yield Variant(
        kernel="batch_order",
        name="int64",
        dim=dims[-1],
        function=_batch_order_kernel,
        types={"labels_ptr": "i64", "order_ptr": "i32", "sorted_ptr": "i32"},
        constants={"BLOCK_I": 32, "BLOCK_J": 512},
        num_warps=8,
        bytes=16 * COUNTED_MAX,
        flops=4 * COUNTED_MAX**2,
    )
