"""Adds the potentials and pulls of the parts of a pass, in a fixed order."""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import next_power_of_2
from .variants import ROWS, Variant


@triton.jit
def _add_parts_kernel(
    part_potential_ptr, part_pull_ptr, potential_ptr, pull_ptr,
    M, D, parts,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
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


def add_parts(part_potential: Tensor, part_pull: Tensor) -> tuple[Tensor, Tensor]:
    """[parts, M] and [parts, M, D] -> [M] and [M, D]; a single part is returned without a copy."""
    parts, m, dim = part_pull.shape
    if parts == 1:
        return part_potential[0], part_pull[0]
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


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    for dim in dims:
        yield Variant(
            kernel="add_parts",
            name="fp32",
            dim=dim,
            function=_add_parts_kernel,
            types={},
            constants={"BLOCK_M": 16, "BLOCK_D": min(128, dim)},
            bytes=12 * ROWS * dim,  # two parts
        )
