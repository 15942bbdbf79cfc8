"""Operands of the tensor-core kernels: padded rows, each float32 number split into a high and a low half.

With hi = half(x) and lo = half(x - hi), hi + lo differs from x by at most 2^-22 (float16) or 2^-16 (bfloat16) of x. A
product of almost float32 precision is then the sum of two or three half-precision products.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import next_power_of_2, padded_rows
from .variants import ROWS, Variant

BLOCK_M, BLOCK_D = 16, 128  # 8 numbers per thread, whole 128-byte lines; both divide the padded sizes


@triton.jit
def _prepare_operand_kernel(
    rows_ptr, high_ptr, low_ptr,
    M, D,
    stride_row, stride_column,
    WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    mask = (o_m < M)[:, None] & (o_d < D)[None, :]
    # int64 for both strides: in a transposed view the columns are far apart
    o_rows = o_m[:, None] * stride_row + o_d[None, :].to(tl.int64) * stride_column
    b_rows = tl.load(rows_ptr + o_rows, mask=mask, other=0.0).to(tl.float32)
    b_high = b_rows.to(high_ptr.dtype.element_ty)
    at = o_m[:, None] * WIDTH + o_d[None, :]
    tl.store(high_ptr + at, b_high)
    if low_ptr is not None:
        tl.store(low_ptr + at, (b_rows - b_high.to(tl.float32)).to(low_ptr.dtype.element_ty))


def prepare_operand(rows: Tensor, width: int, dtype: torch.dtype, pieces: int) -> Tensor:
    """rows [M, D] -> [pieces, M padded, width] of ``dtype``: high and, with ``pieces`` = 2, low halves, padded with
    zeros.

    A single piece that already has this layout is returned without a copy.
    """
    m, d = rows.shape
    fits = rows.dtype == dtype and rows.is_contiguous() and d == width and m == padded_rows(m)
    if pieces == 1 and fits and rows.data_ptr() % 16 == 0:
        return rows.view(1, m, d)
    out = torch.empty((pieces, padded_rows(m), width), dtype=dtype, device=rows.device)
    block_d = min(BLOCK_D, next_power_of_2(width))
    _prepare_operand_kernel[(out.shape[1] // BLOCK_M, width // block_d)](
        rows_ptr=rows,
        high_ptr=out[0],
        low_ptr=out[1] if pieces == 2 else None,
        M=m,
        D=d,
        stride_row=rows.stride(0),
        stride_column=rows.stride(1),
        WIDTH=width,
        BLOCK_M=BLOCK_M,
        BLOCK_D=block_d,
        num_warps=8,
    )
    return out


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    for dim in dims:
        yield Variant(
            kernel="prepare_operand",
            name="two fp16 halves",
            dim=dim,
            function=_prepare_operand_kernel,
            types={"high_ptr": "fp16", "low_ptr": "fp16"},
            constants={"stride_column": 1, "WIDTH": dim, "BLOCK_M": BLOCK_M, "BLOCK_D": min(BLOCK_D, dim)},
            num_warps=8,
            bytes=8 * ROWS * dim,
        )
