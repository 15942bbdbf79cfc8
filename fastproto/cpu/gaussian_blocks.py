"""A pass of the Gaussian potential over all pairs, in square blocks and in the dtype of the points."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fastproto.cpu.shared_rows import Turns, share_rows, threads_of_a_pass

OFFSET_MAX = 16.0  # up to this 2t the factor exp(-2t) is applied to the sums; above, g is more accurate with it
CUDA_SIDE = 4096  # of a block: 64 MiB, products that fill the GPU
SHARED_ROWS = 4  # rows of blocks from which threads share them: with fewer the pass ends before both are busy
LOG2_E = 1 / math.log(2)  # for torch's exp2, which takes a third of the time of its exp


class Blocks(NamedTuple):
    """Block sizes, and the sizes from which a pass uses faster products."""

    side: int = 768  # 2.3 MiB in float32: a block stays in the cache until it has been used
    transposed_from: int = 4000  # points; with fewer the faster products gain less than transposing costs
    transposed_side: int = 832  # 2.6 MiB; anything from 640 to 1792 does about as well
    inner: int = 208  # of the blocks on the diagonal, where half of the work is done twice
    integer_min_ratio: float = 6  # rows over D from which integers gain more than their exact moments, 4·C·D², cost


def slices(count: int, side: int) -> list[slice]:
    return [slice(start, min(start + side, count)) for start in range(0, count, side)]


class Block(NamedTuple):
    """A block of g, [R, C] in float32, and rounded for the products of ``pull``: g ≈ unit·(rounded + zero)."""

    g: Tensor
    rounded: Tensor | None = None
    unit: float = 1.0
    zero: int = 0

    def turned(self) -> Block:
        """The block transposed."""
        return self._replace(g=self.g.T, rounded=None if self.rounded is None else self.rounded.T)


class PotentialPass:
    """One pass in the dtype of the points. With k = 2t a block holds exp(k·cos); exp(-k) is applied to the sums."""

    def __init__(self, points: Tensor, others: Tensor | None, k: float, weights: Tensor | None, blocks: Blocks) -> None:
        self.k, self.points, self.others = k, points, points if others is None else others
        self.blocks, self.side = blocks, CUDA_SIDE if points.device.type == "cuda" else blocks.side
        self.weights = points.new_ones(len(self.others)) if weights is None else weights
        self.values = self.others if weights is None else self.others * weights[:, None]
        self.offset = 0.0 if k <= OFFSET_MAX else k
        self.potential = points.new_zeros(len(points))
        self.pull = torch.zeros_like(points, memory_format=torch.contiguous_format)

    def left(self, rows: slice) -> Tensor:
        """The left factor of the product that makes the blocks of these rows."""
        return self.points[rows] if self.offset else self.points[rows] * (self.k * LOG2_E)

    def block(self, left: Tensor, columns: slice, own: tuple[Tensor, Tensor] | None) -> Block:
        """The block of the rows of ``left`` with these columns, zero at the places ``own``, the self-pairs."""
        return self.potentials(left @ self.others[columns].T, own)

    def potentials(self, g: Tensor, own: tuple[Tensor, Tensor] | None) -> Block:
        # subtract first: 1 - cos of a close pair is exact, k·cos would be rounded
        g = g.sub_(1).mul_(self.k).exp_() if self.offset else g.exp2_()
        if own is not None:
            g.index_put_(own, g.new_zeros(()))  # a Python 0 would synchronise
        return Block(g)

    def add(self, into: slice, summed: slice, block: Block) -> None:
        """Add to the points ``into``, the block's rows, the sums over its columns, the rows ``summed`` of others."""
        self.potential[into] += torch.mv(block.g, self.weights[summed])  # memory-bound, also if g is transposed
        self.pull[into].addmm_(block.g, self.values[summed])

    def symmetric(self) -> tuple[Tensor, Tensor]:
        self.add_pairs()
        return self.finish(slice(None))

    def add_pairs(self) -> None:
        """Each pair once: blocks from the diagonal on, each added to both its rows and its columns."""
        blocks = slices(len(self.points), self.side)
        turns = Turns(len(blocks))
        threads = threads_of_a_pass() if self.points.device.type == "cpu" else 1
        if threads > 1 and len(blocks) >= SHARED_ROWS:
            share_rows(len(blocks), threads, turns, lambda: partial(self.worker().add_row, blocks, turns))
        else:
            for i in range(len(blocks)):
                self.add_row(blocks, turns, i)

    def add_row(self, blocks: list[slice], turns: Turns, i: int) -> None:
        """The pairs of the rows ``blocks[i]`` with themselves and with all later ones.

        The sums of these rows take their terms in the order of the others' numbers, and so do those of the columns.
        """
        rows = blocks[i]
        left = self.left(rows)
        add_diagonal = self.diagonal(left, rows)
        with turns.turn(i, i):
            add_diagonal()
        for j, columns in enumerate(blocks[i + 1 :], i + 1):
            block = self.block(left, columns, None)
            with turns.turn(i, j):
                self.add(rows, columns, block)
            with turns.turn(j, i):
                self.add(columns, rows, block.turned())
            del block  # otherwise two are held at once

    def worker(self) -> PotentialPass:
        """The same points and sums, with buffers of its own, for one thread."""
        return copy.copy(self)

    def diagonal(self, left: Tensor, rows: slice) -> Callable[[], None]:
        """Computes the pairs of the rows with each other, and returns what adds them."""
        own = torch.arange(len(left), device=left.device)
        return partial(self.add, rows, rows, self.block(left, rows, (own, own)))

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
