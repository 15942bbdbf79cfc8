"""Helpers shared by the kernels: jit functions, and the row layout of prepared operands."""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

ROW_PAD = 128  # prepared operands are padded to a multiple of this many rows, so that their tiles need no mask
LOG2_E = 1.4426950408889634  # log2(e)


def next_power_of_2(n: int, least: int = 16) -> int:
    """The smallest power of two >= n and >= ``least``; 16 is the smallest inner dimension of tensor cores."""
    return max(least, 1 << (n - 1).bit_length())


def padded_rows(n: int) -> int:
    return -(-n // ROW_PAD) * ROW_PAD


@triton.jit
def load_tile(ptr, first_row, first_column, STRIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[ROWS, COLUMNS] of a padded row-major matrix, from first_row and first_column on, without masks."""
    o_r, o_c = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    return tl.load(ptr + tl.cast(first_row, tl.int64) * STRIDE + first_column + o_r[:, None] * STRIDE + o_c[None, :])


@triton.jit
def part_of_pass(C, BLOCK_N: tl.constexpr):
    """Begin and end of this program's part of a pass over C rows; the second grid dimension counts the parts."""
    tiles = tl.cdiv(tl.cdiv(C, BLOCK_N), tl.num_programs(1))
    begin = tl.program_id(1) * tiles * BLOCK_N
    return begin, tl.minimum(begin + tiles * BLOCK_N, C)
