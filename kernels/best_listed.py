"""The largest reduced score over a short list of columns per row, in float64.

    best_i = max_k (s_ij - p_j),  j = indices_ik,  s_ij = x_i·y_j / ‖x_i‖

Decides the pairs that the rounding of tensor cores leaves undecided: the product of two float32 numbers is exact in
float64.
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

from .lib.common import next_power_of_2
from .lib.variants import ROWS, Variant

WIDEST = 512  # entries of a row that a program reads at a time


@triton.jit
def _best_listed_kernel(
    left_ptr, right_ptr, norms_ptr, prices_ptr, indices_ptr, best_ptr, D, places, BLOCK_D: tl.constexpr
):
    i = tl.program_id(0).to(tl.int64)
    best = tl.full([], float("-inf"), tl.float64)
    for place in tl.range(0, places):
        j = tl.load(indices_ptr + i * places + place)
        if j >= 0:
            total = tl.zeros([BLOCK_D], tl.float64)
            for column in tl.range(0, D, BLOCK_D):
                o_d = column + tl.arange(0, BLOCK_D)
                x = tl.load(left_ptr + i * D + o_d, mask=o_d < D, other=0.0).to(tl.float64)
                y = tl.load(right_ptr + j * D + o_d, mask=o_d < D, other=0.0).to(tl.float64)
                total += x * y
            best = tl.maximum(best, tl.sum(total, 0) / tl.load(norms_ptr + i) - tl.load(prices_ptr + j))
    tl.store(best_ptr + i, best)


def _warps(block_d: int) -> int:
    return max(1, block_d // 256)  # 8 numbers per thread from each of two rows


def best_listed(left: Tensor, right: Tensor, norms: Tensor, prices: Tensor, indices: Tensor) -> Tensor:
    """best [M] float64; -inf for a row that lists no column.

    left [M, D] and right [C, D] float32 or float64; norms [M] and prices [C] float64; indices [M, K] int64, -1: none.
    """
    best = torch.empty_like(norms)
    dim = left.shape[1]
    block_d = min(WIDEST, next_power_of_2(dim))
    if len(left):
        with torch.cuda.device_of(left):
            _best_listed_kernel[(len(left),)](
                left_ptr=left.contiguous(),
                right_ptr=right.contiguous(),
                norms_ptr=norms.contiguous(),
                prices_ptr=prices.contiguous(),
                indices_ptr=indices.contiguous(),
                best_ptr=best,
                D=dim,
                places=indices.shape[1],
                BLOCK_D=block_d,
                num_warps=_warps(block_d),
            )
    return best


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    for dim, x in itertools.product(dims, ("fp32", "fp64")):
        block_d = min(WIDEST, dim)
        yield Variant(
            kernel="best_listed",
            name=x,
            dim=dim,
            function=_best_listed_kernel,
            types={"left_ptr": x, "right_ptr": x, "indices_ptr": "i64"}
            | dict.fromkeys(("norms_ptr", "prices_ptr", "best_ptr"), "fp64"),
            constants={"BLOCK_D": block_d},
            num_warps=_warps(block_d),
            bytes=ROWS * dim * (8 if x == "fp32" else 16),  # one listed column
        )
