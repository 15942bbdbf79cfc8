"""The nearest prototypes on the CPU: blocks of cosines by PyTorch, the top k of each block by numba."""

# compiled functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.cpu.numba_cache import compiled
from fastproto.cpu.score_blocks import insert, largest

ROWS, COLUMNS = 512, 2048  # of a block: 4 MiB of float32 stay in the cache between the product and the top-k
RUN = 128  # columns that are skipped together


def nearest_prototypes(
    z: Tensor, w: Tensor, k: int, *, rows: int = ROWS, columns: int = COLUMNS
) -> tuple[Tensor, Tensor]:
    """Top k of z @ w.T for float32 unit rows: cosines [B, k], descending, and rows of w [B, k] int64, lowest first."""
    cosines = torch.full((len(z), k), -torch.inf, dtype=torch.float32, device="cpu")  # torch's defaults may differ
    indices = torch.full((len(z), k), -1, dtype=torch.int64, device="cpu")
    room = torch.empty(min(rows, len(z)) * min(columns, len(w)), dtype=torch.float32, device="cpu")
    for start in range(0, len(z), rows):
        some = slice(start, start + rows)
        for column in range(0, len(w), columns):
            left, right = z[some], w[column : column + columns]
            block = torch.mm(left, right.T, out=room[: len(left) * len(right)].view(len(left), len(right)))
            _keep_top(block.numpy(), column, cosines[some].numpy(), indices[some].numpy())
    return cosines, indices


@compiled()
def _keep_top(block, first, values, indices):
    """Merge the columns of a float32 block, from number ``first`` on, into the lists [rows, k] of the largest so far.

    Blocks come from left to right; the lists are descending and begin at -inf, the lowest index first among equals.
    """
    rows, columns = block.shape
    last = values.shape[1] - 1
    for i in range(rows):
        row, value, index = block[i], values[i], indices[i]
        for start in range(0, columns, RUN):  # most runs hold no value for the list and cost one maximum
            part = row[start : start + RUN]
            if largest(part) > value[last]:
                for j in range(len(part)):
                    if part[j] > value[last]:
                        insert(value, index, part[j], first + start + j)
