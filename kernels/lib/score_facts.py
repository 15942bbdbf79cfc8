"""Facts about the scores of centred factors (centre_factors): unit, bounds, moments and rounding error."""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import next_power_of_2
from .variants import ROWS, Variant

BLOCK_M, BLOCK_D = 256, 128  # rows per program; columns of the means per step
# Bound on the error of three sums of D products each on tensor cores, which truncate; times D + 1 and the norms of the
# rows. The 1 % covers the rounding of the bound itself.
SUM_ERROR = 4 * 1.01 * 2.0**-23
NUMBERS = 6  # numbers in ``Facts`` before its vectors


class Facts(NamedTuple):
    """Facts about the scores, float64: views of one tensor in this order, so that one copy moves them all."""

    unit: Tensor  # [] the factor of p_i·w_j in s_ij
    offset: Tensor  # [] x̄·ȳ
    magnitude: Tensor  # [] a bound on |s_ij|
    square_sum: Tensor  # [] Σ_ij (p_i·w_j)², from rows rounded to bfloat16
    gram_norms: Tensor  # [2] ‖PᵀP‖ and ‖WᵀW‖, whose product bounds square_sum
    error: Tensor  # [M] a bound on the rounding error of unit p_i·w_j as a sum of three float16 products
    row_shift: Tensor  # [M]
    column_shift: Tensor  # [C]


def facts_in(packed: Tensor, m: int, c: int) -> Facts:
    """The views of ``packed`` [NUMBERS + 2 m + c]."""
    unit, offset, magnitude, square_sum, *others = packed.split([1, 1, 1, 1, 2, m, m, c])
    return Facts(unit[0], offset[0], magnitude[0], square_sum[0], *others)


@triton.jit
def unit_of(longest_ptr, side):
    """The divisor of the rows of a set: their largest norm, or 1 if all are zero."""
    longest = tl.load(longest_ptr + side)
    return tl.where(longest > 0, longest, 1.0)


@triton.jit
def _facts_kernel(
    means_ptr, norm_ptr, loss_ptr, low_ptr, largest_ptr,
    unit_ptr, offset_ptr, magnitude_ptr, error_ptr, row_shift_ptr,
    M, D, sum_error,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """All of ``Facts`` but the moments; row_shift holds x_i·ȳ on entry. error_i bounds the difference between unit
    p_i·w_j and the sum of three float16 products, by Cauchy-Schwarz on the rounding errors of the halves."""
    products, squares = tl.zeros([BLOCK_D], tl.float64), tl.zeros([BLOCK_D], tl.float64)
    for column in tl.range(0, D, BLOCK_D):
        o_d = column + tl.arange(0, BLOCK_D)
        x = tl.load(means_ptr + o_d, mask=o_d < D, other=0.0)
        y = tl.load(means_ptr + D + o_d, mask=o_d < D, other=0.0)
        products += x * y
        squares += y * y
    offset = tl.sum(products, 0)
    unit, unit_right = unit_of(largest_ptr, 0), unit_of(largest_ptr, 1)
    # the largest norm, loss and low half of the right set
    longest, lost, lowest = tl.load(largest_ptr + 1) / unit_right, tl.load(largest_ptr + 3), tl.load(largest_ptr + 5)
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    m_m = o_m < M
    norm, loss = tl.load(norm_ptr + o_m, mask=m_m, other=0.0), tl.load(loss_ptr + o_m, mask=m_m, other=0.0)
    low = tl.load(low_ptr + o_m, mask=m_m, other=0.0)
    error = loss * (longest + lost) + (norm / unit) * (lost + sum_error * longest) + low * lowest
    tl.store(error_ptr + o_m, error * unit * unit_right, mask=m_m)
    # safe in place: one thread loads and stores each number
    tl.store(row_shift_ptr + o_m, tl.load(row_shift_ptr + o_m, mask=m_m, other=0.0) - offset, mask=m_m)
    if tl.program_id(0) == 0:
        tl.store(unit_ptr, unit * unit_right)
        tl.store(offset_ptr, offset)
        tl.store(magnitude_ptr, unit_right + tl.sqrt(tl.sum(squares, 0)))


def write_facts(facts: Facts, means: Tensor, norm: Tensor, loss: Tensor, low: Tensor, raised: Tensor) -> None:
    """Writes all facts but the sums of squares.

    means [2, D]; norm, loss and low [M + C] of the rows of both sets; raised int64 [3, 2]: the float64 bits of the
    largest norm, loss and low of each set.
    """
    m, dim = len(facts.error), means.shape[1]
    _facts_kernel[(max(1, -(-m // BLOCK_M)),)](
        means_ptr=means, norm_ptr=norm, loss_ptr=loss, low_ptr=low,
        largest_ptr=raised.view(torch.float64),
        unit_ptr=facts.unit, offset_ptr=facts.offset, magnitude_ptr=facts.magnitude,
        error_ptr=facts.error, row_shift_ptr=facts.row_shift,
        M=m, D=dim, sum_error=SUM_ERROR * (dim + 1),
        BLOCK_M=BLOCK_M, BLOCK_D=min(BLOCK_D, next_power_of_2(dim)),
    )  # fmt: skip


def write_sums_of_squares(facts: Facts, points: Tensor, others: Tensor) -> None:
    """Writes Σ_ij (p_i·w_j)² = Σ (PᵀP ⊙ WᵀW) and the norms of PᵀP and WᵀW."""
    grams = torch.stack([x.T @ x for x in (points, others)]).float()
    torch.sum(grams[0] * grams[1], (0, 1), dtype=torch.float64, out=facts.square_sum)
    torch.linalg.vector_norm(grams, dim=(1, 2), dtype=torch.float64, out=facts.gram_norms)


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    yield Variant(
        kernel="facts",
        name="fp64",
        dim=dims[-1],
        function=_facts_kernel,
        types={name: "fp64" for name in _facts_kernel.arg_names if name.endswith("_ptr")} | {"sum_error": "fp32"},
        constants={"BLOCK_M": BLOCK_M, "BLOCK_D": BLOCK_D},
        bytes=48 * ROWS,
    )
