"""Centres both factors of the scores s_ij = x_i·y_j and bounds the rounding error.

The left factor has rows x_i = left_i / norms_i, the right one y_j = right_j. Points p and others w are these rows less
the mean of their set, divided by the largest centred norm of their set:

    s_ij = unit (p_i·w_j) + row_shift_i + column_shift_j,   row_shift_i = x_i·ȳ - x̄·ȳ,   column_shift_j = y_j·x̄

The part common to all rows then costs the products no digits. Everything but p and w is float64. Every launch covers
both sets; the last dimension of the grid selects the set (0 left, 1 right).
"""
# jit functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from .lib.common import next_power_of_2
from .lib.score_facts import NUMBERS, Facts, facts_in, unit_of, write_facts, write_sums_of_squares
from .lib.variants import ROWS as COUNTED_ROWS
from .lib.variants import Variant

ROWS, BLOCK_D = 16, 128  # of a block: 16 float64 numbers per thread, whole cache lines
MAX_PARTS = 128  # parts that the rows of a mean are cut into


@triton.jit
def _places(first, M, C, ROWS: tl.constexpr):
    """Rows from ``first`` on of this program's set (int64), their mask, and their positions in both sets together."""
    side = tl.program_id(2)
    o_m = tl.cast(first, tl.int64) + tl.arange(0, ROWS)
    return o_m, o_m < tl.where(side == 0, M, C), o_m + side * M


@triton.jit
def _load(left_ptr, right_ptr, norms_ptr, o_m, m_m, column, D, BLOCK_D: tl.constexpr):
    """x or y from ``column`` on, float64 [ROWS, BLOCK_D], zeros outside; the column numbers and their mask."""
    # compared as a block: in the interpreter of Triton 3.9 a scalar comparison gives an integer
    side = tl.program_id(2) + tl.zeros_like(o_m)
    left, right = m_m & (side == 0), m_m & (side == 1)
    o_d = column + tl.arange(0, BLOCK_D)
    at, m_d = o_m[:, None] * D + o_d[None, :], o_d < D
    x = tl.load(left_ptr + at, mask=left[:, None] & m_d[None, :], other=0.0).to(tl.float64)
    y = tl.load(right_ptr + at, mask=right[:, None] & m_d[None, :], other=0.0).to(tl.float64)
    return x * (1.0 / tl.load(norms_ptr + o_m, mask=left, other=1.0))[:, None] + y, o_d, m_d


@triton.jit
def _raise(ptr, values):
    """Atomic maximum with the values: the bits of nonnegative float64 numbers sort as integers."""
    tl.atomic_max(ptr, tl.max(values, 0).to(tl.int64, bitcast=True))


