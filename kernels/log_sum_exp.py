"""Log-sum-exp of scaled scores over all others, and the Sinkhorn iteration that uses it.

    lse_i = log Σ_j exp(scale s_ij + bias_j),  s = P Wᵀ

One pass, no M×C matrix. Base-2 exponentials are relative to a running maximum, so that no scale overflows. Each part of
a pass has its own maximum; the parts are joined in order. Sums over columns use the same kernel with points and others
swapped and minus the row results as bias.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .lib.common import LOG2_E, part_of_pass
from .lib.score_tiles import as_float32, load_points, pass_variants, plan_pass, score_tile
from .lib.tile_sizes import Precision, Tile
from .lib.variants import Variant

_LOG2_E = tl.constexpr(LOG2_E)
_LN_2 = tl.constexpr(1 / LOG2_E)
_LOWEST = tl.constexpr(-3e38)  # finite, so that a tile whose biases are all -inf gives no inf - inf


@triton.jit
def _log_sum_exp_kernel(
    points_ptr, others_ptr, bias_ptr, lse_ptr,
    M, C, scale,
    PIECES: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_M
    o_m = row + tl.arange(0, BLOCK_M)
    p, p_low = load_points(points_ptr, row, 0, M, PIECES, WIDTH, BLOCK_M, BLOCK_K)
    peak, total = tl.full([BLOCK_M], _LOWEST, tl.float32), tl.zeros([BLOCK_M], tl.float32)
    begin, end = part_of_pass(C, BLOCK_N)
    for start in tl.range(begin, end, BLOCK_N):
        s = score_tile(
            p, p_low, points_ptr, others_ptr, row, start, M, C, PIECES, WIDTH, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION
        )
        o_n = start + tl.arange(0, BLOCK_N)
        s *= scale
        if bias_ptr is not None:
            s += (tl.load(bias_ptr + o_n, mask=o_n < C, other=0.0) * _LOG2_E)[None, :]
        if start + BLOCK_N > C:
            s = tl.where((o_n < C)[None, :], s, float("-inf"))
        higher = tl.maximum(peak, tl.max(s, 1))
        total = total * tl.exp2(peak - higher) + tl.sum(tl.exp2(s - higher[:, None]), 1)
        peak = higher
    some = total > 0
    lse = tl.where(some, (peak + tl.log2(tl.where(some, total, 1.0))) * _LN_2, float("-inf"))
    tl.store(lse_ptr + tl.program_id(1).to(tl.int64) * M + o_m, lse, mask=o_m < M)


def log_sum_exp(
    points: Tensor,
    others: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    precision: Precision = "high",
    tile: Tile | None = None,
    parts: int | None = None,
) -> Tensor:
    """lse [M] float32 of points [M, D] over others [C, D]; ``bias`` [C] is the logarithm of the weight of each column.

    Rows are float32, bfloat16 or float16 of norm up to 1; a bias of -inf excludes its column. ``scale`` multiplies the
    rounding error of a score. ``tile`` and ``parts`` replace the default sizes.
    """
    m = points.shape[0]
    if m == 0:
        return torch.empty(0, dtype=torch.float32, device=points.device)
    with torch.cuda.device_of(points):
        plan = plan_pass(points, others, precision, tile, parts)
        lse = torch.empty((plan.grid[1], m), dtype=torch.float32, device=points.device)
        _log_sum_exp_kernel[plan.grid](bias_ptr=as_float32(bias), lse_ptr=lse, scale=scale * LOG2_E, **plan.arguments)
    return lse[0] if len(lse) == 1 else lse.logsumexp(0)


def sinkhorn_sweep(
    class_means: Tensor, prototypes: Tensor, prices: Tensor, *, epsilon: float, precision: Precision = "high"
) -> tuple[Tensor, Tensor]:
    """row_i = log Σ_j exp((s_ij - p_j)/ε) [M] and column_j = log Σ_i exp((s_ij - p_j)/ε - row_i) [C].

    class_means [M, D] and prototypes [C, D]: unit or zero rows; prices [C]. The next prices are p + ε · column. For M =
    C the iteration has converged when ``column`` is zero.
    """
    rows = log_sum_exp(class_means, prototypes, scale=1 / epsilon, bias=prices / -epsilon, precision=precision)
    columns = log_sum_exp(prototypes, class_means, scale=1 / epsilon, bias=-rows, precision=precision)
    return rows, columns - prices / epsilon


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    yield from pass_variants(
        "log_sum_exp", _log_sum_exp_kernel, family, dims, types={"scale": "fp32"}, constants={}, exps=1
    )
