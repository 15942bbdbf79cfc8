"""The pass of precision ``high`` and ``medium``: products in bfloat16 or 8-bit integers, corrected for rounding."""

from __future__ import annotations

import copy
import math

import torch
from fastproto_kernels.lib import rounding
from torch import Tensor

from fastproto.cpu.gaussian_blocks import LOG2_E, Block, Blocks, PotentialPass

# Largest estimated error of the tangent gradient, from rounding the points, that is not corrected ("medium": 1e-2).
UNCORRECTED_MAX = 7e-3
# "medium" in 8-bit integers, at twice the rate of bfloat16 where the hardware has them.
INTEGER_MAX = 4.0  # up to this 2t
INTEGER_PEAK = 8.0  # up to this max|w|·√D; above, steps of max|w|/127 are too coarse for the other entries
INTEGER_ERROR = 0.02  # of a block's residual, relative to the spread k/√D of the exact part; above, bfloat16


class RoundedPass(PotentialPass):
    """Only the residual of exp(x), x = k·cos, is rounded; the rest is added at the end in float32.

    The residual is exp(x) - 1, whose missing part is Σ_j w_j; or, ``split``, exp(x) - 1 - x, which also misses the
    sums of x, from Σ_j w_j and (WᵀW) w_i. The second residual is small where rows are evenly spread, so it tolerates
    lower precision. ``high`` rounds to bfloat16, split; ``medium`` to 8-bit integers, split, where they are faster,
    else to bfloat16. Rounding the points changes the pull by an amount that grows with C; the same moments correct it
    (see fastproto_kernels.lib.rounding).
    """

    def __init__(
        self,
        points: Tensor,
        others: Tensor | None,
        k: float,
        weights: Tensor | None,
        blocks: Blocks,
        *,
        precision: str,
        integers: bool,
    ) -> None:
        super().__init__(points, others, k, weights, blocks)
        self.take_buffers()
        # Both factors are scaled by the root of k·log2(e), so that a row is rounded alike on either side of a product.
        self.root = math.sqrt(k * LOG2_E)
        self.right = (self.others * self.root).to(torch.bfloat16)
        self.heavy = self.right if weights is None else (self.values * self.root).to(torch.bfloat16)
        self.step = 0.0  # of the 8-bit integers; 0: none are used
        if integers and precision == "medium" and self.integers_pay():
            self.step = self.peak() / 127
            self.lefts = (points / self.step).round_().to(torch.int8)
            self.right = self.lefts if others is None else (self.others / self.step).round_().to(torch.int8)
            self.g8, self.ones8 = self.buffer(torch.int8), self.right.new_ones(1, self.side)
        else:
            self.lefts = self.right if others is None else (points * self.root).to(torch.bfloat16)
        self.split = precision == "high" or self.step > 0

    def take_buffers(self) -> None:
        self.g, self.exponent, self.g16 = self.buffer(), self.buffer(), self.buffer(torch.bfloat16)

    def worker(self) -> RoundedPass:
        """With room for blocks of its own."""
        other = copy.copy(self)
        other.take_buffers()
        if self.step:
            other.g8 = other.buffer(torch.int8)
        return other

    def buffer(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory for one block, reused by all of them."""
        return self.points.new_empty(min(self.side, len(self.points)) * min(self.side, len(self.others)), dtype=dtype)

    def integers_pay(self) -> bool:
        rows, dim = min(len(self.points), len(self.others)), self.points.shape[1]
        if self.k > INTEGER_MAX or rows < self.blocks.integer_min_ratio * dim:
            return False
        return self.peak() * math.sqrt(dim) <= INTEGER_PEAK

    def peak(self) -> float:
        """The largest absolute entry of points and others."""
        ends = [end for x in {self.points, self.others} for end in torch.aminmax(x)]
        return max(abs(float(end)) for end in ends)

    def left(self, rows: slice) -> Tensor:
        return self.lefts[rows]

    def block(self, left: Tensor, columns: slice, own: tuple[Tensor, Tensor] | None) -> Block:
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
        return self.in_integers(g) or Block(g, g16.copy_(g))

    def in_integers(self, g: Tensor) -> Block | None:
        """The block in 255 steps, or None where these are too coarse, for instance because of a close pair."""
        if not self.step or self.values is not self.others:
            return None
        unit = max(float(g.max()), 1e-30) / 254  # 0 becomes -127 and the largest 127; none is negative
        if unit > math.sqrt(12) * INTEGER_ERROR * self.k / math.sqrt(self.points.shape[1]):
            return None
        scaled = self.exponent[: g.numel()].view(g.shape)
        torch.add(g.new_tensor(-127.0), g, alpha=1 / unit, out=scaled).round_()
        return Block(g, self.g8[: g.numel()].view(g.shape).copy_(scaled), unit, 127)

    def add(self, into: slice, summed: slice, block: Block) -> None:
        self.potential[into] += torch.mv(block.g, self.weights[summed])
        assert block.rounded is not None
        if block.rounded.dtype == torch.int8:
            unit, w = block.unit * self.step, self.right[summed]
            self.pull[into].add_(torch._int_mm(block.rounded, w), alpha=unit)
            self.pull[into].add_(torch._int_mm(self.ones8[:, : len(w)], w), alpha=unit * block.zero)
        else:
            self.pull[into].add_(block.rounded @ self.heavy[summed], alpha=1 / self.root)

    def rounding_shows(self) -> bool:
        """Whether the error from rounding the points, which grows with C, is large enough to be corrected."""
        error: float = rounding.error_of_points(self.k / 2, 2.0**-9, *self.others.shape)
        return error > UNCORRECTED_MAX

    def missing_points(self) -> Tensor:
        """Rows whose product with the moments, times k, completes the pull: for x, and for the rounding of the points.

        The potential must be complete.
        """
        t, dim = self.k / 2, self.points.shape[1]
        lost = torch.sub(self.points, self.lefts.float(), alpha=self.step or 1 / self.root)
        total = self.weights.sum()
        mean = self.potential / total
        if self.values is not self.others:
            usual = (self.weights >= 0).all() & (total > 0)
            mean = torch.where(usual, mean, rounding.hypergeometric(dim / 2, t * t))
        factor: Tensor = mean * rounding.share_across(t, dim)
        if not self.split:
            return lost.mul_(factor[:, None])
        return lost.mul_((factor - 1)[:, None]).add_(self.points)

    def finish(self, own: Tensor | slice | None) -> tuple[Tensor, Tensor]:
        """Add what the blocks left out, except for the self-pairs of the points with ``others[own]``."""
        total, values = self.values.sum(0), self.values
        self.potential += self.weights.sum()
        self.pull += total
        if self.split:
            self.potential += self.k * (self.points @ total)
        if self.split or self.rounding_shows():
            self.pull.addmm_(self.missing_points(), self.others.T @ values, alpha=self.k)
        if own is not None:
            lost = torch.ones_like(self.potential)
            if self.split:
                lost += self.k * (self.points * self.others[own]).sum(1)
            self.potential -= lost * self.weights[own]
            self.pull.addcmul_(lost[:, None], values[own], value=-1)
        return super().finish(own)
