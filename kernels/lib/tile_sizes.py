"""Tile sizes of the kernels: pure functions of the shape, the precision and the family of chips.

``tile_for`` is for the Gaussian potential, ``score_tile_for`` for the passes over scores, ``row_block`` for the row
kernels, which hold whole rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import torch

from .common import next_power_of_2

Precision = Literal["highest", "higher", "high", "medium", "tf32", "tf32x3"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FLOAT16_SHIFT = 12  # 2^12 g is rounded to float16, which holds g < 16: cosines may exceed 1 a little
FLOAT16_MAX_T = 4.5  # 2^12 e^{-4t} >= 2^-14, the smallest normal float16
TWO_PIECES_MAX_T = 2.5  # the tangent gradient's error stays below 1e-3 down to D = 2; it grows with t
HALVES_MIN_DIM = 8  # below it "medium" and "high" use more pieces, at little cost: tensor cores pad D to 16
WIDEST = 4096  # columns that one program holds in registers; wider rows are read in rounds
RESIDENT_MAX_D = 512  # above, [64, D] float32 sums no longer fit the registers of one program


class Tile(NamedTuple):
    """Sizes of one program. With block_d = 0 it holds all of D; otherwise block_d is the width of its slice of the
    pull.

    A constexpr of the kernels.
    """

    block_m: int
    block_n: int
    num_warps: int = 8
    num_stages: int = 2
    block_d: int = 0
    block_k: int = 0

    def sizes(self) -> tuple[int, ...]:
        return (self.block_m, self.block_n) + ((self.block_d, self.block_k) if self.block_d else ())


# [family][pieces][width]: the largest tiles that neither spill nor exceed the shared memory (227 KiB on families 90 and
# 100; 99 KiB on family 80, which includes chips with less than an A100), as scripts/inspect_kernels shows
_TILES: dict[int, dict[int, dict[int, Tile]]] = {
    # wgmma: 64 of 128 rows for each of two warpgroups; [64, 512] float32 sums take 128 registers per thread
    90: {
        1: {
            64: Tile(128, 128, num_stages=3),
            128: Tile(128, 128, num_stages=3),
            256: Tile(128, 64, num_stages=3),
            512: Tile(64, 64),
        },
        2: {
            64: Tile(128, 128, num_stages=3),
            128: Tile(128, 128),
            256: Tile(128, 64),
            512: Tile(128, 64, num_stages=3, block_d=256, block_k=64),
        },
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

# [family, width] for one piece with weights: the weights of a wide tile's columns would spill
_WEIGHTED = {
    (90, 512): Tile(128, 64, num_stages=3, block_d=256, block_k=64),
    (100, 256): Tile(128, 64, num_stages=3, block_d=128, block_k=64),
    (100, 512): Tile(128, 64, num_stages=3, block_d=128, block_k=64),
}


def width_of(dim: int) -> int:
    """The padded D: a power of two up to 512, where one program holds all of it; a multiple of 256 beyond."""
    return next_power_of_2(dim) if dim <= RESIDENT_MAX_D else -(-dim // 256) * 256


def tile_for(width: int, precision: Precision, pieces: int, family: int, weighted: bool = False) -> Tile:
    """The default tile for a padded D, a precision and a chip family (80, 90 or 100)."""
    if precision == "highest":  # FMA units: 16 to 64 sums per thread; larger tiles spill
        if width <= 64:
            return Tile(64, 32, num_warps=4, block_d=width, block_k=16)
        return Tile(64, 32, block_d=128, block_k=16) if width == 128 else Tile(64, 32, block_d=256, block_k=32)
    if precision in ("tf32", "tf32x3"):  # tf32x3 holds each operand twice
        block_d = min(width, 128)
        if precision == "tf32x3" and family == 90:
            return Tile(128, 64, block_d=block_d, block_k=16)
        return Tile(64, 64 if precision == "tf32" else 32, block_d=block_d, block_k=min(width, 32))
    column = min(max(width, 64), RESIDENT_MAX_D)
    tile = _TILES[family][pieces][column]
    if width > RESIDENT_MAX_D and not tile.block_d:
        tile = Tile(128, 64, num_stages=3, block_d=256, block_k=64)
    if weighted:
        narrower = tile._replace(block_n=max(32, tile.block_n // 2))
        tile = _WEIGHTED.get((family, column), narrower) if pieces == 1 else narrower
    # widths above 512 are multiples of 256 only; small widths have fewer columns than a slice
    return tile._replace(block_d=min(tile.block_d, 256 if width > RESIDENT_MAX_D else width))


def score_tile_for(width: int, precision: Precision, pieces: int, family: int, keys: bool = False) -> Tile:
    """The default tile for a padded D, a precision and a chip family (80, 90 or 100).

    The tiles do not spill and fit the shared memory (scripts/inspect_kernels). A thread has 64 sums. Points stay in the
    program if they and two tiles of others, halves included, take less than 200 KiB. A program that also holds keys
    (top_scores) has 32 sums per thread and few warps, so that one program searches while another waits for its product.
    """
    if precision == "highest":  # FMA units: 16 sums per thread
        return Tile(64, 32 if keys else 64, block_k=min(width, 32))
    narrow = keys and family != 90  # without wgmma, the operands or the copied sums take registers too
    if precision in ("tf32", "tf32x3"):  # tf32x3 holds each operand twice
        return Tile(64, 32 if narrow else 64, num_warps=4, block_k=min(width, 32))
    resident = width <= (256 if pieces == 1 else 128)
    block_k = width if resident else 64
    if keys:
        return Tile(64, 32 if narrow else 64, num_warps=4, block_k=block_k)
    block_n = 64 if family == 80 or (pieces > 1 and width > 64) else 128
    return Tile(128, block_n, num_stages=2 if resident else 3, block_k=block_k)


class RowBlock(NamedTuple):
    """Sizes of one program: rows × width numbers; ``rounds`` such blocks cover a row. A constexpr of the kernels."""

    rows: int
    width: int
    num_warps: int
    rounds: int

    def sizes(self) -> tuple[int, ...]:
        return self.rows, self.width


def row_block(dim: int, per_thread: int) -> RowBlock:
    """The block of a row kernel: up to 4096 columns, ``per_thread`` numbers of each tensor per thread.

    8 numbers are one 16-byte load of bfloat16 or two of float32: every thread has a load in flight, and four float32
    rows (features, prototype, mean, gradient) stay far below the 255 registers of a thread. At most 8 warps: with 16,
    the compiler allows 64 registers per thread, and D = 4096 spills on sm_80.
    """
    width = min(WIDEST, max(16, 1 << (dim - 1).bit_length()))
    least_warps = 4 if per_thread > 8 else 1
    rows = max(1, 32 * least_warps * per_thread // width)
    num_warps = min(8, max(least_warps, rows * width // (32 * per_thread)))
    return RowBlock(rows, width, num_warps, -(-dim // width))


def chip_family(device: torch.device) -> int:
    """90 for Hopper, 100 for data-centre Blackwell, 80 for every other chip and for the interpreter."""
    return family_of(torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 8)


def family_of(major: int) -> int:
    """The family of a chip, from the major version of its compute capability."""
    return {9: 90, 10: 100}.get(major, 80)


@lru_cache(maxsize=1024)
def parts_of_pass(m: int, c: int, slices: int, tile: Tile) -> int:
    """The number of parts of a pass over others: a function of the shape alone, so that sums are reproducible.

    The cost of p parts, in units of one tile: whole waves of 132 programs (the multiprocessors of an H100), two tiles
    of overhead per program, and the memory traffic of the partial sums (D cancels: about 3 M / (BLOCK_M BLOCK_N)).
    """
    programs, tiles = -(-m // tile.block_m) * slices, -(-c // tile.block_n)

    def cost(parts: int) -> float:
        waves = -(-programs * parts // 132)
        return waves * (-(-tiles // parts) + 2) + (parts > 1) * parts * 3 * m / (tile.block_m * tile.block_n)

    # at most eight waves, which bounds the memory of the partial sums for any M and C
    return min(range(1, max(1, min(tiles, 8 * 132 // programs)) + 1), key=cost)


def promised_at(dim: int, precision: Precision, t: float, scaled: bool) -> Precision:
    """The precision that keeps the error promised by ``precision`` at small D as well.

    At small D many rows round to the same half-precision values, and their errors add up.
    """
    if dim >= HALVES_MIN_DIM or precision not in ("high", "medium"):
        return precision
    return "highest" if scaled or t > FLOAT16_MAX_T else "higher"


def operands_for(precision: Precision, t: float, scaled: bool) -> tuple[torch.dtype, int]:
    """The dtype and the number of half-precision pieces of a precision at this t.

    scaled: weights or a centre move g out of [e^{-4t}, 1], and possibly out of the range of float16.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(map(repr, PRECISIONS))}")
    if precision in ("highest", "tf32", "tf32x3"):
        return torch.float32, 1
    fits = t <= FLOAT16_MAX_T and not scaled
    one = t <= FLOAT16_MAX_T  # at larger t, 2t times the rounding of one bfloat16 cosine exceeds the error of "medium"
    pieces = {"medium": 1 if one else 3, "high": 2 if fits and t <= TWO_PIECES_MAX_T else 3, "higher": 3}[precision]
    return torch.float16 if fits else torch.bfloat16, pieces


def dot_precision(precision: Precision) -> str:
    """The ``input_precision`` of ``tl.dot``, which only matters for float32 operands."""
    return precision if precision in ("tf32", "tf32x3") else "ieee"
