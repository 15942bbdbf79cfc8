"""Gaussian potential and pull of unit vectors on unit vectors, in one pass and without the M×C matrix.

    g_ij = exp(2t (p_i·w_j - 1)),  potential_i = Σ_j ω_j g_ij,  pull_i = Σ_j ω_j g_ij w_j,  j ≠ self_index_i

A program owns BLOCK_M points and loops over tiles of BLOCK_N others: S = P Wᵀ (tensor cores), g = exp2(a S - a),
row sums, pull += g W (tensor cores, same tile of W). g lies in [e^{-4t}, 1], so no running maximum is needed. There are
two kernels: one keeps all of D in registers and shared memory (D <= 512); the other computes S over pieces of D and
uses one program per slice of the pull. For small M, the pass is split into parts to fill the chip (lib/add_parts).

Precision. PIECES is the number of half-precision products that replace a float32 product:
    1  P Wᵀ, g W                                          "medium" where t <= 4.5
    2  (P + P_low) Wᵀ, g W                                "high" where t <= 2.5
    3  (P + P_low) Wᵀ + P W_lowᵀ, (g + g_low) W + g W_low "higher", and "medium" and "high" elsewhere
The halves are float16 where t <= 4.5 and there are no weights: 2^12 g is then a normal float16 number, and float16 has
11 significant bits against bfloat16's 8 at the same speed. "highest" (IEEE), "tf32" and "tf32x3" take float32 operands.

The rounding of P causes an error of the pull that grows with C. Where it exceeds its share of the promised error, it is
corrected to first order (lib/rounding). For D < 8, "medium" and "high" run as "higher", or as "highest" where the
halves would be bfloat16.
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

from .lib.add_parts import add_parts
from .lib.common import LOG2_E, ROW_PAD, load_tile, part_of_pass
from .lib.operands import prepare_operand
from .lib.rounding import correct_pull_, rounding_shows
from .lib.tile_sizes import (
    FLOAT16_SHIFT,
    Precision,
    Tile,
    chip_family,
    dot_precision,
    operands_for,
    parts_of_pass,
    promised_at,
    tile_for,
    width_of,
)
from .lib.variants import ROWS, TYPE_NAMES, Constant, Variant

_PAD = tl.constexpr(ROW_PAD)
_HALF_SHIFT = tl.constexpr(FLOAT16_SHIFT)


@triton.jit
def _own_columns(self_ptr, row, M, C, BLOCK_M: tl.constexpr):
    """self_index of the rows, its minimum and its maximum: tiles outside this range need no comparison."""
    o_m = row + tl.arange(0, BLOCK_M)
    own = tl.full([BLOCK_M], -1, tl.int32)
    if self_ptr is not None:
        own = tl.load(self_ptr + o_m, mask=o_m < M, other=-1).to(tl.int32)
    return own, tl.min(tl.where(own < 0, C, own)), tl.max(own)


@triton.jit
def _gaussian(s, start, C, own, low, high, weights_ptr, centre_ptr, scale, offset, BLOCK_N: tl.constexpr):
    """2^SHIFT ω_j g_ij of a tile, zero for the self pair and past the last column."""
    o_n = start + tl.arange(0, BLOCK_N)
    x = s * scale + offset
    if centre_ptr is not None:  # subtracted before scaling: exact for close pairs; capped for a self pair far above
        x = tl.minimum((s - tl.load(centre_ptr)) * scale, 64.0)
    g = tl.exp2(x)
    if (start + BLOCK_N > C) | ((low < start + BLOCK_N) & (high >= start)):  # true for few tiles
        g = tl.where((o_n < C)[None, :] & (own[:, None] != o_n[None, :]), g, 0.0)
    if weights_ptr is not None:
        g *= tl.load(weights_ptr + o_n, mask=o_n < C, other=0.0)[None, :]
    return g


@triton.jit
def _gaussian_potential_kernel(
    points_ptr, others_ptr, self_ptr, weights_ptr, centre_ptr, potential_ptr, pull_ptr,
    M, C, D,
    scale, offset,
    PIECES: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    BLOCK_M: tl.constexpr = TILE.block_m
    BLOCK_N: tl.constexpr = TILE.block_n
    SHIFT: tl.constexpr = _HALF_SHIFT if points_ptr.dtype.element_ty == tl.float16 else 0
    dtype = others_ptr.dtype.element_ty
    row = tl.program_id(0) * BLOCK_M
    p = load_tile(points_ptr, row, 0, WIDTH, BLOCK_M, WIDTH)
    if PIECES > 1:
        p_low = load_tile(points_ptr, row + tl.cdiv(M, _PAD) * _PAD, 0, WIDTH, BLOCK_M, WIDTH)
    own, low, high = _own_columns(self_ptr, row, M, C, BLOCK_M)
    begin, end = part_of_pass(C, BLOCK_N)
    potential = tl.zeros([BLOCK_M], tl.float32)
    pull = tl.zeros([BLOCK_M, WIDTH], tl.float32)
    for start in tl.range(begin, end, BLOCK_N):
        w = load_tile(others_ptr, start, 0, WIDTH, BLOCK_N, WIDTH)
        s = tl.dot(p, tl.trans(w), input_precision="ieee")
        if PIECES > 1:
            s = tl.dot(p_low, tl.trans(w), s, input_precision="ieee")
        if PIECES > 2:
            w_low = load_tile(others_ptr, start + tl.cdiv(C, _PAD) * _PAD, 0, WIDTH, BLOCK_N, WIDTH)
            s = tl.dot(p, tl.trans(w_low), s, input_precision="ieee")
        g = _gaussian(s, start, C, own, low, high, weights_ptr, centre_ptr, scale, offset, BLOCK_N)
        potential += tl.sum(g, 1)
        g_high = g.to(dtype)
        pull = tl.dot(g_high, w, pull, input_precision="ieee")
        if PIECES > 2:
            pull = tl.dot((g - g_high.to(tl.float32)).to(dtype), w, pull, input_precision="ieee")
            pull = tl.dot(g_high, w_low, pull, input_precision="ieee")
    o_m, o_d = row + tl.arange(0, BLOCK_M), tl.arange(0, WIDTH)
    slot = tl.program_id(1).to(tl.int64) * M + o_m
    unshift: tl.constexpr = 2.0**-SHIFT
    tl.store(potential_ptr + slot, potential * unshift, mask=o_m < M)
    inside = (o_m < M)[:, None] & (o_d < D)[None, :]
    tl.store(pull_ptr + slot[:, None] * D + o_d[None, :], pull * unshift, mask=inside)


@triton.jit
def _gaussian_potential_sliced_kernel(
    points_ptr, others_ptr, self_ptr, weights_ptr, centre_ptr, potential_ptr, pull_ptr,
    M, C, D,
    scale, offset,
    PIECES: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    BLOCK_M: tl.constexpr = TILE.block_m
    BLOCK_N: tl.constexpr = TILE.block_n
    BLOCK_D: tl.constexpr = TILE.block_d
    BLOCK_K: tl.constexpr = TILE.block_k
    SHIFT: tl.constexpr = _HALF_SHIFT if points_ptr.dtype.element_ty == tl.float16 else 0
    dtype = others_ptr.dtype.element_ty
    row, column = tl.program_id(0) * BLOCK_M, tl.program_id(2) * BLOCK_D
    own, low, high = _own_columns(self_ptr, row, M, C, BLOCK_M)
    begin, end = part_of_pass(C, BLOCK_N)
    low_row, low_start = row + tl.cdiv(M, _PAD) * _PAD, tl.cdiv(C, _PAD) * _PAD
    potential = tl.zeros([BLOCK_M], tl.float32)
    pull = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in tl.range(begin, end, BLOCK_N):
        s = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for k in tl.range(0, WIDTH, BLOCK_K):
            p = load_tile(points_ptr, row, k, WIDTH, BLOCK_M, BLOCK_K)
            w = tl.trans(load_tile(others_ptr, start, k, WIDTH, BLOCK_N, BLOCK_K))
            s = tl.dot(p, w, s, input_precision=PRECISION)
            if PIECES > 1:
                p_low = load_tile(points_ptr, low_row, k, WIDTH, BLOCK_M, BLOCK_K)
                s = tl.dot(p_low, w, s, input_precision=PRECISION)
            if PIECES > 2:
                w_low = tl.trans(load_tile(others_ptr, start + low_start, k, WIDTH, BLOCK_N, BLOCK_K))
                s = tl.dot(p, w_low, s, input_precision=PRECISION)
        g = _gaussian(s, start, C, own, low, high, weights_ptr, centre_ptr, scale, offset, BLOCK_N)
        potential += tl.sum(g, 1)
        g_high = g.to(dtype)
        v = load_tile(others_ptr, start, column, WIDTH, BLOCK_N, BLOCK_D)
        pull = tl.dot(g_high, v, pull, input_precision=PRECISION)
        if PIECES > 2:
            pull = tl.dot((g - g_high.to(tl.float32)).to(dtype), v, pull, input_precision=PRECISION)
            v_low = load_tile(others_ptr, start + low_start, column, WIDTH, BLOCK_N, BLOCK_D)
            pull = tl.dot(g_high, v_low, pull, input_precision=PRECISION)
    o_m, o_d = row + tl.arange(0, BLOCK_M), column + tl.arange(0, BLOCK_D)
    slot = tl.program_id(1).to(tl.int64) * M + o_m
    unshift: tl.constexpr = 2.0**-SHIFT
    if column == 0:  # every slice has the same potential: only the first writes it
        tl.store(potential_ptr + slot, potential * unshift, mask=o_m < M)
    inside = (o_m < M)[:, None] & (o_d < D)[None, :]
    tl.store(pull_ptr + slot[:, None] * D + o_d[None, :], pull * unshift, mask=inside)


class _Plan(NamedTuple):
    """How one call is computed: operands, sizes and launch grid."""

    precision: Precision
    dtype: torch.dtype  # of the operands
    pieces: int
    width: int
    tile: Tile
    slices: int  # of the pull
    parts: int  # of the pass


def _plan(
    m: int, c: int, dim: int, family: int,
    *, t: float, precision: Precision, weighted: bool, centred: bool, tile: Tile | None, parts: int | None,
) -> _Plan:  # fmt: skip
    scaled = weighted or centred
    precision = promised_at(dim, precision, t, scaled)
    dtype, pieces = operands_for(precision, t, scaled)
    width = width_of(dim)
    tile = tile or tile_for(width, precision, pieces, family, weighted)
    slices = width // tile.block_d if tile.block_d else 1
    return _Plan(precision, dtype, pieces, width, tile, slices, parts or parts_of_pass(m, c, slices, tile))


def gaussian_potential(
    points: Tensor,
    others: Tensor,
    *,
    t: float,
    self_index: Tensor | None = None,
    weights: Tensor | None = None,
    precision: Precision = "highest",
    centre: Tensor | None = None,
    tile: Tile | None = None,
    parts: int | None = None,
) -> tuple[Tensor, Tensor]:
    """potential [M] and pull [M, D], float32, at unit rows points [M, D] of unit rows others [C, D] (module docstring).

    Rows are float32, bfloat16 or float16. self_index int64 [M] is the row of others that a point excludes; a value
    outside 0..C-1 excludes none. weights [C] are ω. With ``centre`` [1] float32, g = exp(2t (p·w - centre)), capped at
    2^64; the largest cosine as centre prevents underflow at large t. ``tile`` and ``parts`` replace the default sizes.
    """
    (m, dim), c = points.shape, others.shape[0]
    plan = _plan(
        m, c, dim, chip_family(points.device), t=t, precision=precision,
        weighted=weights is not None, centred=centre is not None, tile=tile, parts=parts,
    )  # fmt: skip
    with torch.cuda.device_of(points):
        p = prepare_operand(points, plan.width, plan.dtype, min(plan.pieces, 2))
        w = p if _same(points, others) else prepare_operand(others, plan.width, plan.dtype, 1 + (plan.pieces == 3))
        potential = torch.empty((plan.parts, m), dtype=torch.float32, device=points.device)
        pull = torch.empty((plan.parts, m, dim), dtype=torch.float32, device=points.device)
        kernel = _gaussian_potential_sliced_kernel if plan.tile.block_d else _gaussian_potential_kernel
        kernel[(-(-m // plan.tile.block_m), plan.parts, plan.slices)](
            points_ptr=p, others_ptr=w,
            self_ptr=None if self_index is None else self_index.contiguous(),
            weights_ptr=None if weights is None else weights.float().contiguous(),
            centre_ptr=centre, potential_ptr=potential, pull_ptr=pull,
            M=m, C=c, D=dim,
            scale=2 * t * LOG2_E,
            offset=(FLOAT16_SHIFT if plan.dtype == torch.float16 else 0) - 2 * t * LOG2_E,
            num_warps=plan.tile.num_warps, num_stages=plan.tile.num_stages,
            **_constants(plan),
        )  # fmt: skip
        found = add_parts(potential, pull)
        if points.dtype != plan.dtype and rounding_shows(plan.precision, t, plan.dtype, plan.pieces, c, dim):
            lost = points.detach().float()
            for half in p[:, :m, :dim]:
                lost = lost - half
            correct_pull_(found[1], found[0], lost, w[0, :c, :dim], t=t, weights=weights, centre=centre)
        return found


def _constants(plan: _Plan) -> dict[str, Constant]:
    constants: dict[str, Constant] = {"PIECES": plan.pieces, "WIDTH": plan.width, "TILE": plan.tile}
    return constants | ({"PRECISION": dot_precision(plan.precision)} if plan.tile.block_d else {})


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype


# name, precision, t, weighted, centred. bfloat16 serves weights and, in three pieces, t > 4.5. Of two forms that differ
# in the weights alone, only the one with weights is listed, because it needs more registers.
_FORMS: tuple[tuple[str, Precision, float, bool, bool], ...] = (
    ("medium fp16", "medium", 2.0, False, False),
    ("weighted bf16", "medium", 2.0, True, False),
    ("high fp16", "high", 2.0, False, False),
    ("higher fp16", "higher", 2.0, False, False),
    ("higher bf16", "higher", 8.0, True, False),
    ("tf32", "tf32", 2.0, True, False),
    ("tf32x3", "tf32x3", 2.0, True, False),
    ("highest fp32", "highest", 2.0, True, False),
    ("centred fp32", "highest", 50.0, False, True),
)


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    for dim in dims:
        for name, precision, t, weighted, centred in _FORMS:
            plan = _plan(
                ROWS, ROWS, dim, family,
                t=t, precision=precision, weighted=weighted, centred=centred, tile=None, parts=1,
            )  # fmt: skip
            x, pieces, slices, tile = TYPE_NAMES[plan.dtype], plan.pieces, plan.slices, plan.tile
            absent: tuple[str, ...] = (() if weighted else ("weights_ptr",)) + (() if centred else ("centre_ptr",))
            products = (3 if precision == "tf32x3" else 1) * (pieces * slices + (3 if pieces == 3 else 1))
            yield Variant(
                kernel="gaussian_potential",
                name=name,
                dim=dim,
                function=_gaussian_potential_sliced_kernel if tile.block_d else _gaussian_potential_kernel,
                types={"points_ptr": x, "others_ptr": x, "self_ptr": "i64", "scale": "fp32", "offset": "fp32"},
                constants=_constants(plan) | dict.fromkeys(absent),
                num_warps=tile.num_warps,
                num_stages=tile.num_stages,
                tensor_cores=precision != "highest",
                bytes=ROWS * plan.width * (2 * (4 if x == "fp32" else 2 * min(pieces, 2)) + 4),
                flops=2 * products * ROWS * ROWS * plan.width,
                exps=slices * ROWS * ROWS,
                unit="tf32" if precision.startswith("tf32") else x,
            )
