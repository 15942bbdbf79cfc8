"""The pass for many float32 rows on the CPU: oneDNN products of transposed blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor

from fastproto.cpu.gaussian_blocks import Block, Blocks, PotentialPass, slices


def product(left: Tensor, right: Tensor) -> Tensor:
    """left [m, k] · right [n, k]ᵀ in float32 on the CPU; slow where ``right`` has gaps in memory.

    By oneDNN, which PyTorch exposes for layers only: on AMD Zen 4 a tenth faster than ``torch.mm``.
    """
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], ""))


def has_product() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class TransposedPass(PotentialPass):
    """Many float32 rows on the CPU, for :func:`product`, which reads them transposed, ``side`` at a time: [D, side].

    Rows that are not transposed, 2 KiB apart at D = 512, contend for cache lines.
    """

    def __init__(self, points: Tensor, others: Tensor | None, k: float, weights: Tensor | None, blocks: Blocks) -> None:
        super().__init__(points, others, k, weights, blocks)
        self.side = blocks.transposed_side
        self.transposed_others = transposed(self.others, self.side)
        self.transposed_values = (
            self.transposed_others if self.values is self.others else transposed(self.values, self.side)
        )
        self.transposed_pull = parts_of(torch.zeros_like(self.pull), self.side)

    def block(self, left: Tensor, columns: slice, own: tuple[Tensor, Tensor] | None) -> Block:
        return self.potentials(product(left, self.transposed_others[columns.start // self.side].T), own)

    def add(self, into: slice, summed: slice, block: Block) -> None:
        self.potential[into] += torch.mv(block.g, self.weights[summed])
        values = self.transposed_values[summed.start // self.side]
        self.transposed_pull[into.start // self.side] += product(values, block.g)

    def diagonal(self, left: Tensor, rows: slice) -> Callable[[], None]:
        inner = self.blocks.inner
        if len(left) <= inner:
            return super().diagonal(left, rows)
        weights = None if self.values is self.others else self.weights[rows]
        smaller = self.blocks._replace(transposed_side=inner)
        within = TransposedPass(self.points[rows], None, self.k, weights, smaller)
        within.add_pairs()
        return partial(self.add_within, rows, within)

    def add_within(self, rows: slice, within: TransposedPass) -> None:
        """Add the sums of a pass over the pairs of these rows."""
        self.potential[rows] += within.potential
        pull = self.transposed_pull[rows.start // self.side]
        for columns, part in zip(slices(rows.stop - rows.start, within.side), within.transposed_pull, strict=True):
            pull[:, columns] += part

    def finish(self, own: Tensor | slice | None) -> tuple[Tensor, Tensor]:
        for rows, part in zip(self.pull.split(self.side), self.transposed_pull, strict=True):
            rows.copy_(part.T)
        return super().finish(own)


def parts_of(whole: Tensor, side: int) -> list[Tensor]:
    """The memory of a matrix [C, D] viewed as one matrix [D, side] for each ``side`` rows, without transposing."""
    flat, (count, dim) = whole.view(-1), whole.shape
    return [flat[dim * rows.start : dim * rows.stop].view(dim, -1) for rows in slices(count, side)]


def transposed(matrix: Tensor, side: int) -> list[Tensor]:
    """The rows of the matrix transposed, in the layout of :func:`parts_of`."""
    parts = parts_of(torch.empty_like(matrix, memory_format=torch.contiguous_format), side)
    for part, rows in zip(parts, matrix.split(side), strict=True):
        part.copy_(rows.T)
    return parts
