"""Two sets of rows made ready for sweeps over their scores s_ij = x_i·y_j: centred, and what rounding can do to them.

The points are x_i = left_i / norms_i and the others y_j = right_j, each less the mean of its set, in units of the
longest of its set:

    s_ij = unit (p_i·w_j) + row_shift_i + column_shift_j,   row_shift_i = x_i·ȳ - x̄·ȳ,   column_shift_j = y_j·x̄

Centring leaves digits for what the rows do not have in common. Everything but the resulting rows is float64. Both sets
are in one launch, whose last dimension says which.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .lib.common import next_power_of_2

ROWS, BLOCK_D = 16, 128  # of a block: 16 float64 numbers a thread, whole lines of memory
MAX_PARTS = 128  # of the rows of a mean
BLOCK_M = 256  # rows for the last kernel, which sees no columns
SCALARS = 6  # in front of ``facts``
# What tensor cores, which cut off bits, may do to the sums of three products of D numbers each: relative to D + 1 and
# the lengths of the rows. 1 % is for the rounding of the bound itself.
SUM_ERROR = 4 * 1.01 * 2.0**-23


@triton.jit
def _places(first, M, C, ROWS: tl.constexpr):
    """Rows first.. of this program's set (int64), which of them exist, and their places among those of both sets."""
    side = tl.program_id(2)
    o_m = tl.cast(first, tl.int64) + tl.arange(0, ROWS)
    return o_m, o_m < tl.where(side == 0, M, C), o_m + side * M


@triton.jit
def _load(left_ptr, right_ptr, norms_ptr, o_m, m_m, column, D, BLOCK_D: tl.constexpr):
    """Columns column.. of x or y in float64 [ROWS, BLOCK_D], zeros outside; the columns and which of them exist."""
    # compared as a block: the interpreter of Triton 3.9 makes integers of a scalar that a comparison gave
    side = tl.program_id(2) + tl.zeros_like(o_m)
    left, right = m_m & (side == 0), m_m & (side == 1)
    o_d = column + tl.arange(0, BLOCK_D)
    at, m_d = o_m[:, None] * D + o_d[None, :], o_d < D
    x = tl.load(left_ptr + at, mask=left[:, None] & m_d[None, :], other=0.0).to(tl.float64)
    y = tl.load(right_ptr + at, mask=right[:, None] & m_d[None, :], other=0.0).to(tl.float64)
    return x * (1.0 / tl.load(norms_ptr + o_m, mask=left, other=1.0))[:, None] + y, o_d, m_d


@triton.jit
def _raise(ptr, values):
    """The number there becomes the largest: the bits of float64, not negative, have the order of integers."""
    tl.atomic_max(ptr, tl.max(values, 0).to(tl.int64, bitcast=True))


