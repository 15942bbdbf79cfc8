"""Views whose numbers lie more than 2³¹ apart: transposed rows of a matrix of 1.1 · 10⁹ columns, nearly all unread."""

from __future__ import annotations

import mmap
import sys

import pytest
import torch
from torch import Tensor

from fastproto import reference

from ..kernel_device import DEVICE  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels.gaussian_potential import gaussian_potential
from fastproto_kernels.head_step import head_step_
from fastproto_kernels.ipm_loss import ipm_loss
from fastproto_kernels.lib import tile_sizes as tiles
from fastproto_kernels.lib.operands import prepare_operand
from fastproto_kernels.update_class_means import update_class_means_

from ..helpers import unit_rows

COLUMNS, DIM = 1_100_000_000, 3
NO_RESERVE = 0x4000  # Linux: no memory is set aside for what is not written
pytestmark = pytest.mark.skipif(sys.platform != "linux" or sys.maxsize < 2**32, reason="memory on demand, as on Linux")


def far_apart(rows: Tensor) -> Tensor:
    """The same rows [B, 3] float16, of which neighbours in a row are 2.2 GB apart."""
    if DEVICE.type == "cuda":
        memory = torch.empty(DIM * COLUMNS, dtype=torch.float16, device=DEVICE)
    else:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
        memory = torch.frombuffer(mmap.mmap(-1, 2 * DIM * COLUMNS, flags=flags), dtype=torch.float16)
    view = memory.view(DIM, COLUMNS).T[: len(rows)]
    assert (DIM - 1) * view.stride(1) > 2**31
    return view.copy_(rows)


@pytest.fixture(scope="module")
def rows() -> Tensor:
    torch.manual_seed(0)
    return far_apart(unit_rows(5, DIM))


def test_operands_and_potential(rows: Tensor) -> None:
    halves = prepare_operand(rows, 16, torch.float16, 1)
    assert torch.equal(halves[0, :5, :DIM], rows) and not bool(halves[0, 5:].any())
    tile = tiles.Tile(32, 32, block_d=16, block_k=16)
    index = torch.arange(5, device=DEVICE)
    found = gaussian_potential(rows, rows, t=2.0, self_index=index, precision="highest", tile=tile)
    for part, truth in zip(found, reference.gaussian_potential(rows.double(), rows.double(), 2.0, index), strict=True):
        torch.testing.assert_close(part.double(), truth, rtol=1e-5, atol=1e-6)


def test_loss_means_and_step(rows: Tensor) -> None:
    labels = torch.tensor([0, 1, 3, 2, 1], device=DEVICE)
    prototypes, assignment = unit_rows(4, DIM).to(DEVICE), torch.tensor([2, 0, 3, 1], device=DEVICE)
    near = rows.clone(memory_format=torch.contiguous_format)
    expected = ipm_loss(near, labels, prototypes, assignment)
    assert all(map(torch.equal, ipm_loss(rows, labels, prototypes, assignment), expected))
    means, same, stepped = (torch.zeros(4, DIM, device=DEVICE) for _ in range(3))
    update_class_means_(means, near, labels, 0.9)
    update_class_means_(same, rows, labels, 0.9)
    losses, gradient = head_step_(stepped, rows, labels, prototypes, assignment, momentum=0.9)
    assert torch.equal(means, same) and torch.equal(means, stepped) and bool(means.any(1).all())
    assert torch.equal(losses, expected[0]) and torch.equal(gradient, expected[1])
