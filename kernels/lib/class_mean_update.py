"""Walks over a batch sorted by label: the class-mean recurrence, shared by update_class_means and head_step.

A walk is a run of consecutive sorted positions. It loads q at the first sample of a class, makes one step of the
recurrence at every sample, and stores q at the last sample of the class. A class that crosses the border of two walks
leaves a partial result in each, and a second launch joins them:

    q = Σ_b α^{n_b} part_b,  n_b = samples of the class after walk b; the first part starts from q

Many programs thus share a class that fills half the batch.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import next_power_of_2
from .row_blocks import load_rows, store_rows
from .variants import ROWS, Variant


class Walks(NamedTuple):
    """How a batch is cut into walks, and where they leave the parts of classes that cross a border."""

    number: int
    steps: int  # sorted positions per walk
    parts: Tensor  # [2 · number, D] float32: for each walk, partial results of its first and of its last class
    counts: Tensor  # [2 · number] int32: samples of each part


def walk_steps(batch: int) -> int:
    """Sorted positions per walk.

    A step is a chain of three dependent loads (order and label, prototype index, row); only other walks hide its
    latency. About 1000 walks fill an H100 at D = 512. Shorter walks leave more parts; walks of more than 8 steps have
    too much latency.
    """
    return 2 if batch <= 2048 else 4 if batch <= 4096 else 8


def cut_into_walks(features: Tensor, steps: int | None) -> Walks:
    batch, dim = features.shape
    steps = steps or walk_steps(batch)
    number = -(-batch // steps)
    parts = torch.empty((2 * number, dim), dtype=torch.float32, device=features.device)
    return Walks(number, steps, parts, torch.empty(2 * number, dtype=torch.int32, device=features.device))


@triton.jit
def begin_walk(BLOCK: tl.constexpr):
    """The initial (mean, whether the class began in this walk, sample count) of each walk."""
    BLOCK_ROWS: tl.constexpr = BLOCK.rows
    BLOCK_WIDTH: tl.constexpr = BLOCK.width
    mean = tl.zeros([BLOCK_ROWS, BLOCK_WIDTH], tl.float32)
    return mean, tl.zeros([BLOCK_ROWS], tl.int1), tl.zeros([BLOCK_ROWS], tl.int32)


@triton.jit
def sorted_sample(order_ptr, sorted_ptr, position, B, C):
    """The sample at each sorted position and its label (C if unknown); live: within the batch; known: a valid label;
    head and tail: the first and the last position of its class."""
    live = position < B
    label = tl.load(sorted_ptr + position, mask=live, other=C).to(tl.int64)
    known = label < C
    head = tl.load(sorted_ptr + position - 1, mask=live & (position > 0), other=-1) != label
    tail = tl.load(sorted_ptr + position + 1, mask=position + 1 < B, other=-1) != label
    sample = tl.load(order_ptr + position, mask=live, other=0).to(tl.int64)
    return sample, label, live, known, head, tail


@triton.jit
def step_means(
    means_ptr, parts_ptr, counts_ptr,
    mean, began, count, z, good,
    walk, position, steps, label, known, head, tail,
    column, D, momentum, share, BLOCK: tl.constexpr,
):  # fmt: skip
    """One step of the recurrence; stores q at the end of a class, and a part at the end of the walk."""
    BLOCK_WIDTH: tl.constexpr = BLOCK.width
    began = began | head
    mean = tl.where(head[:, None], load_rows(means_ptr, label, D, 1, column, D, known & head, BLOCK_WIDTH), mean)
    mean = tl.where(good[:, None], momentum * mean + share * z, mean)
    count = tl.where(head, 0, count) + good.to(tl.int32)
    store_rows(means_ptr, label, column, D, mean, known & tail & began, BLOCK_WIDTH)
    # the class began in an earlier walk and ends here, or continues in the next walk
    left = tl.where(tail, began == 0, position + 1 == (walk + 1) * steps) & known
    slot = 2 * walk + tl.where(tail, 0, 1)
    store_rows(parts_ptr, slot, column, D, mean, left, BLOCK_WIDTH)
    tl.store(counts_ptr + slot, count, mask=left)
    return mean, began, count


@triton.jit(do_not_specialize=["B"])
def _join_parts_kernel(
    sorted_ptr, means_ptr, parts_ptr, counts_ptr,
    B, C, D, steps, log2_momentum,
    BLOCK_W: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Program w joins the class that began in an earlier walk and ends in walk w + 1, if there is one."""
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
        # the smallest float32 is 2^-149: earlier samples have weight 0
        more = (tl.min(mine.to(tl.int32), 0) == 1) & (behind.to(tl.float32) * log2_momentum > -150)
    tl.store(means_ptr + label.to(tl.int64) * D + o_d, mean, mask=m_d)


def join_parts(means: Tensor, walks: Walks, ordered: Tensor, momentum: float) -> None:
    """Writes the joined parts of classes that cross a border into means [C, D]; ordered [B]: the sorted labels."""
    if walks.number == 1:
        return
    dim = means.shape[1]
    block_d = min(128, next_power_of_2(dim))
    _join_parts_kernel[(walks.number - 1, -(-dim // block_d))](
        sorted_ptr=ordered,
        means_ptr=means,
        parts_ptr=walks.parts,
        counts_ptr=walks.counts,
        B=ordered.shape[0],
        C=means.shape[0],
        D=dim,
        steps=walks.steps,
        log2_momentum=math.log2(momentum) if momentum else -1e30,
        BLOCK_W=32,  # 256 samples at once where walks are long, 32 numbers per thread
        BLOCK_D=block_d,
        num_warps=4,
    )


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    for dim in dims:
        yield Variant(
            kernel="join_parts",
            name="fp32",
            dim=dim,
            function=_join_parts_kernel,
            types={"sorted_ptr": "i32", "counts_ptr": "i32", "log2_momentum": "fp32"},
            constants={"BLOCK_W": 32, "BLOCK_D": min(128, dim)},
            bytes=4 * ROWS * dim / walk_steps(ROWS),  # all walks belong to one class
        )
