"""Gaussian potential and pull of unit vectors on unit vectors, in one sweep and without the M×C matrix.

    g_ij = exp(2t (p_i·w_j - 1)),  potential_i = Σ_j ω_j g_ij,  pull_i = Σ_j ω_j g_ij w_j,  j ≠ self_index_i

A program owns BLOCK_M points and sweeps over tiles of BLOCK_N others: S = P Wᵀ (tensor cores), g = exp2(a S - a),
row sums, pull += g W (tensor cores, same tile of W). g lies in [e^{-4t}, 1], so there is no running maximum. Two forms:
one keeps all of D in registers and shared memory (D <= 512), the other walks S over pieces of D and gives every slice
of the pull its own program. To fill the chip when M is small, the sweep is cut into parts that are added in order.

Precision. PIECES counts the half-precision matrices that stand for a float32 one:
    1  P Wᵀ, g W                                          "medium"
    2  (P + P_low) Wᵀ, g W                                "high" where g fits float16
    3  (P + P_low) Wᵀ + P W_lowᵀ, (g + g_low) W + g W_low "higher", and "high" elsewhere
float16 halves where t <= 4.5 and there are no weights: 2^12 g then lies in float16's normal range, and its 11 bits beat
bfloat16's 8 at the same speed. "highest" (IEEE) and "tf32", "tf32x3" take float32 operands.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import ROW_PAD, load_tile, next_power_of_2
from .operands import prepare_operand

LOG2_E = 1.4426950408889634
PRECISIONS = ("highest", "higher", "high", "medium", "tf32", "tf32x3")
FLOAT16_MAX_T = 4.5  # 2^12 e^{-4t} >= 2^-14, the smallest normal float16
RESIDENT_MAX_D = 512  # above, [64, D] float32 sums no longer fit the registers of one program
_PAD = tl.constexpr(ROW_PAD)


@triton.jit
def _own_columns(self_ptr, row, M, C, BLOCK_M: tl.constexpr):
    """self_index of the rows and its range (empty without one): tiles outside the range need no comparison."""
    o_m = row + tl.arange(0, BLOCK_M)
    own = tl.full([BLOCK_M], -1, tl.int32)
    if self_ptr is not None:
        own = tl.load(self_ptr + o_m, mask=o_m < M, other=-1).to(tl.int32)
    return own, tl.min(tl.where(own < 0, C, own)), tl.max(own)


@triton.jit
def _part_of_sweep(C, BLOCK_N: tl.constexpr):
    tiles = tl.cdiv(tl.cdiv(C, BLOCK_N), tl.num_programs(1))
    begin = tl.program_id(1) * tiles * BLOCK_N
    return begin, tl.minimum(begin + tiles * BLOCK_N, C)


@triton.jit
def _gaussian(s, start, C, own, low, high, weights_ptr, scale, SHIFT: tl.constexpr, BLOCK_N: tl.constexpr):
    """2^SHIFT ω_j g_ij of a tile, zero for the self pair and past the last column."""
    o_n = start + tl.arange(0, BLOCK_N)
    g = tl.exp2(s * scale + (SHIFT - scale))
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
    potential_ptr,
    pull_ptr,
    M,
    C,
    D,
    scale,
    PIECES: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    SHIFT: tl.constexpr = 12 if points_ptr.dtype.element_ty == tl.float16 else 0
    dtype = others_ptr.dtype.element_ty
    row = tl.program_id(0) * BLOCK_M
    p = load_tile(points_ptr, row, 0, WIDTH, BLOCK_M, WIDTH)
    if PIECES > 1:
        p_low = load_tile(points_ptr, row + tl.cdiv(M, _PAD) * _PAD, 0, WIDTH, BLOCK_M, WIDTH)
    own, low, high = _own_columns(self_ptr, row, M, C, BLOCK_M)
    begin, end = _part_of_sweep(C, BLOCK_N)
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
        g = _gaussian(s, start, C, own, low, high, weights_ptr, scale, SHIFT, BLOCK_N)
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
    points_ptr,
    others_ptr,
    self_ptr,
    weights_ptr,
    potential_ptr,
    pull_ptr,
    M,
    C,
    D,
    scale,
    PIECES: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    SHIFT: tl.constexpr = 12 if points_ptr.dtype.element_ty == tl.float16 else 0
    dtype = others_ptr.dtype.element_ty
    row, column = tl.program_id(0) * BLOCK_M, tl.program_id(2) * BLOCK_D
    own, low, high = _own_columns(self_ptr, row, M, C, BLOCK_M)
    begin, end = _part_of_sweep(C, BLOCK_N)
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
        g = _gaussian(s, start, C, own, low, high, weights_ptr, scale, SHIFT, BLOCK_N)
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
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    m_m, inside = o_m < M, (o_m < M)[:, None] & (o_d < D)[None, :]
    at = o_m[:, None] * D + o_d[None, :]
    potential = tl.zeros([BLOCK_M], tl.float32)
    pull = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for part in tl.range(0, PARTS):
        first = tl.cast(part, tl.int64) * M
        potential += tl.load(part_potential_ptr + first + o_m, mask=m_m, other=0.0)
        pull += tl.load(part_pull_ptr + first * D + at, mask=inside, other=0.0)
    if tl.program_id(1) == 0:
        tl.store(potential_ptr + o_m, potential, mask=m_m)
    tl.store(pull_ptr + at, pull, mask=inside)


class Tile(NamedTuple):
    """Sizes of one program. block_d = 0: all of D stays in the program; else the width of its slice of the pull."""

    block_m: int
    block_n: int
    num_warps: int = 8
    num_stages: int = 2
    block_d: int = 0
    block_k: int = 0


# The largest tiles that neither spill nor outgrow the shared memory (227 KiB on families 90 and 100; 99 KiB on family
# 80, which also serves the chips with less than an A100); scripts/inspect_kernels shows both. [pieces][width]
_TILES: dict[int, dict[int, dict[int, Tile]]] = {
    # wgmma: 128 rows are 64 for each of two warpgroups; [64, 512] float32 sums are 128 registers a thread
    90: {
        1: {
            64: Tile(128, 128, num_stages=3),
            128: Tile(128, 128, num_stages=3),
            256: Tile(128, 64, num_stages=3),
            512: Tile(64, 64),
        },
        2: {64: Tile(128, 128, num_stages=3), 128: Tile(128, 128), 256: Tile(128, 64), 512: Tile(64, 32)},
        3: {64: Tile(128, 64), 128: Tile(128, 64), 256: Tile(128, 32), 512: Tile(128, 64, block_d=256, block_k=64)},
    },
    # tcgen05: products of 128 rows, sums in the 512 columns of tensor memory
    100: {
        1: {
            64: Tile(128, 128, num_stages=3),
            128: Tile(128, 128, num_stages=3),
            256: Tile(128, 64, num_stages=3, block_d=256, block_k=64),
            512: Tile(128, 64, num_stages=3, block_d=256, block_k=64),
        },
        2: {
            64: Tile(128, 128, num_stages=3),
            128: Tile(128, 64),
            256: Tile(128, 64, num_stages=3, block_d=256, block_k=64),
            512: Tile(128, 64, num_stages=3, block_d=256, block_k=64),
        },
        3: {
            64: Tile(128, 64),
            128: Tile(128, 32),
            256: Tile(128, 32, block_d=128, block_k=64),
            512: Tile(128, 32, block_d=128, block_k=64),
        },
    },
    # mma with operands in registers
    80: {
        1: {
            64: Tile(128, 64, num_warps=4, num_stages=3),
            128: Tile(128, 64),
            256: Tile(64, 64),
            512: Tile(64, 32, num_stages=3, block_d=512, block_k=64),
        },
        2: {
            64: Tile(128, 64, num_stages=3),
            128: Tile(64, 64),
            256: Tile(64, 32),
            512: Tile(64, 32, block_d=512, block_k=64),
        },
        3: {
            64: Tile(64, 32, num_warps=4),
            128: Tile(64, 32, num_warps=4),
            256: Tile(64, 32, block_d=256, block_k=32),
            512: Tile(64, 32, block_d=256, block_k=32),
        },
    },
}


def width_of(dim: int) -> int:
    """D padded: to a power of two up to 512, where one program holds all of it, to a multiple of 256 beyond."""
    return next_power_of_2(dim) if dim <= RESIDENT_MAX_D else -(-dim // 256) * 256


def tile_for(width: int, precision: str, pieces: int, family: int, weighted: bool = False) -> Tile:
    """The tile that ships for a padded D, a precision and a family of chips (80, 90 or 100)."""
    if precision == "highest":  # FMA units: 16 to 64 sums a thread; more, or longer products at once, spill
        if width <= 64:
            return Tile(64, 32, num_warps=4, block_d=width, block_k=16)
        return Tile(64, 32, block_d=128, block_k=16) if width == 128 else Tile(64, 32, block_d=256, block_k=32)
    if precision in ("tf32", "tf32x3"):  # tf32x3 holds each operand twice
        return Tile(64, 64 if precision == "tf32" else 32, block_d=min(width, 128), block_k=min(width, 32))
    tile = _TILES[family][pieces][min(max(width, 64), RESIDENT_MAX_D)]
    if width > RESIDENT_MAX_D and not tile.block_d:
        tile = Tile(128, 64, num_stages=3, block_d=256, block_k=64)
    if weighted:  # a weight for every column of the tile takes registers
        tile = tile._replace(block_n=max(32, tile.block_n // 2))
    # widths past 512 are multiples of 256 alone, small ones have fewer columns than a slice
    return tile._replace(block_d=min(tile.block_d, 256 if width > RESIDENT_MAX_D else width))


def chip_family(device: torch.device) -> int:
    """90 for Hopper, 100 for data-centre Blackwell, 80 for every other chip and for the interpreter."""
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 8
    return {9: 90, 10: 100}.get(major, 80)


@lru_cache(maxsize=1024)
def parts_of_sweep(m: int, c: int, slices: int, tile: Tile) -> int:
    """Into how many parts the sweep over others is cut: a function of the shape alone, so that the sums are too.

    The price of p parts, in the time of a tile: whole waves of 132 programs (an H100's multiprocessors), two tiles to
    begin and end each program, and the partial sums' way through memory (D cancels: about 3 M / (BLOCK_M BLOCK_N)).
    """
    programs, tiles = -(-m // tile.block_m) * slices, -(-c // tile.block_n)

    def price(parts: int) -> float:
        waves = -(-programs * parts // 132)
        return waves * (-(-tiles // parts) + 2) + (parts > 1) * parts * 3 * m / (tile.block_m * tile.block_n)

    # at most eight waves: the partial sums then stay under a constant, whatever M and C are
    return min(range(1, max(1, min(tiles, 8 * 132 // programs)) + 1), key=price)


def operands_for(precision: str, t: float, weighted: bool) -> tuple[torch.dtype, int]:
    """dtype and number of half-precision pieces that a precision means at this sharpness."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(map(repr, PRECISIONS))}")
    if precision in ("highest", "tf32", "tf32x3"):
        return torch.float32, 1
    fits = t <= FLOAT16_MAX_T and not weighted
    pieces = {"medium": 1, "high": 2 if fits else 3, "higher": 3}[precision]
    return torch.float16 if fits else torch.bfloat16, pieces


