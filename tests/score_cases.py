"""Shapes, tiles and rows of the tests of the kernels that sweep over all pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from .kernel_device import DEVICE

# isort: split
from fastproto_kernels.lib import tile_sizes as tiles

from .helpers import unit_rows

# (M, C, D): aligned, ragged, prime, the smallest, one row, one other, and beyond what stays in one program
SHAPES = [(64, 64, 32), (40, 70, 10), (31, 37, 17), (1, 1, 2), (1, 300, 3), (65, 1, 100), (33, 40, 513)]

# float32-like products of halves: the tensor cores cut off low bits of their sums, the interpreter does not
CRUMB = {
    "highest": 1e-6,
    "tf32x3": 1e-5,
    "higher": 2e-6 if DEVICE.type == "cpu" else 2e-5,
    "high": 1e-3,
    "medium": 2e-3,
}


def tile_of(dim: int, resident: bool = True) -> tiles.Tile | None:
    """Small tiles for the interpreter, which pays for each; None, what ships, on a GPU."""
    if DEVICE.type == "cuda":
        return None
    width = tiles.width_of(dim)
    return tiles.Tile(32, 32, block_k=width if resident and width <= 512 else min(width, 256))


def rows(count: int, dim: int) -> Tensor:
    return unit_rows(count, dim).to(DEVICE)


def strided(matrix: Tensor) -> Tensor:
    """The same numbers with every second column of the memory between them."""
    wide = torch.zeros(len(matrix), 2 * matrix.shape[1], device=matrix.device, dtype=matrix.dtype)
    wide[:, ::2] = matrix
    return wide[:, ::2]
