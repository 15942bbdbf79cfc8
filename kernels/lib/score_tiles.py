"""Tiles of S = P Wᵀ for the kernels that sweep over all pairs and keep only a few numbers of each row.

A program owns BLOCK_M points and sweeps over tiles of BLOCK_N others. Narrow points stay in the program (BLOCK_K is all
of D, padded); of wide ones every product walks over pieces of BLOCK_K columns. Precisions as in gaussian_potential;
here the halves are float16, which suits rows of length up to 1.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import ROW_PAD, load_tile
from .operands import prepare_operand
from .tile_sizes import Tile, chip_family, operands_for, parts_of_sweep, width_of

_PAD = tl.constexpr(ROW_PAD)


@triton.jit
def load_points(
    points_ptr, row, column, M, PIECES: tl.constexpr, WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr
):
    """BLOCK_K columns of the program's points: high halves, and low ones where the precision has them."""
    p = load_tile(points_ptr, row, column, WIDTH, BLOCK_M, BLOCK_K)
    p_low = p
    if PIECES > 1:
        p_low = load_tile(points_ptr, row + tl.cdiv(M, _PAD) * _PAD, column, WIDTH, BLOCK_M, BLOCK_K)
    return p, p_low


@triton.jit
def add_product(
    s,
    p,
    p_low,
    others_ptr,
    start,
    column,
    C,
    PIECES: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    w = tl.trans(load_tile(others_ptr, start, column, WIDTH, BLOCK_N, BLOCK_K))
    s = tl.dot(p, w, s, input_precision=PRECISION)
    if PIECES > 1:
        s = tl.dot(p_low, w, s, input_precision=PRECISION)
    if PIECES > 2:
        w_low = tl.trans(load_tile(others_ptr, start + tl.cdiv(C, _PAD) * _PAD, column, WIDTH, BLOCK_N, BLOCK_K))
        s = tl.dot(p, w_low, s, input_precision=PRECISION)
    return s


@triton.jit
def score_tile(
    p,
    p_low,
    points_ptr,
    others_ptr,
    row,
    start,
    M,
    C,
    PIECES: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """s_ij of the program's points and the others start.. [BLOCK_M, BLOCK_N]; p and p_low are for BLOCK_K = WIDTH."""
    s = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if BLOCK_K == WIDTH:
        s = add_product(s, p, p_low, others_ptr, start, 0, C, PIECES, WIDTH, BLOCK_N, BLOCK_K, PRECISION)
    else:
        for k in tl.range(0, WIDTH, BLOCK_K):
            p_k, p_low_k = load_points(points_ptr, row, k, M, PIECES, WIDTH, BLOCK_M, BLOCK_K)
            s = add_product(s, p_k, p_low_k, others_ptr, start, k, C, PIECES, WIDTH, BLOCK_N, BLOCK_K, PRECISION)
    return s


class Sweep(NamedTuple):
    """Operands, sizes and launch options of one sweep of points over others."""

    grid: tuple[int, int]
    arguments: dict[str, Any]


def score_tile_for(width: int, precision: str, pieces: int, family: int, keys: bool = False) -> Tile:
    """The tile that ships for a padded D, a precision and a family of chips (80, 90 or 100).

    What does not spill and fits the shared memory (scripts/inspect_kernels): 64 sums a thread, and points that stay in
    the program while they and two tiles of others, halves included, take less than 200 KiB. With ``keys`` beside the
    sums (top_scores) 32 a thread, in small programs: while one waits for its product another searches.
    """
    if precision == "highest":  # FMA units: 16 sums a thread
        return Tile(64, 32 if keys else 64, block_k=min(width, 32))
    narrow = keys and family != 90  # elsewhere than on wgmma the operands or the copied sums take registers too
    if precision in ("tf32", "tf32x3"):  # tf32x3 holds each operand twice
        return Tile(64, 32 if narrow else 64, num_warps=4, block_k=min(width, 32))
    resident = width <= (256 if pieces == 1 else 128)
    block_k = width if resident else 64
    if keys:
        return Tile(64, 32 if narrow else 64, num_warps=4, block_k=block_k)
    block_n = 64 if family == 80 or (pieces > 1 and width > 64) else 128
    return Tile(128, block_n, num_stages=2 if resident else 3, block_k=block_k)


def sweep(
    points: Tensor,
    others: Tensor,
    precision: str,
    tile: Tile | None = None,
    parts: int | None = None,
    keys: bool = False,
) -> Sweep:
    """points [M, D] and others [C, D] made ready for a kernel of this family.

    ``tile`` and ``parts`` replace the sizes that ship; ``keys``: the program keeps keys beside its tile of scores.
    """
    (m, dim), c = points.shape, others.shape[0]
    dtype, pieces = operands_for(precision, 0.0, scaled=False)
    width = width_of(dim)
    tile = tile or score_tile_for(width, precision, pieces, chip_family(points.device), keys)
    parts = parts or parts_of_sweep(m, c, 1, tile)
    return Sweep(
        grid=(-(-m // tile.block_m), parts),
        arguments={
            "points_ptr": prepare_operand(points, width, dtype, min(pieces, 2)),
            "others_ptr": prepare_operand(others, width, dtype, 1 + (pieces == 3)),
            "M": m,
            "C": c,
            "PIECES": pieces,
            "WIDTH": width,
            "BLOCK_M": tile.block_m,
            "BLOCK_N": tile.block_n,
            "BLOCK_K": tile.block_k,
            "PRECISION": precision if precision.startswith("tf32") else "ieee",
            "num_warps": tile.num_warps,
            "num_stages": tile.num_stages,
        },
    )


def as_float32(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.to(torch.float32).contiguous()