@triton.jit
def _mean_parts_kernel(left_ptr, right_ptr, norms_ptr, parts_ptr, M, C, D, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """parts [2, parts, D]: what each part of the rows adds to the mean of its set."""
    side, parts = tl.program_id(2), tl.num_programs(0)
    n = tl.where(side == 0, M, C)
    rows = tl.cdiv(tl.cdiv(n, ROWS), parts) * ROWS
    begin, column = tl.program_id(0) * rows, tl.program_id(1) * BLOCK_D
    total = tl.zeros([ROWS, BLOCK_D], tl.float64)
    for first in tl.range(begin, tl.minimum(begin + rows, n), ROWS):
        o_m, m_m, _ = _places(first, M, C, ROWS)
        total += _load(left_ptr, right_ptr, norms_ptr, o_m, m_m, column, D, BLOCK_D)[0]
    o_d = column + tl.arange(0, BLOCK_D)
    mean = tl.sum(total, 0) / tl.maximum(n, 1).to(tl.float64)
    tl.store(parts_ptr + (side * parts + tl.program_id(0)) * D + o_d, mean, mask=o_d < D)


@triton.jit
def _row_norms_kernel(
    left_ptr, right_ptr, norms_ptr, means_ptr, norm_ptr, along_ptr, longest_ptr,
    M, C, D,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """norm_i = ‖x_i - x̄‖ and along_i = x_i·ȳ, likewise for the right set; longest [2]: the largest norms."""
    side = tl.program_id(2)
    o_m, m_m, place = _places(tl.program_id(0) * ROWS, M, C, ROWS)
    square, along = tl.zeros([ROWS], tl.float64), tl.zeros([ROWS], tl.float64)
    for column in tl.range(0, D, BLOCK_D):
        x, o_d, m_d = _load(left_ptr, right_ptr, norms_ptr, o_m, m_m, column, D, BLOCK_D)
        along += tl.sum(x * tl.load(means_ptr + (1 - side) * D + o_d, mask=m_d, other=0.0)[None, :], 1)
        x = tl.where(m_m[:, None], x - tl.load(means_ptr + side * D + o_d, mask=m_d, other=0.0)[None, :], 0.0)
        square += tl.sum(x * x, 1)
    norm = tl.sqrt(square)
    tl.store(norm_ptr + place, norm, mask=m_m)
    tl.store(along_ptr + place, along, mask=m_m)
    _raise(longest_ptr + side, norm)


@triton.jit
def _centre_rows_kernel(
    left_ptr, right_ptr, norms_ptr, means_ptr, longest_ptr,
    rows_ptr, rounded_ptr, loss_ptr, low_ptr, largest_loss_ptr, largest_low_ptr,
    M, C, D,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The centred rows in float32 and bfloat16. For their split into two float16 halves: the norm of the rounding error
    (loss) and of the low half (low) of each row, and the largest of both in each set [2]."""
    side = tl.program_id(2)
    o_m, m_m, place = _places(tl.program_id(0) * ROWS, M, C, ROWS)
    share = 1.0 / unit_of(longest_ptr, side)
    lost, lows = tl.zeros([ROWS], tl.float64), tl.zeros([ROWS], tl.float64)
    for column in tl.range(0, D, BLOCK_D):
        x, o_d, m_d = _load(left_ptr, right_ptr, norms_ptr, o_m, m_m, column, D, BLOCK_D)
        x = tl.where(m_m[:, None], x - tl.load(means_ptr + side * D + o_d, mask=m_d, other=0.0)[None, :], 0.0) * share
        row = x.to(tl.float32)
        high = row.to(tl.float16)
        low = (row - high.to(tl.float32)).to(tl.float16).to(tl.float64)
        gone = x - high.to(tl.float64) - low
        lost += tl.sum(gone * gone, 1)
        lows += tl.sum(low * low, 1)
        at, mask = place[:, None] * D + o_d[None, :], m_m[:, None] & m_d[None, :]
        tl.store(rows_ptr + at, row, mask=mask)
        tl.store(rounded_ptr + at, row.to(tl.bfloat16), mask=mask)
    loss, low = tl.sqrt(lost), tl.sqrt(lows)
    tl.store(loss_ptr + place, loss, mask=m_m)
    tl.store(low_ptr + place, low, mask=m_m)
    _raise(largest_loss_ptr + side, loss)
    _raise(largest_low_ptr + side, low)


class Centred(NamedTuple):
    """The result of :func:`centre_factors`."""

    points: Tensor  # [M, D] float32, of length up to 1
    others: Tensor  # [C, D] float32, of length up to 1
    packed: Tensor  # the memory of ``facts``

    @property
    def facts(self) -> Facts:
        return facts_in(self.packed, len(self.points), len(self.others))

    def facts_on_host(self) -> Facts:
        """One device-to-host copy."""
        return facts_in(self.packed.cpu(), len(self.points), len(self.others))


def centre_factors(left: Tensor, norms: Tensor, right: Tensor) -> Centred:
    """Centres left [M, D] and right [C, D], float32 or float64, and writes their facts; norms [M] float64 > 0."""
    (m, dim), c = left.shape, len(right)
    most, block_d = max(m, c), min(BLOCK_D, next_power_of_2(dim))
    sets = {"left_ptr": left.contiguous(), "right_ptr": right.contiguous(), "norms_ptr": norms.contiguous()}
    sizes = {"M": m, "C": c, "D": dim, "ROWS": ROWS, "BLOCK_D": block_d}
    grid = (-(-most // ROWS), 1, 2)

    def numbers(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=left.device)

    norm, loss, low = numbers(3, m + c)
    # [3, 2]: the largest norm, loss and low of each set, as float64 bits for the atomic maximum
    raised = torch.zeros((3, 2), dtype=torch.int64, device=left.device)
    rows, rounded = numbers(m + c, dim, dtype=torch.float32), numbers(m + c, dim, dtype=torch.bfloat16)
    packed = numbers(NUMBERS + m + m + c)
    facts = facts_in(packed, m, c)
    with torch.cuda.device_of(left):
        parts = numbers(2, min(MAX_PARTS, -(-most // (4 * ROWS))), dim)
        _mean_parts_kernel[(parts.shape[1], -(-dim // block_d), 2)](**sets, parts_ptr=parts, **sizes)
        means = parts.sum(1)
        shifts = packed[-(m + c) :]  # row_shift and column_shift, contiguous
        _row_norms_kernel[grid](
            **sets, means_ptr=means, norm_ptr=norm, along_ptr=shifts, longest_ptr=raised[0], **sizes
        )
        _centre_rows_kernel[grid](
            **sets,
            means_ptr=means,
            longest_ptr=raised[0].view(torch.float64),
            rows_ptr=rows,
            rounded_ptr=rounded,
            loss_ptr=loss,
            low_ptr=low,
            largest_loss_ptr=raised[1],
            largest_low_ptr=raised[2],
            **sizes,
        )
        write_facts(facts, means, norm, loss, low, raised)
    write_sums_of_squares(facts, rounded[:m], rounded[m:])
    return Centred(rows[:m], rows[m:], packed)


def variants(family: int, dims: tuple[int, ...]) -> Iterator[Variant]:
    pointers = dict.fromkeys(("norms_ptr", "means_ptr", "longest_ptr", "loss_ptr", "low_ptr"), "fp64")
    pointers |= dict.fromkeys(("parts_ptr", "norm_ptr", "along_ptr"), "fp64")
    raised = {"largest_loss_ptr": "i64", "largest_low_ptr": "i64"}
    # kernel name, function, further pointer types, bytes per float32 number of both sets
    forms: tuple[tuple[str, JITFunction, dict[str, str], int], ...] = (
        ("mean_parts", _mean_parts_kernel, {}, 4),
        ("row_norms", _row_norms_kernel, {"longest_ptr": "i64"}, 4),
        ("centre_rows", _centre_rows_kernel, raised | {"rounded_ptr": "bf16"}, 10),
    )
    for (kernel, function, more, size), dim, x in itertools.product(forms, dims, ("fp32", "fp64")):
        types = pointers | {"left_ptr": x, "right_ptr": x} | more
        yield Variant(
            kernel=kernel,
            name=x,
            dim=dim,
            function=function,
            types={name: kind for name, kind in types.items() if name in function.arg_names},
            constants={"ROWS": ROWS, "BLOCK_D": min(BLOCK_D, dim)},
            bytes=2 * COUNTED_ROWS * dim * (size + (x == "fp64") * 4),
        )
