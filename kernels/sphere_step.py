"""One momentum step on the sphere for each row: project, step, normalise, project the velocity on the new tangent
plane.

    gradient = factor / total · (pull - (pull·w) w),   v ← momentum · v + gradient,
    w ← (w - rate · v) / ‖w - rate · v‖,               v ← v - (v·w) w

With pull and total = Σ_i potential_i of the Gaussian potential and factor = 4t·C this is the gradient of L_uni times C.
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .lib.common import next_power_of_2
from .lib.variants import ROWS, Variant


@triton.jit
def _sphere_step_kernel(
    points_ptr, velocity_ptr, pull_ptr, total_ptr,
    M, D,
    factor, rate, momentum,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    o_d = tl.arange(0, BLOCK_D)
    mask = (o_m < M)[:, None] & (o_d < D)[None, :]
    at = o_m[:, None] * D + o_d[None, :]
    w = tl.load(points_ptr + at, mask=mask, other=0.0)
    v = tl.load(velocity_ptr + at, mask=mask, other=0.0)
    pull = tl.load(pull_ptr + at, mask=mask, other=0.0)
    pull -= tl.sum(pull * w, 1)[:, None] * w
    v = momentum * v + (factor / tl.load(total_ptr)) * pull
    w -= rate * v
    length = tl.sqrt_rn(tl.sum(w * w, 1))
    w = tl.div_rn(w, tl.where(length > 0, length, 1.0)[:, None])
    v -= tl.sum(v * w, 1)[:, None] * w
    tl.store(points_ptr + at, w, mask=mask)
    tl.store(velocity_ptr + at, v, mask=mask)


def _rows(block_d: int) -> int:
    return max(1, 2048 // block_d)  # 16 numbers per thread from each of three rows: no spills up to D = 2048


def sphere_step_(
    points: Tensor, velocity: Tensor, pull: Tensor, total: Tensor, *, factor: float, rate: float, momentum: float
) -> None:
    """Updates points and velocity [M, D] in place, given pull [M, D] and total [1]; all float32 and contiguous."""
    m, dim = points.shape
    block_d = next_power_of_2(dim)
    block_m = _rows(block_d)
    with torch.cuda.device_of(points):
        _sphere_step_kernel[(-(-m // block_m),)](
            points_ptr=points,
            velocity_ptr=velocity,
            pull_ptr=pull,
            total_ptr=total,
            M=m,
            D=dim,
            factor=factor,
            rate=rate,
            momentum=momentum,
            BLOCK_M=block_m,
            BLOCK_D=block_d,
            num_warps=4 if block_d <= 2048 else 16,
        )


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    for dim in dims:
        yield Variant(
            kernel="sphere_step",
            name="fp32",
            dim=dim,
            function=_sphere_step_kernel,
            types=dict.fromkeys(("factor", "rate", "momentum"), "fp32"),
            constants={"BLOCK_M": _rows(dim), "BLOCK_D": dim},
            bytes=20 * ROWS * dim,
        )
