"""Tiles of S = P Wᵀ for the kernels that pass over all pairs and keep a few numbers per row.

A program owns BLOCK_M points and loops over tiles of BLOCK_N others. Narrow points stay in the program (BLOCK_K is the
padded D); the products of wide points loop over pieces of BLOCK_K columns. Precisions are those of gaussian_potential;
the halves are float16, for rows of norm up to 1.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from .common import ROW_PAD, load_tile
from .operands import prepare_operand
from .tile_sizes import (
    PRECISIONS,
    Precision,
    Tile,
    chip_family,
    dot_precision,
    operands_for,
    parts_of_pass,
    score_tile_for,
    width_of,
)
from .variants import ROWS, TYPE_NAMES, Constant, Variant

_PAD = tl.constexpr(ROW_PAD)


@triton.jit
def load_points(
    points_ptr, row, column, M, PIECES: tl.constexpr, WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr
):
    """BLOCK_K columns of the program's points: the high halves, and the low halves if PIECES > 1."""
    p = load_tile(points_ptr, row, column, WIDTH, BLOCK_M, BLOCK_K)
    p_low = p
    if PIECES > 1:
        p_low = load_tile(points_ptr, row + tl.cdiv(M, _PAD) * _PAD, column, WIDTH, BLOCK_M, BLOCK_K)
    return p, p_low


@triton.jit
def add_product(
    s, p, p_low, others_ptr, start, column, C,
    PIECES: tl.constexpr, WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """s plus the products over BLOCK_K columns of the program's points and the others from ``start`` on."""
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
    p, p_low, points_ptr, others_ptr, row, start, M, C,
    PIECES: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """s_ij [BLOCK_M, BLOCK_N] of the program's points and the others from ``start`` on; p, p_low: if resident."""
    s = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if BLOCK_K == WIDTH:
        s = add_product(s, p, p_low, others_ptr, start, 0, C, PIECES, WIDTH, BLOCK_N, BLOCK_K, PRECISION)
    else:
        for k in tl.range(0, WIDTH, BLOCK_K):
            p_k, p_low_k = load_points(points_ptr, row, k, M, PIECES, WIDTH, BLOCK_M, BLOCK_K)
            s = add_product(s, p_k, p_low_k, others_ptr, start, k, C, PIECES, WIDTH, BLOCK_N, BLOCK_K, PRECISION)
    return s


class PassPlan(NamedTuple):
    """Grid and arguments of one pass of points over others."""

    grid: tuple[int, int]
    arguments: dict[str, Tensor | Constant]


def plan_pass(
    points: Tensor,
    others: Tensor,
    precision: Precision,
    tile: Tile | None = None,
    parts: int | None = None,
    keys: bool = False,
) -> PassPlan:
    """Operands, sizes and launch options for points [M, D] and others [C, D].

    ``tile`` and ``parts`` replace the default sizes; ``keys``: the program holds keys beside its tile of scores.
    """
    (m, dim), c = points.shape, others.shape[0]
    dtype, pieces = operands_for(precision, 0.0, scaled=False)
    width = width_of(dim)
    tile = tile or score_tile_for(width, precision, pieces, chip_family(points.device), keys)
    parts = parts or parts_of_pass(m, c, 1, tile)
    return PassPlan(
        grid=(-(-m // tile.block_m), parts),
        arguments={
            "points_ptr": prepare_operand(points, width, dtype, min(pieces, 2)),
            "others_ptr": prepare_operand(others, width, dtype, 1 + (pieces == 3)),
            "M": m,
            "C": c,
            "num_warps": tile.num_warps,
            "num_stages": tile.num_stages,
            **_constants(pieces, width, tile, precision),
        },
    )


def _constants(pieces: int, width: int, tile: Tile, precision: Precision) -> dict[str, Constant]:
    return {
        "PIECES": pieces,
        "WIDTH": width,
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "PRECISION": dot_precision(precision),
    }


def as_float32(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.to(torch.float32).contiguous()


def pass_variants(
    kernel: str,
    function: JITFunction,
    family: int,
    dims: tuple[int, ...],
    *,
    types: dict[str, str],
    constants: dict[str, Constant],
    keys: bool = False,
    exps: int = 0,
) -> Iterator[Variant]:
    """The variants of a kernel that makes passes; ``types`` and ``constants`` are its own, ``exps`` is per pair."""
    for dim in dims:
        for precision in PRECISIONS:
            dtype, pieces = operands_for(precision, 0.0, scaled=False)
            x, width = TYPE_NAMES[dtype], width_of(dim)
            tile = score_tile_for(width, precision, pieces, family, keys)
            yield Variant(
                kernel=kernel,
                name=precision if precision.startswith("tf32") else f"{precision} {x}",
                dim=dim,
                function=function,
                types={"points_ptr": x, "others_ptr": x} | types,
                constants=constants | _constants(pieces, width, tile, precision),
                num_warps=tile.num_warps,
                num_stages=tile.num_stages,
                tensor_cores=precision != "highest",
                bytes=ROWS * width * 2 * (4 if x == "fp32" else 2 * min(pieces, 2)),
                flops=2 * (3 if precision == "tf32x3" else pieces) * ROWS * ROWS * width,
                exps=exps * ROWS * ROWS,
                unit="tf32" if precision.startswith("tf32") else x,
            )
