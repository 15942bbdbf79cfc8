"""One pass of the Gaussian potential in PyTorch: in blocks, each pair of a full set once, in three precisions."""

from __future__ import annotations

import importlib
import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

SHOWS = (
    7e-3  # of the error of the tangent gradient that "medium" promises, estimated from above: beyond, it is corrected
)
OFFSET_MAX = 16.0  # up to this 2t the factor exp(-2t) is applied to the sums, not to g; beyond, g is more accurate so
ROUNDED_MIN_DIM = 96  # below it the cosines of random rows are too large for "high", and the products too small to gain
HIGH_MAX = 0.2  # up to this (2t)²/D, to which the error of "high" is proportional: 8e-4 at t = 2 and D = 96
# "medium" in 8-bit integers: where they are quick, twice the rate of bfloat16.
INTEGER_MAX = 4.0  # up to this 2t
INTEGER_MIN_RATIO = 6  # rows over D from which they gain more than their exact moments, 4·C·D² in float32, cost
INTEGER_PEAK = 8.0  # up to this max|w|·√D; beyond, steps of max|w|/127 are coarse for all the other entries
INTEGER_ERROR = 0.02  # of a block's remainders, over the spread k/√D of what is kept exact; else bfloat16
CUDA_SIDE = 4096  # of a block: 64 MiB, products that fill the chip
TURNED_FROM = 4000  # points; with fewer the quicker products gain less than transposing costs
LOG2_E = 1 / math.log(2)  # torch's exp2 takes a third of the time of its exp