@triton.jit
def _mean_parts_kernel(left_ptr, right_ptr, norms_ptr, parts_ptr, M, C, D, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """parts [2, parts, D]: what each part of the rows adds to the mean of its set."""
    side, parts = tl.program_id(2), tl.num_programs(0)
    n = tl.where(side == 0, M, C)
    rows = tl.cdiv(tl.cdiv(n, ROWS), parts) * ROWS
    begin, column = tl.program_id(0) * rows, tl.program_id(1) * BLOCK_D
    total = tl.zeros([ROWS, BLOCK_D], tl.float64)
    for first in tl.range(begin, tl.minimum(begin + rows, n), ROWS):
        o_m, m_m, _ = _places(first, M, C, ROWS)
        total += _load(left_ptr, right_ptr, norms_ptr, o_m, m_m, column, D, BLOCK_D)[0]
    o_d = column + tl.arange(0, BLOCK_D)
    mean = tl.sum(total, 0) / tl.maximum(n, 1).to(tl.float64)
    tl.store(parts_ptr + (side * parts + tl.program_id(0)) * D + o_d, mean, mask=o_d < D)


@triton.jit
def _row_norms_kernel(
    left_ptr, right_ptr, norms_ptr, means_ptr, norm_ptr, along_ptr, largest_ptr, M, C, D,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """norm_i = ‖x_i - x̄‖ and along_i = x_i·ȳ, of the other set likewise; largest [side] becomes the largest norm."""
    side = tl.program_id(2)
    o_m, m_m, place = _places(tl.program_id(0) * ROWS, M, C, ROWS)
    square, along = tl.zeros([ROWS], tl.float64), tl.zeros([ROWS], tl.float64)
    for column in tl.range(0, D, BLOCK_D):
        x, o_d, m_d = _load(left_ptr, right_ptr, norms_ptr, o_m, m_m, column, D, BLOCK_D)
        along += tl.sum(x * tl.load(means_ptr + (1 - side) * D + o_d, mask=m_d, other=0.0)[None, :], 1)
        x = tl.where(m_m[:, None], x - tl.load(means_ptr + side * D + o_d, mask=m_d, other=0.0)[None, :], 0.0)
        square += tl.sum(x * x, 1)
    norm = tl.sqrt(square)
    tl.store(norm_ptr + place, norm, mask=m_m)
    tl.store(along_ptr + place, along, mask=m_m)
    _raise(largest_ptr + side, norm)


@triton.jit
def _unit(longest_ptr, side):
    longest = tl.load(longest_ptr + side)
    return tl.where(longest > 0, longest, 1.0)


@triton.jit
def _centre_rows_kernel(
    left_ptr, right_ptr, norms_ptr, means_ptr, longest_ptr, rows_ptr, rounded_ptr, loss_ptr, low_ptr, largest_ptr,
    M, C, D, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The rows themselves and rounded to bfloat16; how far the sum of their two float16 halves is from them (loss) and
    the length of the lower half (low); largest [0, side] and [1, side] become the largest of these."""
    side = tl.program_id(2)
    o_m, m_m, place = _places(tl.program_id(0) * ROWS, M, C, ROWS)
    share = 1.0 / _unit(longest_ptr, side)
    lost, lows = tl.zeros([ROWS], tl.float64), tl.zeros([ROWS], tl.float64)
    for column in tl.range(0, D, BLOCK_D):
        x, o_d, m_d = _load(left_ptr, right_ptr, norms_ptr, o_m, m_m, column, D, BLOCK_D)
        x = tl.where(m_m[:, None], x - tl.load(means_ptr + side * D + o_d, mask=m_d, other=0.0)[None, :], 0.0) * share
        row = x.to(tl.float32)
        high = row.to(tl.float16)
        low = (row - high.to(tl.float32)).to(tl.float16).to(tl.float64)
        gone = x - high.to(tl.float64) - low
        lost += tl.sum(gone * gone, 1)
        lows += tl.sum(low * low, 1)
        at, mask = place[:, None] * D + o_d[None, :], m_m[:, None] & m_d[None, :]
        tl.store(rows_ptr + at, row, mask=mask)
        tl.store(rounded_ptr + at, row.to(tl.bfloat16), mask=mask)
    loss, low = tl.sqrt(lost), tl.sqrt(lows)
    tl.store(loss_ptr + place, loss, mask=m_m)
    tl.store(low_ptr + place, low, mask=m_m)
    _raise(largest_ptr + side, loss)
    _raise(largest_ptr + 2 + side, low)


@triton.jit
def _facts_kernel(
    means_ptr, norm_ptr, loss_ptr, low_ptr, largest_ptr, facts_ptr, M, D, sum_error,
    SCALARS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """facts = unit, offset, magnitude, .., error [M], row_shift [M]; the latter come as x_i·ȳ. largest float64 [3, 2]:
    of norm, loss and low.

    error_i bounds |unit p_i·w_j - the sum of three float16 products|: Cauchy-Schwarz on what the halves leave out.
    """
    products, squares = tl.zeros([BLOCK_D], tl.float64), tl.zeros([BLOCK_D], tl.float64)
    for column in tl.range(0, D, BLOCK_D):
        o_d = column + tl.arange(0, BLOCK_D)
        x = tl.load(means_ptr + o_d, mask=o_d < D, other=0.0)
        y = tl.load(means_ptr + D + o_d, mask=o_d < D, other=0.0)
        products += x * y
        squares += y * y
    offset = tl.sum(products, 0)
    unit, unit_right = _unit(largest_ptr, 0), _unit(largest_ptr, 1)
    longest, lost, lowest = tl.load(largest_ptr + 1) / unit_right, tl.load(largest_ptr + 3), tl.load(largest_ptr + 5)
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    m_m = o_m < M
    norm, loss = tl.load(norm_ptr + o_m, mask=m_m, other=0.0), tl.load(loss_ptr + o_m, mask=m_m, other=0.0)
    low = tl.load(low_ptr + o_m, mask=m_m, other=0.0)
    error = loss * (longest + lost) + (norm / unit) * (lost + sum_error * longest) + low * lowest
    tl.store(facts_ptr + SCALARS + o_m, error * unit * unit_right, mask=m_m)
    # in place: each of the BLOCK_M numbers is in one thread
    row_shift = tl.load(facts_ptr + SCALARS + M + o_m, mask=m_m, other=0.0) - offset
    tl.store(facts_ptr + SCALARS + M + o_m, row_shift, mask=m_m)
    if tl.program_id(0) == 0:
        tl.store(facts_ptr, unit * unit_right)
        tl.store(facts_ptr + 1, offset)
        tl.store(facts_ptr + 2, unit_right + tl.sqrt(tl.sum(squares, 0)))


class Centred(NamedTuple):
    """Results of :func:`centre_factors`."""

    points: Tensor  # [M, D] float32, of length up to 1
    others: Tensor  # [C, D] float32, of length up to 1
    facts: Tensor  # [6 + 2 M + C] float64: what :func:`split` names

    def split(self) -> list[Tensor]:
        """unit, x̄·ȳ, a bound on |s_ij|, Σ_ij (p_i·w_j)² and its two factors; error; row shift; column shift."""
        m = len(self.points)
        parts: list[Tensor] = list(self.facts.split([SCALARS, m, m, len(self.others)]))
        return parts


def _sum_of_squares(points: Tensor, others: Tensor, out: Tensor) -> None:
    """Σ_ij (p_i·w_j)² = Σ (PᵀP ⊙ WᵀW), and the norms of these two matrices, which bound it."""
    grams = torch.stack([x.T @ x for x in (points, others)]).float()
    torch.sum(grams[0] * grams[1], (0, 1), dtype=torch.float64, out=out[0])
    torch.linalg.vector_norm(grams, dim=(1, 2), dtype=torch.float64, out=out[1:])


def centre_factors(left: Tensor, norms: Tensor, right: Tensor) -> Centred:
    """left [M, D] and right [C, D]: float32 or float64; norms [M] float64, not zero."""
    (m, dim), c = left.shape, len(right)
    most, block_d = max(m, c), min(BLOCK_D, next_power_of_2(dim))
    sets = {"left_ptr": left.contiguous(), "right_ptr": right.contiguous(), "norms_ptr": norms.contiguous()}
    sizes = {"M": m, "C": c, "D": dim, "ROWS": ROWS, "BLOCK_D": block_d}
    grid = (-(-most // ROWS), 1, 2)

    def numbers(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=left.device)

    norm, loss, low = numbers(3, m + c)
    largest = torch.zeros((3, 2), dtype=torch.int64, device=left.device)  # of these, of each set: the bits of float64
    rows, rounded = numbers(m + c, dim, dtype=torch.float32), numbers(m + c, dim, dtype=torch.bfloat16)
    facts = numbers(SCALARS + m + m + c)
    with torch.cuda.device_of(left):
        parts = numbers(2, min(MAX_PARTS, -(-most // (4 * ROWS))), dim)
        _mean_parts_kernel[(parts.shape[1], -(-dim // block_d), 2)](**sets, parts_ptr=parts, **sizes)
        means = parts.sum(1)
        _row_norms_kernel[grid](
            **sets,
            means_ptr=means,
            norm_ptr=norm,
            along_ptr=facts[SCALARS + m :],
            largest_ptr=largest,
            **sizes,
        )
        _centre_rows_kernel[grid](
            **sets,
            means_ptr=means,
            longest_ptr=largest.view(torch.float64),
            rows_ptr=rows,
            rounded_ptr=rounded,
            loss_ptr=loss,
            low_ptr=low,
            largest_ptr=largest[1:],
            **sizes,
        )
        _facts_kernel[(max(1, -(-m // BLOCK_M)),)](
            means_ptr=means,
            norm_ptr=norm,
            loss_ptr=loss,
            low_ptr=low,
            largest_ptr=largest.view(torch.float64),
            facts_ptr=facts,
            M=m,
            D=dim,
            sum_error=SUM_ERROR * (dim + 1),
            SCALARS=SCALARS,
            BLOCK_M=BLOCK_M,
            BLOCK_D=block_d,
        )
    _sum_of_squares(rounded[:m], rounded[m:], facts[3:SCALARS])
    return Centred(rows[:m], rows[m:], facts)
