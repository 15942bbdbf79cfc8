"""Helpers of the row kernels, which hold whole rows: loads, stores and norms."""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

_TINY_NORM = tl.constexpr(1e-12)  # a shorter row counts as zero


@triton.jit
def load_rows(ptr, at_row, stride_row, stride_column, first_column, D, m_row, WIDTH: tl.constexpr):
    """WIDTH columns from first_column on of the rows at_row (int64), float32 [rows, WIDTH]; zeros where masked."""
    o_d = first_column + tl.arange(0, WIDTH)
    # int64 for both strides: in a transposed view the columns are far apart
    at = at_row[:, None] * stride_row + o_d[None, :].to(tl.int64) * stride_column
    return tl.load(ptr + at, mask=m_row[:, None] & (o_d < D)[None, :], other=0.0).to(tl.float32)


@triton.jit
def store_rows(ptr, at_row, first_column, D, values, m_row, WIDTH: tl.constexpr):
    """Stores values in the columns from first_column on of the rows at_row (int64) of a contiguous [.., D] matrix."""
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