def sweep_in_blocks(
    points: Tensor,
    others: Tensor | None,
    t: float,
    self_index: Tensor | None,
    weights: Tensor | None,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Potential [M] and pull [M, D] of points on others (None: of the points on each other, without self-pairs)."""
    dtype, dim = torch.float64 if points.dtype == torch.float64 else torch.float32, points.shape[1]
    points, others = points.to(dtype), None if others is None else others.to(dtype)
    weights = None if weights is None else weights.to(dtype)
    low = precision != "highest" and dtype == torch.float32 and dim >= ROUNDED_MIN_DIM and quick_bfloat16(points.device)
    low = low and (precision != "high" or (2 * t) ** 2 <= HIGH_MAX * dim)

    def sweep(points: Tensor) -> _Sweep:
        if low:
            dense = None if others is None else others.contiguous()
            return _RoundedSweep(points.contiguous(), dense, 2 * t, weights, precision)
        many = len(points) > TURNED_FROM and dtype == torch.float32 and points.device.type == "cpu" and has_product()
        return (_TurnedSweep if many else _Sweep)(points, others, 2 * t, weights)

    if others is None:
        return sweep(points).symmetric()
    if self_index is None or bool((self_index >= 0).all()):
        return sweep(points).general(self_index)
    potential, pull = points.new_empty(len(points)), points.new_empty(points.shape)
    inside = self_index >= 0
    for some, own in ((inside, self_index[inside]), (~inside, None)):
        if bool(some.any()):
            potential[some], pull[some] = sweep(points[some]).general(own)
    return potential, pull


def quick_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are quicker than float32 ones; asked of the hardware, never timed: same bits."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and any(
        getattr(torch.cpu, name, bool)() for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )


def quick_integers(device: torch.device) -> bool:
    """Whether products of 8-bit integers are quicker than bfloat16 ones; asked of the processor, never timed."""
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_vnni_supported", bool)())


def _rounding() -> Any:
    """The formulas that the kernels use as well; no Triton is needed for them."""
    return importlib.import_module("fastproto_kernels.lib.rounding")


def product(left: Tensor, right: Tensor) -> Tensor:
    """left [m, k] · right [n, k]ᵀ in float32 on the CPU; slow where ``right`` has gaps in memory.

    By oneDNN, for which PyTorch has no public call but for layers: on AMD Zen 4 a tenth faster than ``torch.mm``.
    """
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], ""))


def has_product() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def slices(count: int, side: int) -> list[slice]:
    return [slice(start, min(start + side, count)) for start in range(0, count, side)]


class _Block(NamedTuple):
    """What a block holds [R, C] in float32, and, for the products of ``pull``, rounded: g ≈ unit·(rounded + zero)."""

    g: Tensor
    rounded: Tensor | None = None
    unit: float = 1.0
    zero: int = 0

    def turned(self) -> _Block:
        """Its columns as rows."""
        return self._replace(g=self.g.T, rounded=None if self.rounded is None else self.rounded.T)


class _Sweep:
    """One pass in the dtype of the points. With k = 2t a block holds exp(k·cos); exp(-k) is applied to the sums."""

    side = 768  # of a block, 2.3 MiB in float32: in the cache from the product that makes it to those that use it

    def __init__(self, points: Tensor, others: Tensor | None, k: float, weights: Tensor | None) -> None:
        self.k, self.points, self.others = k, points, points if others is None else others
        if points.device.type == "cuda":
            self.side = CUDA_SIDE
        self.weights = points.new_ones(len(self.others)) if weights is None else weights
        self.values = self.others if weights is None else self.others * weights[:, None]
        self.offset = 0.0 if k <= OFFSET_MAX else k
        self.potential = points.new_zeros(len(points))
        self.pull = torch.zeros_like(points, memory_format=torch.contiguous_format)

    def left(self, rows: slice) -> Tensor:
        """Of the product that makes the blocks of these rows."""
        return self.points[rows] if self.offset else self.points[rows] * (self.k * LOG2_E)

    def block(self, left: Tensor, columns: slice, own: tuple[Tensor, Tensor] | None) -> _Block:
        """The block of the rows of ``left`` with these columns, zero at the places ``own``, the self-pairs."""
        return self.potentials(left @ self.others[columns].T, own)

    def potentials(self, g: Tensor, own: tuple[Tensor, Tensor] | None) -> _Block:
        # the first in this order: 1 - cos of a close pair is exact, k times the cosine would not be
        g = g.sub_(1).mul_(self.k).exp_() if self.offset else g.exp2_()
        if own is not None:
            g.index_put_(own, g.new_zeros(()))  # a Python 0 would make a GPU wait
        return _Block(g)

    def add(self, into: slice, summed: slice, block: _Block) -> None:
        """For each row of the block, the points ``into``, Σ over its columns, the rows ``summed`` of others."""
        self.potential[into] += torch.mv(block.g, self.weights[summed])  # also along columns as quick as the memory
        self.pull[into].addmm_(block.g, self.values[summed])

    def symmetric(self) -> tuple[Tensor, Tensor]:
        self.add_pairs()
        return self.finish(slice(None))

    def add_pairs(self) -> None:
        """Each pair once: a row of blocks begins at the diagonal and gives to both its rows and its columns."""
        blocks = slices(len(self.points), self.side)
        for i, rows in enumerate(blocks):
            left = self.left(rows)
            self.add_diagonal(left, rows)
            for columns in blocks[i + 1 :]:
                block = self.block(left, columns, None)
                self.add(rows, columns, block)
                self.add(columns, rows, block.turned())
                del block  # or two would be held at once

    def add_diagonal(self, left: Tensor, rows: slice) -> None:
        """The pairs of the rows with each other."""
        own = torch.arange(len(left), device=left.device)
        self.add(rows, rows, self.block(left, rows, (own, own)))

    def general(self, self_index: Tensor | None) -> tuple[Tensor, Tensor]:
        for rows in slices(len(self.points), self.side):
            left = self.left(rows)
            for columns in slices(len(self.others), self.side):
                own = None
                if self_index is not None:
                    at = self_index[rows] - columns.start
                    inside = ((at >= 0) & (at < columns.stop - columns.start)).nonzero().squeeze(1)
                    own = inside, at[inside]
                self.add(rows, columns, self.block(left, columns, own))
        return self.finish(self_index)

    def finish(self, own: Tensor | slice | None) -> tuple[Tensor, Tensor]:
        scale = math.exp(self.offset - self.k)
        return self.potential.mul_(scale), self.pull.mul_(scale)


class _TurnedSweep(_Sweep):
    """Many float32 rows on the CPU, for :func:`product`, which reads them transposed, ``side`` at a time: [D, side].

    As they are, 2 KiB apart at D = 512, they would contend for cache lines.
    """

    side = 832  # a block is 2.6 MiB; from 640 to 1792 the difference is a few hundredths
    inner = 208  # of the blocks on the diagonal, where half of the work is done twice

    def __init__(self, points: Tensor, others: Tensor | None, k: float, weights: Tensor | None) -> None:
        super().__init__(points, others, k, weights)
        self.turned_others = turned(self.others, self.side)
        self.turned_values = self.turned_others if self.values is self.others else turned(self.values, self.side)
        self.turned_pull = parts_of(torch.zeros_like(self.pull), self.side)

    def block(self, left: Tensor, columns: slice, own: tuple[Tensor, Tensor] | None) -> _Block:
        return self.potentials(product(left, self.turned_others[columns.start // self.side].T), own)

    def add(self, into: slice, summed: slice, block: _Block) -> None:
        self.potential[into] += torch.mv(block.g, self.weights[summed])
        values = self.turned_values[summed.start // self.side]
        self.turned_pull[into.start // self.side] += product(values, block.g)

    def add_diagonal(self, left: Tensor, rows: slice) -> None:
        if len(left) <= self.inner:
            return super().add_diagonal(left, rows)
        weights = None if self.values is self.others else self.weights[rows]
        within = _InnerSweep(self.points[rows], None, self.k, weights)
        within.add_pairs()
        self.potential[rows] += within.potential
        pull = self.turned_pull[rows.start // self.side]
        for columns, part in zip(slices(len(left), within.side), within.turned_pull, strict=True):
            pull[:, columns] += part

    def finish(self, own: Tensor | slice | None) -> tuple[Tensor, Tensor]:
        for rows, part in zip(self.pull.split(self.side), self.turned_pull, strict=True):
            rows.copy_(part.T)
        return super().finish(own)


class _InnerSweep(_TurnedSweep):
    """Within a block on the diagonal."""

    side = inner = _TurnedSweep.inner


def parts_of(whole: Tensor, side: int) -> list[Tensor]:
    """The memory of a matrix [C, D], filled by other numbers: for ``side`` rows at a time a matrix [D, side]."""
    flat, (count, dim) = whole.view(-1), whole.shape
    return [flat[dim * rows.start : dim * rows.stop].view(dim, -1) for rows in slices(count, side)]


def turned(matrix: Tensor, side: int) -> list[Tensor]:
    """The rows of the matrix transposed, in such parts."""
    parts = parts_of(torch.empty_like(matrix, memory_format=torch.contiguous_format), side)
    for part, rows in zip(parts, matrix.split(side), strict=True):
        part.copy_(rows.T)
    return parts


class _RoundedSweep(_Sweep):
    """Blocks rounded for the products, so they hold only what varies, and the rest is added at the end in float32:

    exp(x) - 1 without Σ_j w_j; or, ``split``, exp(x) - 1 - x also without the sums of x, Σ_j w_j and (WᵀW) w_i: what
    is left, small at the cosines of evenly spread rows, bears more rounding. ``high`` rounds to bfloat16, split;
    ``medium`` to 8-bit integers, split, where they pay, else to bfloat16. What the rounding of the points does to the
    pull, which grows with C, the same moments give back (fastproto_kernels.lib.rounding has the reasoning).
    """

    def __init__(self, points: Tensor, others: Tensor | None, k: float, weights: Tensor | None, precision: str) -> None:
        super().__init__(points, others, k, weights)
        self.g, self.exponent, self.g16 = self.buffer(), self.buffer(), self.buffer(torch.bfloat16)
        # Both factors of a product are scaled by the root of k·log2(e), so that a row has one rounding on either side.
        self.root = math.sqrt(k * LOG2_E)
        self.right = (self.others * self.root).to(torch.bfloat16)
        self.heavy = self.right if weights is None else (self.values * self.root).to(torch.bfloat16)
        self.step = 0.0  # of the 8-bit integers; 0 says that there are none
        if precision == "medium" and self.integers_pay():
            self.step = self.peak() / 127
            self.lefts = (points / self.step).round_().to(torch.int8)
            self.right = self.lefts if others is None else (self.others / self.step).round_().to(torch.int8)
            self.g8, self.ones8 = self.buffer(torch.int8), self.right.new_ones(1, self.side)
        else:
            self.lefts = self.right if others is None else (points * self.root).to(torch.bfloat16)
        self.split = precision == "high" or self.step > 0

    def buffer(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Room for one block, used again and again."""
        return self.points.new_empty(min(self.side, len(self.points)) * min(self.side, len(self.others)), dtype=dtype)

    def integers_pay(self) -> bool:
        rows, dim = min(len(self.points), len(self.others)), self.points.shape[1]
        if self.k > INTEGER_MAX or rows < INTEGER_MIN_RATIO * dim or not quick_integers(self.points.device):
            return False
        return self.peak() * math.sqrt(dim) <= INTEGER_PEAK

    def peak(self) -> float:
        """The largest absolute entry of points and others."""
        ends = [end for x in {self.points, self.others} for end in torch.aminmax(x)]
        return max(abs(float(end)) for end in ends)

    def left(self, rows: slice) -> Tensor:
        return self.lefts[rows]

    def block(self, left: Tensor, columns: slice, own: tuple[Tensor, Tensor] | None) -> _Block:
        right = self.right[columns]
        shape, size = (len(left), len(right)), len(left) * len(right)
        g, exponent, g16 = self.g[:size].view(shape), self.exponent[:size].view(shape), self.g16[:size].view(shape)
        if self.step:
            exponent.copy_(torch._int_mm(left, right.T, out=g.view(torch.int32))).mul_(self.k * LOG2_E * self.step**2)
        else:
            exponent.copy_(torch.mm(left, right.T, out=g16))
        torch.exp2(exponent, out=g).sub_(1)
        if self.split:
            g.sub_(exponent, alpha=1 / LOG2_E)
        if own is not None:
            g[own] = 0
        return self.in_integers(g) or _Block(g, g16.copy_(g))

    def in_integers(self, g: Tensor) -> _Block | None:
        """The block in 255 steps, where they are fine enough: a close pair, say, makes them coarse."""
        if not self.step or self.values is not self.others:
            return None
        unit = max(float(g.max()), 1e-30) / 254  # from -127 for 0 to 127 for the largest; none is negative
        if unit > math.sqrt(12) * INTEGER_ERROR * self.k / math.sqrt(self.points.shape[1]):
            return None
        scaled = self.exponent[: g.numel()].view(g.shape)
        torch.add(g.new_tensor(-127.0), g, alpha=1 / unit, out=scaled).round_()
        return _Block(g, self.g8[: g.numel()].view(g.shape).copy_(scaled), unit, 127)

    def add(self, into: slice, summed: slice, block: _Block) -> None:
        self.potential[into] += torch.mv(block.g, self.weights[summed])
        assert block.rounded is not None
        if block.rounded.dtype == torch.int8:
            unit, w = block.unit * self.step, self.right[summed]
            self.pull[into].add_(torch._int_mm(block.rounded, w), alpha=unit)
            self.pull[into].add_(torch._int_mm(self.ones8[:, : len(w)], w), alpha=unit * block.zero)
        else:
            self.pull[into].add_(block.rounded @ self.heavy[summed], alpha=1 / self.root)

    def rounding_shows(self) -> bool:
        """Whether the rounding of the points, beside so many others, takes more than its share of the promise."""
        error: float = _rounding().error_of_points(self.k / 2, 2.0**-9, *self.others.shape)
        return error > SHOWS

    def given_back(self) -> Tensor:
        """The points whose products with the moments, times k, are missing from the pull: those of x, and of its error.

        Call it when the potential is complete.
        """
        t, dim = self.k / 2, self.points.shape[1]
        lost = torch.sub(self.points, self.lefts.float(), alpha=self.step or 1 / self.root)
        total = self.weights.sum()
        mean = self.potential / total
        if self.values is not self.others:
            usual = (self.weights >= 0).all() & (total > 0)
            mean = torch.where(usual, mean, _rounding().hypergeometric(dim / 2, t * t))
        factor: Tensor = mean * _rounding().share_across(t, dim)
        if not self.split:
            return lost.mul_(factor[:, None])
        return lost.mul_((factor - 1)[:, None]).add_(self.points)

    def finish(self, own: Tensor | slice | None) -> tuple[Tensor, Tensor]:
        """Adds what the blocks left out, without the pairs of the points with ``others[own]``, themselves."""
        total, values = self.values.sum(0), self.values
        self.potential += self.weights.sum()
        self.pull += total
        if self.split:
            self.potential += self.k * (self.points @ total)
        if self.split or self.rounding_shows():
            self.pull.addmm_(self.given_back(), self.others.T @ values, alpha=self.k)
        if own is not None:
            lost = torch.ones_like(self.potential)
            if self.split:
                lost += self.k * (self.points * self.others[own]).sum(1)
            self.potential -= lost * self.weights[own]
            self.pull.addcmul_(lost[:, None], values[own], value=-1)
        return super().finish(own)
