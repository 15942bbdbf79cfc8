"""Top-k reduced scores s_ij - p_j of every row and their indices, in one pass without the M×C matrix; k up to 32.

A program keeps K = 2^⌈log2 k⌉ keys per row. A key has 64 bits: the score, mapped to an integer of the same order, above
the complement of the index. Keys are therefore distinct, and the lowest index wins among equal scores. In each tile,
while the maximum of any row exceeds its K-th score, every such maximum replaces the smallest key of its row and is
removed from the tile. A row has about K ln(C/K) replacements in a pass, most of them in the first tiles; a later tile
costs its product and about ten instructions per pair. The parts of a pass store their keys unsorted, and a second
launch selects the k largest keys of each row.
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

from .lib.common import next_power_of_2, part_of_pass
from .lib.score_tiles import as_float32, load_points, pass_variants, plan_pass, score_tile
from .lib.tile_sizes import Precision, Tile
from .lib.variants import ROWS, Variant

MAX_K = 32  # more 64-bit keys would leave no registers for the tile of scores
MAX_PARTS = 256  # parts_of_pass gives at most 132 here; 8192 keys per row take 64 registers of each of 256 threads


@triton.jit
def pack(score, index):
    """int64 keys that sort by score, and at equal scores by descending index."""
    bits = tl.where(score == 0, 0.0, score).to(tl.int32, bitcast=True)  # -0 and 0 are equal scores
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - index).to(tl.int64)


@triton.jit
def unpack(key):
    """The score and the index of a key."""
    ordered = (key >> 32).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True), 0x7FFFFFFF - (key & 0x7FFFFFFF)


@triton.jit
def _top_scores_kernel(
    points_ptr, others_ptr, prices_ptr, floor_ptr, keys_ptr,
    M, C,
    PIECES: tl.constexpr, WIDTH: tl.constexpr, K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_M
    p, p_low = load_points(points_ptr, row, 0, M, PIECES, WIDTH, BLOCK_M, BLOCK_K)
    o_k, o_n = tl.arange(0, K), tl.arange(0, BLOCK_N)
    keys = pack(tl.full([BLOCK_M, K], float("-inf"), tl.float32), tl.zeros([BLOCK_M, K], tl.int32) + o_k[None, :])
    least = tl.min(keys, 1)
    o_m, floor = row + tl.arange(0, BLOCK_M), tl.full([BLOCK_M], float("-inf"), tl.float32)
    if floor_ptr is not None:
        floor = tl.load(floor_ptr + o_m, mask=o_m < M, other=float("inf"))
    begin, end = part_of_pass(C, BLOCK_N)
    for start in tl.range(begin, end, BLOCK_N):
        s = score_tile(
            p, p_low, points_ptr, others_ptr, row, start, M, C, PIECES, WIDTH, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION
        )
        if prices_ptr is not None:
            s -= tl.load(prices_ptr + start + o_n, mask=start + o_n < C, other=0.0)[None, :]
        if start + BLOCK_N > C:
            s = tl.where((start + o_n < C)[None, :], s, float("-inf"))
        best = tl.max(s, 1)
        enters = (best > unpack(least)[0]) & (best >= floor)
        while tl.max(enters.to(tl.int32), 0) > 0:
            at = tl.min(tl.where(s == best[:, None], o_n[None, :], BLOCK_N), 1)
            replaced = enters[:, None] & (keys == least[:, None])
            keys = tl.where(replaced, pack(best, start + at)[:, None], keys)
            least = tl.min(keys, 1)
            s = tl.where(o_n[None, :] == at[:, None], float("-inf"), s)
            best = tl.max(s, 1)
            enters = (best > unpack(least)[0]) & (best >= floor)
    slot = tl.program_id(1).to(tl.int64) * M + o_m
    tl.store(keys_ptr + slot[:, None] * K + o_k[None, :], keys, mask=(o_m < M)[:, None])


@triton.jit
def _merge_keys_kernel(
    keys_ptr, scores_ptr, indices_ptr,
    M, parts,
    FLOOR: tl.constexpr, KEPT: tl.constexpr, K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """The KEPT largest of each row's K · parts keys, descending; with FLOOR, index -1 for a score of -inf."""
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    o_c = tl.arange(0, BLOCK_P * K)
    part, m_m = (o_c // K).to(tl.int64), o_m < M
    at = (part[None, :] * M + o_m[:, None]) * K + (o_c % K)[None, :]
    keys = tl.load(keys_ptr + at, mask=m_m[:, None] & (part < parts)[None, :], other=-0x8000000000000000)
    for slot in tl.range(0, KEPT):
        largest = tl.max(keys, 1)
        score, index = unpack(largest)
        if FLOOR:
            index = tl.where(score == float("-inf"), -1, index)
        tl.store(scores_ptr + o_m * KEPT + slot, score, mask=m_m)
        tl.store(indices_ptr + o_m * KEPT + slot, index, mask=m_m)
        keys = tl.where(keys == largest[:, None], -0x8000000000000000, keys)


def top_scores(
    points: Tensor,
    others: Tensor,
    k: int,
    *,
    prices: Tensor | None = None,
    floor: Tensor | None = None,
    precision: Precision = "higher",
    tile: Tile | None = None,
    parts: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Top-k s_ij - p_j [M, k] float32, descending, and j [M, k] int64 of points [M, D] and others [C, D].

    1 <= k <= min(C, 32). Rows are float32, bfloat16 or float16 of norm up to 1; prices [C] are finite. Among equal
    scores the lowest index comes first; a row with NaN has scores -inf. With ``floor`` [M], a score below it becomes
    -inf and its index -1. ``tile`` and ``parts`` replace the default sizes.

    Raises:
        ValueError: k out of range.
    """
    m, c = points.shape[0], others.shape[0]
    if not 1 <= k <= min(c, MAX_K):
        raise ValueError(f"k is {k}; expected 1..{min(c, MAX_K)}: the kernel keeps at most {MAX_K} of {c} scores a row")
    if m == 0:
        empty = points.new_empty(0, k, dtype=torch.float32)
        return empty, empty.to(torch.int64)
    size = next_power_of_2(k, least=1)
    with torch.cuda.device_of(points):
        plan = plan_pass(points, others, precision, tile, parts, keys=True)
        keys = torch.empty((plan.grid[1], m, size), dtype=torch.int64, device=points.device)
        _top_scores_kernel[plan.grid](
            prices_ptr=as_float32(prices), floor_ptr=as_float32(floor), keys_ptr=keys, K=size, **plan.arguments
        )
        return _merge_keys(keys, k, floor is not None)


class _Merge(NamedTuple):
    block_m: int
    block_p: int
    num_warps: int


def _merge_sizes(parts: int, size: int) -> _Merge:
    """8 keys per thread where rows have few keys."""
    block_p = next_power_of_2(parts, least=1)
    return _Merge(max(1, 1024 // (block_p * size)), block_p, 4 if block_p * size <= 2048 else 8)


def _merge_keys(keys: Tensor, k: int, floor: bool) -> tuple[Tensor, Tensor]:
    """keys [parts, M, K] -> scores and indices [M, k]."""
    parts, m, size = keys.shape
    scores = torch.empty((m, k), dtype=torch.float32, device=keys.device)
    indices = torch.empty((m, k), dtype=torch.int64, device=keys.device)
    sizes = _merge_sizes(parts, size)
    _merge_keys_kernel[(-(-m // sizes.block_m),)](
        keys_ptr=keys,
        scores_ptr=scores,
        indices_ptr=indices,
        M=m,
        parts=parts,
        FLOOR=floor,
        KEPT=k,
        K=size,
        BLOCK_M=sizes.block_m,
        BLOCK_P=sizes.block_p,
        num_warps=sizes.num_warps,
    )
    return scores, indices


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    types = {"keys_ptr": "i64"}
    yield from pass_variants(
        "top_scores", _top_scores_kernel, family, dims, types=types, constants={"K": MAX_K}, keys=True
    )
    for parts in (2, MAX_PARTS):
        sizes = _merge_sizes(parts, MAX_K)
        yield Variant(
            kernel="merge_keys",
            name=f"{parts} parts",
            dim=dims[-1],
            function=_merge_keys_kernel,
            types=types | {"indices_ptr": "i64"},
            constants={"FLOOR": True, "KEPT": MAX_K, "K": MAX_K, "BLOCK_M": sizes.block_m, "BLOCK_P": sizes.block_p},
            num_warps=sizes.num_warps,
            bytes=ROWS * MAX_K * (8 * parts + 12),
        )
