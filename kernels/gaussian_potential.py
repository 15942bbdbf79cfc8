"""Gaussian potential and pull of unit vectors on unit vectors, in one sweep and without the M×C matrix.

    g_ij = exp(2t (p_i·w_j - 1)),  potential_i = Σ_j ω_j g_ij,  pull_i = Σ_j ω_j g_ij w_j,  j ≠ self_index_i

A program owns BLOCK_M points and sweeps over tiles of BLOCK_N others: S = P Wᵀ (tensor cores), g = exp2(a S - a),
row sums, pull += g W (tensor cores, same tile of W). g lies in [e^{-4t}, 1], so there is no running maximum. Two forms:
one keeps all of D in registers and shared memory (D <= 512), the other walks S over pieces of D and gives every slice
of the pull its own program. To fill the chip when M is small, the sweep is cut into parts that are added in order.

Precision. PIECES counts the half-precision matrices that stand for a float32 one:
    1  P Wᵀ, g W                                          "medium" where t <= 4.5
    2  (P + P_low) Wᵀ, g W                                "high" where t <= 2.5
    3  (P + P_low) Wᵀ + P W_lowᵀ, (g + g_low) W + g W_low "higher", and the others elsewhere
float16 halves where t <= 4.5 and there are no weights: 2^12 g then lies in float16's normal range, and its 11 bits beat
bfloat16's 8 at the same speed. "highest" (IEEE) and "tf32", "tf32x3" take float32 operands.

What the rounding of P does to the pull grows with C; where it would take too much of what a precision promises, the
moments of W give it back (rounding.py). Below D = 8 "medium" and "high" are "higher", or "highest" for bfloat16.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .lib.common import ROW_PAD, load_tile, next_power_of_2, part_of_sweep
from .lib.operands import prepare_operand
from .lib.rounding import LARGEST_T, correct_pull_, error_of_points
from .lib.tile_sizes import (
    FLOAT16_SHIFT,
    Tile,
    chip_family,
    operands_for,
    parts_of_sweep,
    promised_at,
    tile_for,
    width_of,
)

LOG2_E = 1.4426950408889634
_PAD = tl.constexpr(ROW_PAD)
_HALF_SHIFT = tl.constexpr(FLOAT16_SHIFT)


@triton.jit
def _own_columns(self_ptr, row, M, C, BLOCK_M: tl.constexpr):
    """self_index of the rows and its range (empty without one): tiles outside the range need no comparison."""
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
    if centre_ptr is not None:  # subtracted first, which is exact for a close pair; the self pair may lie far above it
        x = tl.minimum((s - tl.load(centre_ptr)) * scale, 64.0)
    g = tl.exp2(x)
    if (start + BLOCK_N > C) | ((low < start + BLOCK_N) & (high >= start)):  # few tiles: the others skip the compares
        g = tl.where((o_n < C)[None, :] & (own[:, None] != o_n[None, :]), g, 0.0)
    if weights_ptr is not None:
        g *= tl.load(weights_ptr + o_n, mask=o_n < C, other=0.0)[None, :]
    return g


@triton.jit
def _gaussian_potential_kernel(
    points_ptr,
    others_ptr,
    self_ptr,
    weights_ptr,
    centre_ptr,
    potential_ptr,
    pull_ptr,
    M,
    C,
    D,
    scale,
    offset,
    PIECES: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    SHIFT: tl.constexpr = _HALF_SHIFT if points_ptr.dtype.element_ty == tl.float16 else 0
    dtype = others_ptr.dtype.element_ty
    row = tl.program_id(0) * BLOCK_M
    p = load_tile(points_ptr, row, 0, WIDTH, BLOCK_M, WIDTH)
    if PIECES > 1:
        p_low = load_tile(points_ptr, row + tl.cdiv(M, _PAD) * _PAD, 0, WIDTH, BLOCK_M, WIDTH)
    own, low, high = _own_columns(self_ptr, row, M, C, BLOCK_M)
    begin, end = part_of_sweep(C, BLOCK_N)
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


# More parameters than a kernel should have: one kernel serves every precision, whose pieces and products they name
@triton.jit
def _gaussian_potential_sliced_kernel(
    points_ptr,
    others_ptr,
    self_ptr,
    weights_ptr,
    centre_ptr,
    potential_ptr,
    pull_ptr,
    M,
    C,
    D,
    scale,
    offset,
    PIECES: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    SHIFT: tl.constexpr = _HALF_SHIFT if points_ptr.dtype.element_ty == tl.float16 else 0
    dtype = others_ptr.dtype.element_ty
    row, column = tl.program_id(0) * BLOCK_M, tl.program_id(2) * BLOCK_D
    own, low, high = _own_columns(self_ptr, row, M, C, BLOCK_M)
    begin, end = part_of_sweep(C, BLOCK_N)
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
    if column == 0:  # every slice has the same sums: the first writes them
        tl.store(potential_ptr + slot, potential * unshift, mask=o_m < M)
    inside = (o_m < M)[:, None] & (o_d < D)[None, :]
    tl.store(pull_ptr + slot[:, None] * D + o_d[None, :], pull * unshift, mask=inside)


@triton.jit
def _add_parts_kernel(
    part_potential_ptr,
    part_pull_ptr,
    potential_ptr,
    pull_ptr,
    M,
    D,
    parts,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    m_m, inside = o_m < M, (o_m < M)[:, None] & (o_d < D)[None, :]
    at = o_m[:, None] * D + o_d[None, :]
    potential = tl.zeros([BLOCK_M], tl.float32)
    pull = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for part in tl.range(0, parts):
        first = tl.cast(part, tl.int64) * M
        potential += tl.load(part_potential_ptr + first + o_m, mask=m_m, other=0.0)
        pull += tl.load(part_pull_ptr + first * D + at, mask=inside, other=0.0)
    if tl.program_id(1) == 0:
        tl.store(potential_ptr + o_m, potential, mask=m_m)
    tl.store(pull_ptr + at, pull, mask=inside)


def gaussian_potential(
    points: Tensor,
    others: Tensor,
    *,
    t: float,
    self_index: Tensor | None = None,
    weights: Tensor | None = None,
    precision: str = "highest",
    centre: Tensor | None = None,
    tile: Tile | None = None,
    parts: int | None = None,
) -> tuple[Tensor, Tensor]:
    """potential [M] and pull [M, D], float32, of unit rows points [M, D] on unit rows others [C, D] (module docstring).

    self_index int64 [M] names the row of others left out (a value outside 0..C-1 leaves out none); weights [C] are ω.
    float32, bfloat16 or float16 rows. With ``centre`` [1] float32, g = exp(2t (p·w - centre)), cut at 2^64: at large t
    the largest cosine as centre keeps float32 from underflowing. ``tile`` and ``parts`` replace the sizes that ship.
    """
    (m, dim), c = points.shape, others.shape[0]
    scaled = weights is not None or centre is not None
    precision = promised_at(dim, precision, t, scaled)
    dtype, pieces = operands_for(precision, t, scaled)
    width = width_of(dim)
    tile = tile or tile_for(width, precision, pieces, chip_family(points.device), weights is not None)
    slices = width // tile.block_d if tile.block_d else 1
    parts = parts or parts_of_sweep(m, c, slices, tile)
    with torch.cuda.device_of(points):
        p = prepare_operand(points, width, dtype, min(pieces, 2))
        w = p if _same(points, others) else prepare_operand(others, width, dtype, 1 + (pieces == 3))
        potential = torch.empty((parts, m), dtype=torch.float32, device=points.device)
        pull = torch.empty((parts, m, dim), dtype=torch.float32, device=points.device)
        sliced = {"BLOCK_D": tile.block_d, "BLOCK_K": tile.block_k, "PRECISION": _DOT.get(precision, "ieee")}
        kernel = _gaussian_potential_sliced_kernel if tile.block_d else _gaussian_potential_kernel
        kernel[(-(-m // tile.block_m), parts, slices)](
            points_ptr=p,
            others_ptr=w,
            self_ptr=None if self_index is None else self_index.contiguous(),
            weights_ptr=None if weights is None else weights.float().contiguous(),
            centre_ptr=centre,
            potential_ptr=potential,
            pull_ptr=pull,
            M=m,
            C=c,
            D=dim,
            scale=2 * t * LOG2_E,
            offset=(FLOAT16_SHIFT if dtype == torch.float16 else 0) - 2 * t * LOG2_E,
            PIECES=pieces,
            WIDTH=width,
            BLOCK_M=tile.block_m,
            BLOCK_N=tile.block_n,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            **(sliced if tile.block_d else {}),
        )
        found = (potential[0], pull[0]) if parts == 1 else _add_parts(potential, pull)
        if points.dtype != dtype and rounding_shows(precision, t, dtype, pieces, c, dim):
            lost = points.detach().float()
            for half in p[:, :m, :dim]:
                lost = lost - half
            correct_pull_(found[1], found[0], lost, w[0, :c, :dim], t=t, weights=weights, centre=centre)
        return found


# Largest relative rounding of a number by its pieces, and how much of it may be left: less than a third of the promise
_UNIT = {(torch.float16, 1): 2.0**-12, (torch.bfloat16, 1): 2.0**-9}
_UNIT_OF_TWO = {torch.float16: 2.0**-23, torch.bfloat16: 2.0**-17}
_SHOWS = {"medium": 3e-3, "high": 2e-4, "higher": 2e-4}


def rounding_shows(precision: str, t: float, dtype: torch.dtype, pieces: int, count: int, dim: int) -> bool:
    """Whether the rounding of the points, beside this many others, takes more than its share of the promised error."""
    if dtype == torch.float32 or t > LARGEST_T:
        return False
    unit = _UNIT[dtype, pieces] if pieces == 1 else _UNIT_OF_TWO[dtype]
    return error_of_points(t, unit, count, dim) > _SHOWS[precision]


_DOT = {"tf32": "tf32", "tf32x3": "tf32x3"}  # how tl.dot treats float32; the other precisions have no choice to make


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype


def _add_parts(part_potential: Tensor, part_pull: Tensor) -> tuple[Tensor, Tensor]:
    parts, m, dim = part_pull.shape
    potential, pull = torch.empty_like(part_potential[0]), torch.empty_like(part_pull[0])
    block_d = min(128, next_power_of_2(dim))
    _add_parts_kernel[(-(-m // 16), -(-dim // block_d))](
        part_potential_ptr=part_potential,
        part_pull_ptr=part_pull,
        potential_ptr=potential,
        pull_ptr=pull,
        M=m,
        D=dim,
        parts=parts,
        BLOCK_M=16,
        BLOCK_D=block_d,
        num_warps=4,
    )
    return potential, pull
