"""Prepared operands: padding, halves that add up to float32, and no copy where none is needed."""

from __future__ import annotations

import pytest
import torch

from ..kernel_device import DEVICE  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels.lib.common import next_power_of_2, padded_rows
from fastproto_kernels.lib.operands import prepare_operand

from ..helpers import unit_rows


@pytest.mark.parametrize(("m", "dim"), [(128, 64), (3, 5), (130, 100), (1, 513)])
def test_halves_add_up_and_zeros_pad(m: int, dim: int) -> None:
    rows = unit_rows(m, dim).to(DEVICE)
    width = next_power_of_2(dim)
    halves = prepare_operand(rows, width, torch.float16, 2)
    assert halves.shape == (2, padded_rows(m), width)
    together = halves.double().sum(0)
    assert float((together[:m, :dim] - rows.double()).abs().max()) < 2**-21
    assert not bool(together[m:].any()) and not bool(together[:, dim:].any())
    assert torch.equal(halves[0, :m, :dim], rows.half())


def test_no_copy_where_the_layout_is_right() -> None:
    rows = unit_rows(256, 64).to(DEVICE)
    assert prepare_operand(rows, 64, torch.float32, 1).data_ptr() == rows.data_ptr()
    assert prepare_operand(rows[:255], 64, torch.float32, 1).data_ptr() != rows.data_ptr()
    assert torch.equal(prepare_operand(rows[:, ::2], 32, torch.float32, 1)[0], rows[:, ::2])


def test_padding_sizes() -> None:
    assert [next_power_of_2(n) for n in (2, 16, 17, 64, 65, 512)] == [16, 16, 32, 64, 128, 512]
    assert [padded_rows(n) for n in (1, 128, 129)] == [128, 128, 256]