def gaussian_potential(
    points: Tensor,
    others: Tensor,
    *,
    t: float,
    self_index: Tensor | None = None,
    weights: Tensor | None = None,
    precision: str = "highest",
    tile: Tile | None = None,
    parts: int | None = None,
) -> tuple[Tensor, Tensor]:
    """potential [M] and pull [M, D], float32, of unit rows points [M, D] on unit rows others [C, D] (module docstring).

    self_index int64 [M] names the row of others left out (a value outside 0..C-1 leaves out none); weights [C] are ω.
    float32, bfloat16 or float16 rows. ``tile`` and ``parts`` replace the sizes that ship.
    """
    (m, dim), c = points.shape, others.shape[0]
    dtype, pieces = operands_for(precision, t, weights is not None)
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
            potential_ptr=potential,
            pull_ptr=pull,
            M=m,
            C=c,
            D=dim,
            scale=2 * t * LOG2_E,
            PIECES=pieces,
            WIDTH=width,
            BLOCK_M=tile.block_m,
            BLOCK_N=tile.block_n,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            **(sliced if tile.block_d else {}),
        )
        return (potential[0], pull[0]) if parts == 1 else _add_parts(potential, pull)


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
        PARTS=parts,
        BLOCK_M=16,
        BLOCK_D=block_d,
        num_warps=4,
    )
    return potential, pull
