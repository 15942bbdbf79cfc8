"""Helpers of the kernels that hold whole rows: block sizes, loads and stores, norms, and error flags."""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

BAD_LABEL, NOT_FINITE, BAD_ASSIGNMENT = 1, 2, 4  # bits of the error flag: why a row was left out
_BAD_LABEL, _NOT_FINITE, _BAD_ASSIGNMENT = tl.constexpr(1), tl.constexpr(2), tl.constexpr(4)
_TINY_NORM = tl.constexpr(1e-12)  # a shorter row counts as zero
WIDEST = 4096  # columns that one program holds in registers; wider rows are read in rounds


class RowBlock(NamedTuple):
    """rows × width numbers for one program; ``rounds`` blocks of that width cover a row. A constexpr of the kernels."""

    rows: int
    width: int
    num_warps: int
    rounds: int

    def sizes(self) -> tuple[int, ...]:
        return self.rows, self.width


def row_block(dim: int, per_thread: int) -> RowBlock:
    """The block of a kernel that holds whole rows: up to 4096 columns, ``per_thread`` numbers of each tensor a thread.

    8 numbers are one 16-byte load of bfloat16 or two of float32: every thread has a load in flight, and four float32
    rows (features, prototype, mean, gradient) stay far below the 255 registers of a thread. At most 8 warps: with 16
    the compiler allows 64 registers a thread, and D = 4096 spills on sm_80.
    """
    width = min(WIDEST, max(16, 1 << (dim - 1).bit_length()))
    least_warps = 4 if per_thread > 8 else 1
    rows = max(1, 32 * least_warps * per_thread // width)
    num_warps = min(8, max(least_warps, rows * width // (32 * per_thread)))
    return RowBlock(rows, width, num_warps, -(-dim // width))


@triton.jit
def load_rows(ptr, at_row, stride_row, stride_column, first_column, D, m_row, WIDTH: tl.constexpr):
    """Columns first_column.. of the rows at_row (int64) as float32 [rows, WIDTH]; zeros outside and where not m_row."""
    o_d = first_column + tl.arange(0, WIDTH)
    # 64 bits for both: in a transposed view the columns are far apart
    at = at_row[:, None] * stride_row + o_d[None, :].to(tl.int64) * stride_column
    return tl.load(ptr + at, mask=m_row[:, None] & (o_d < D)[None, :], other=0.0).to(tl.float32)


@triton.jit
def store_rows(ptr, at_row, first_column, D, values, m_row, WIDTH: tl.constexpr):
    """Columns first_column.. of the rows at_row (int64) of a contiguous matrix [.., D]."""
    o_d = first_column + tl.arange(0, WIDTH)
    at = at_row[:, None] * D + o_d[None, :]
    tl.store(ptr + at, values.to(ptr.dtype.element_ty), mask=m_row[:, None] & (o_d < D)[None, :])


@triton.jit
def inverse_norm(squares):
    """1/‖x‖ from ‖x‖², zero for a zero row, and whether the row and its norm are finite."""
    finite = squares < float("inf")
    norm = tl.sqrt_rn(tl.where(finite, squares, 0.0))
    some = norm > _TINY_NORM
    return tl.where(some, tl.div_rn(1.0, tl.where(some, norm, 1.0)), 0.0), finite


@triton.jit
def raise_flag(flag_ptr, live, known, assigned, finite):
    """Sets the bits of what is wrong with the live rows. An atomic or of integers: the order does not matter."""
    bits = tl.where(known, tl.where(assigned, 0, _BAD_ASSIGNMENT) | tl.where(finite, 0, _NOT_FINITE), _BAD_LABEL)
    tl.atomic_or(flag_ptr + tl.zeros_like(bits), bits, mask=live & (bits != 0))


@triton.jit
def count_skipped(skipped_ptr, live, finite):
    """Adds the number of live rows that are not finite to an int64 counter. The order does not matter."""
    one = tl.full(live.shape, 1, tl.int64)
    tl.atomic_add(skipped_ptr + tl.zeros_like(one), one, mask=live & (finite == 0))
