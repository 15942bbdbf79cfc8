"""The proof of an assignment: the best reduced score of every row, and how many pairs exceed what the prices allow.

    maximum_i = max_j (s_ij - p_j),  violations_i = #{j: s_ij - p_j > bound_i},  s = P Wᵀ

One sweep, no M×C matrix, no index: a maximum and a compare for each pair, where the largest scores of top_scores cost
several times that.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import part_of_sweep
from .scores import as_float32, load_points, score_tile, sweep
from .tiles import Tile


@triton.jit
def _row_maxima_kernel(
    points_ptr,
    others_ptr,
    prices_ptr,
    bound_ptr,
    maxima_ptr,
    violations_ptr,
    M,
    C,
    PIECES: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_M
    o_m = row + tl.arange(0, BLOCK_M)
    p, p_low = load_points(points_ptr, row, 0, M, PIECES, WIDTH, BLOCK_M, BLOCK_K)
    maxima, violations = tl.full([BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_M], tl.int32)
    if bound_ptr is not None:
        bound = tl.load(bound_ptr + o_m, mask=o_m < M, other=float("inf"))
    begin, end = part_of_sweep(C, BLOCK_N)
    for start in tl.range(begin, end, BLOCK_N):
        s = score_tile(
            p, p_low, points_ptr, others_ptr, row, start, M, C, PIECES, WIDTH, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION
        )
        o_n = start + tl.arange(0, BLOCK_N)
        if prices_ptr is not None:
            s -= tl.load(prices_ptr + o_n, mask=o_n < C, other=0.0)[None, :]
        if start + BLOCK_N > C:
            s = tl.where((o_n < C)[None, :], s, float("-inf"))
        maxima = tl.maximum(maxima, tl.max(s, 1))
        if bound_ptr is not None:
            violations += tl.sum((s > bound[:, None]).to(tl.int32), 1)
    slot = tl.program_id(1).to(tl.int64) * M + o_m
    tl.store(maxima_ptr + slot, maxima, mask=o_m < M)
    if bound_ptr is not None:
        tl.store(violations_ptr + slot, violations, mask=o_m < M)


def row_maxima(
    points: Tensor,
    others: Tensor,
    *,
    prices: Tensor | None = None,
    bound: Tensor | None = None,
    precision: str = "higher",
    tile: Tile | None = None,
    parts: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """maximum [M] float32, and violations [M] int64 where there is a ``bound`` [M].

    points [M, D] and others [C, D]: float32, bfloat16 or float16 rows of length up to 1; prices [C]. "higher" is as
    exact as float32; ``tile`` and ``parts`` replace the sizes that ship.
    """
    m = points.shape[0]
    if m == 0:
        empty = torch.empty(0, dtype=torch.float32, device=points.device)
        return empty, None if bound is None else empty.to(torch.int64)
    with torch.cuda.device_of(points):
        work = sweep(points, others, precision, tile, parts)
        maxima = torch.empty((work.grid[1], m), dtype=torch.float32, device=points.device)
        violations = None if bound is None else torch.empty_like(maxima, dtype=torch.int32)
        _row_maxima_kernel[work.grid](
            prices_ptr=as_float32(prices),
            bound_ptr=as_float32(bound),
            maxima_ptr=maxima,
            violations_ptr=violations,
            **work.arguments,
        )
    return maxima.amax(0), None if violations is None else violations.sum(0)
