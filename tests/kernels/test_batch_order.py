"""The stable sort by counting against torch's, on a GPU or under Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from ..kernel_device import DEVICE, poison  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels.batch_order import batch_order


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("b", "c"), [(1, 1), (128, 10), (33, 5), (300, 2**31 - 2), (200, 1), (131, 1000)])
def test_stable_order_with_bad_labels_last(b: int, c: int, counted: bool) -> None:
    counted_max = b if counted else 0
    labels = torch.randint(0, c, (b,), device=DEVICE)
    labels[::7] = labels[0].clone()  # not of the memory that is written
    order, ordered = batch_order(labels, c, counted_max=counted_max)
    expected = labels.sort(stable=True)
    assert ordered.dtype == torch.int32 and torch.equal(ordered.long(), expected.values)
    assert torch.equal(order.long(), expected.indices)
    bad = labels.clone()
    bad[b // 2 :: 3] = torch.tensor([-1, c, 2**40], device=DEVICE).repeat(b)[: len(bad[b // 2 :: 3])]
    order, ordered = batch_order(bad, c, counted_max=counted_max)
    expected = torch.where((bad >= 0) & (bad < c), bad, c).sort(stable=True)
    assert torch.equal(ordered.long(), expected.values)
    assert torch.equal(order.long(), expected.indices)


def test_labels_with_a_stride() -> None:
    labels = torch.randint(0, 9, (80, 2), device=DEVICE)[:, 1]
    order, _ = batch_order(labels, 9)
    assert torch.equal(order.long(), labels.argsort(stable=True))
